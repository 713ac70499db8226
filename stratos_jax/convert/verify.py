"""Whether a model folder or a folder of checkpoints is what was written.

In: a place, local or gs://. Out: problems as text, empty where all is well.
"""

import hashlib
import re

from stratos_jax import checkpoint, store
from stratos_jax.convert.folder import check_tensors, read_config, read_tensors, shorten
from stratos_jax.model.config import read_architecture
from stratos_jax.store import Url
from stratos_jax.types import UserError

SUMS = "SHA256SUMS"
STAGE_MODEL = "hf"  # where the stage `convert` of a run has the model folder
CHUNK = 8 << 20


def kind_of(url: Url) -> str | None:
    """`hf` for a model folder, `checkpoint` for a folder of steps or one step of it, None for anything else."""
    if store.exists(store.join(url, "config.json")):
        return "hf"
    if store.exists(store.join(url, "integrity.json")) or checkpoint.steps(url):
        return "checkpoint"
    return None


def verify(url: Url, *, deep: bool = True) -> list[str]:
    """Names, sizes, shapes and number formats; with `deep` every byte against its checksum, too."""
    url = str(url)
    kind = kind_of(url)
    if kind is None and kind_of(store.join(url, STAGE_MODEL)) == "hf":
        return verify_hf(store.join(url, STAGE_MODEL), deep=deep)
    if kind is None:
        raise UserError("neither a model folder nor a checkpoint", where=url, wanted="config.json, or folders of steps")
    if kind == "hf":
        return verify_hf(url, deep=deep)
    directory, step = split_step(url)
    return checkpoint.verify(directory, step, deep=deep)


def split_step(url: str) -> tuple[str, int | None]:
    """The folder of checkpoints and the step that a URL names; None where it names all."""
    found = re.fullmatch(r"(.+)/(\d+)/?", url)
    if found and store.exists(store.join(url, "integrity.json")):
        return found[1], int(found[2])
    return url, None


def verify_hf(url: str, *, deep: bool) -> list[str]:
    """Config, index, headers and shapes of a model folder; with `deep` the sums of its files."""
    try:
        arch = read_architecture(read_config(url))
    except UserError as error:
        return [str(error)]
    tensors, problems = read_tensors(url)
    problems += check_tensors(arch, tensors, mixed=True)
    if not store.exists(store.join(url, SUMS)):
        return problems
    lines = (line.split("  ", 1) for line in store.read_text(store.join(url, SUMS)).splitlines())
    wanted = {name: digest for digest, name in lines}
    there = {file.url[len(store.join(url, "x")) - 1 :] for file in store.list_files(url)}
    missing = sorted(wanted.keys() - there)
    changed = sorted(n for n in wanted.keys() & there if deep and sha256_of(store.join(url, n)) != wanted[n])
    unknown = sorted(n for n in there - wanted.keys() if n.endswith(".safetensors"))
    problems += shorten([f"{name}: named in {SUMS}, missing" for name in missing])
    problems += shorten([f"{name}: not the bytes that {SUMS} states" for name in changed])
    return problems + shorten([f"{name}: not in {SUMS}" for name in unknown])


def sha256_of(url: str) -> str:
    """Of a whole file."""
    digest = hashlib.sha256()
    with store.open_read(url) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
