"""Manifests: which files a stage wrote, with their hashes; written last, so that seeing one means all is there."""

import functools
import json
import pathlib
import subprocess
from collections.abc import Mapping
from typing import Any

import stratos_jax
from stratos_jax.store import checksum, files
from stratos_jax.store.errors import Missing
from stratos_jax.store.names import MANIFEST, Stat, Url, relative_name
from stratos_jax.types import File, Json, Manifest, UserError, from_json, json_hash, to_json

MARKER = ".stage.json"  # stands in a folder whose stage is not complete


def make_manifest(
    directory: Url,
    *,
    stage: str,
    config: Any = None,
    inputs: Mapping[str, str] | None = None,
    counts: Mapping[str, Json] | None = None,
) -> Manifest:
    """Read and hash every file under `directory`."""
    plain = plain_config(config)
    return Manifest(
        stage=stage,
        config_hash=json_hash(plain),
        code_version=code_version(),
        inputs=dict(inputs or {}),
        files=tuple(_hash_file(found, directory) for found in _listed(directory)),
        counts=dict(counts or {}),
        config=plain,
    )


def write_manifest(directory: Url, manifest: Manifest, *, create_only: bool = False) -> None:
    """Write `manifest.json`; the last thing that a stage does."""
    text = json.dumps(to_json(manifest), indent=1, ensure_ascii=False) + "\n"
    files.write_text(files.join(directory, MANIFEST), text, create_only=create_only)


def read_manifest(directory: Url) -> Manifest | None:
    """The manifest of a folder; None where there is none, a `UserError` where it cannot be read."""
    url = files.join(directory, MANIFEST)
    try:
        text = files.read_text(url)
    except Missing:
        return None
    try:
        record = json.loads(text)
    except ValueError as error:
        raise UserError("the manifest is not JSON", where=url, got=str(error), do="run the stage again") from error
    return from_json(Manifest, record, where=url)


def verify(directory: Url, *, deep: bool = False) -> list[str]:
    """What differs from the manifest, by listing alone, or with `deep` by reading every byte."""
    manifest = read_manifest(directory)
    if manifest is None:
        return [f"{MANIFEST}: missing, so the folder is not complete"]
    found = {relative_name(file.url, directory): file for file in _listed(directory)}
    problems = [f"{name}: not in the manifest" for name in sorted(found.keys() - {f.path for f in manifest.files})]
    for wanted in manifest.files:
        if wanted.path not in found:
            problems.append(f"{wanted.path}: missing")
        elif problem := _differs(wanted, found[wanted.path], deep=deep):
            problems.append(f"{wanted.path}: {problem}")
    return problems


def plain_config(config: Any) -> dict[str, Json]:
    """A stage's config, dataclass or mapping, as it stands in the manifest."""
    return dict(to_json(config)) if config is not None else {}


@functools.cache
def code_version() -> str:
    """Version of the package, and the commit where it runs from a checkout."""
    root = pathlib.Path(stratos_jax.__file__).parent.parent
    if not (root / ".git").exists():
        return stratos_jax.__version__
    command = ["git", "-C", str(root), "rev-parse", "--short=12", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of somebody else
        return stratos_jax.__version__
    return f"{stratos_jax.__version__}+{commit}"


def _listed(directory: Url) -> list[Stat]:
    own = {files.join(directory, MANIFEST), files.join(directory, MARKER)}
    return [file for file in files.list_files(directory) if file.url not in own]


def _hash_file(found: Stat, directory: Url) -> File:
    with files.open_read(found.url) as file:
        length, sha256, crc32c = checksum.file_hashes(file)
    return File(path=relative_name(found.url, directory), bytes=length, sha256=sha256, crc32c=crc32c)


def _differs(wanted: File, found: Stat, *, deep: bool) -> str | None:
    if found.bytes != wanted.bytes:
        return f"has {found.bytes} bytes, wanted {wanted.bytes}"
    if found.crc32c and found.crc32c != wanted.crc32c:
        return f"has crc32c {found.crc32c}, wanted {wanted.crc32c}"
    if deep:
        with files.open_read(found.url) as file:
            _, sha256, _ = checksum.file_hashes(file)
        if sha256 != wanted.sha256:
            return f"has sha256 {sha256}, wanted {wanted.sha256}"
    return None
