"""A model folder in the Hugging Face format, opened by reading its config, index and headers alone.

In: a folder, local or gs://. Out: the architecture, where each tensor lies, and the files that travel with the weights.
Every problem of the folder is found before any tensor is read.
"""

import dataclasses
import fnmatch
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.convert.safetensors import NAMES, Tensor, read_header
from stratos_jax.model.config import Architecture, read_architecture
from stratos_jax.model.names import hf_entries
from stratos_jax.store import Url
from stratos_jax.types import Json, UserError, raise_all

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# What travels with the weights: tokenizer, chat template, settings of generation.
CARRIED = (
    *("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt"),
    *("*.model", "chat_template*", "additional_chat_templates/*", "generation_config.json"),
)
PASSED_OVER = ("*.rotary_emb.inv_freq",)  # old exports store these tables, which follow from the config
FLOATS = ("BF16", "F16", "F32")
LISTED = 20  # names of one kind of problem that are written out


@dataclasses.dataclass(frozen=True, slots=True)
class HfFolder:
    """A checked model folder."""

    url: str
    config: Mapping[str, Json]
    arch: Architecture
    tensors: Mapping[str, Any]  # those that the architecture names: `Tensor`, or what reads like one

    @property
    def bytes(self) -> int:
        """Size of the weights."""
        return sum(tensor.bytes for tensor in self.tensors.values())


def open_folder(url: Url, *, mixed: bool = False, config: Mapping[str, Json] | None = None) -> HfFolder:
    """Read config, index and headers; raise all problems at once. `mixed` allows several number formats."""
    url = str(url)
    config = config or read_config(url)
    arch = read_architecture(config)
    tensors, problems = read_tensors(url)
    problems += check_tensors(arch, tensors, mixed=mixed)
    raise_all(problems, what="not a complete model folder", where=url, do="fetch or export it again")
    return HfFolder(url, config, arch, {e.hf_name: tensors[e.hf_name] for e in hf_entries(arch)})


def read_config(url: str) -> Mapping[str, Json]:
    """The raw config.json."""
    where = store.join(url, "config.json")
    try:
        config = json.loads(store.read_text(where))
    except store.Missing:
        raise UserError("no config.json, so not a model folder", where=url, do="check the path") from None
    except json.JSONDecodeError as error:
        raise UserError("config.json is not JSON", where=where, got=error) from error
    if not isinstance(config, dict):
        raise UserError("config.json is not an object", where=where, got=type(config).__name__)
    return config


def read_tensors(url: str) -> tuple[dict[str, Tensor], list[str]]:
    """Where each tensor of a folder lies, and what is wrong with its files."""
    sizes = {file.url: file.bytes for file in store.list_files(url)}
    weight_map, problems = _weight_map(url)
    names = sorted(set(weight_map.values())) if weight_map is not None else [SINGLE]
    tensors: dict[str, Tensor] = {}
    for name in names:
        where = store.join(url, name)
        if where not in sizes:
            problems.append(f"{name}: missing" if weight_map is not None else f"no {SINGLE} and no {INDEX}")
            continue
        found, wrong = read_header(where, sizes[where])
        problems += [f"{name}: {problem}" for problem in wrong]
        if weight_map is not None and not (wrong and not found):
            stated = {tensor for tensor, file in weight_map.items() if file == name}
            problems += shorten(
                [f"{t}: the index puts it in {name}, which lacks it" for t in sorted(stated - set(found))]
            )
            problems += shorten([f"{t}: in {name}, but the index does not say so" for t in sorted(set(found) - stated)])
        tensors |= found
    return tensors, problems


def check_tensors(arch: Architecture, tensors: Mapping[str, Tensor], *, mixed: bool = False) -> list[str]:
    """What is missing, too many, or of the wrong shape or number format for an architecture."""
    entries = {entry.hf_name: entry for entry in hf_entries(arch)}
    tied_copy = {"lm_head.weight"} if arch.tied_head else set()
    extra = [n for n in tensors if n not in entries.keys() | tied_copy and not _passed_over(n)]
    problems = shorten([f"{name}: missing" for name in entries if name not in tensors])
    problems += shorten([f"{name}: not a tensor of this architecture" for name in sorted(extra)])
    formats: Counter[str] = Counter()
    shapes, kinds = [], []
    for name, tensor in tensors.items():
        if name not in entries:
            continue
        wanted, kind = entries[name].hf_shape, NAMES[tensor.dtype]
        formats[kind] += 1
        if tensor.shape != wanted:
            shapes.append(f"{name}: has shape {list(tensor.shape)}, wanted {list(wanted)}")
        if kind not in FLOATS:
            kinds.append(f"{name}: number format {kind}, wanted one of {', '.join(FLOATS)}")
    problems += shorten(shapes) + shorten(kinds)
    usual = formats.most_common(1)[0][0] if formats else None
    if not mixed and not kinds and len(formats) > 1:
        odd = [n for n, t in tensors.items() if n in entries and NAMES[t.dtype] != usual]
        problems += shorten([f"{n}: {NAMES[tensors[n].dtype]}, while most tensors are {usual}" for n in odd])
    return problems + _tied_problems(arch, tensors)


def carried_files(url: str) -> list[str]:
    """Names of the files that travel with the weights."""
    root = len(store.join(url, "x")) - 1
    names = [file.url[root:] for file in store.list_files(url)]
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in CARRIED)]


def shorten(problems: list[str]) -> list[str]:
    """At most `LISTED` problems of one kind, and how many more there are."""
    more = len(problems) - LISTED
    return problems[:LISTED] + [f"... and {more} more like these"] if more > 0 else problems


def _weight_map(url: str) -> tuple[dict[str, str] | None, list[str]]:
    where = store.join(url, INDEX)
    if not store.exists(where):
        return None, []
    try:
        weight_map = json.loads(store.read_text(where))["weight_map"]
        if not all(isinstance(v, str) and "/" not in v for v in weight_map.values()):
            raise ValueError("weight_map names something that is not a file beside it")
        return weight_map, []
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        return {}, [f"{INDEX}: cannot be read: {error!r}"]


def _tied_problems(arch: Architecture, tensors: Mapping[str, Tensor]) -> list[str]:
    """A tied model may carry its head twice, but not two heads."""
    head, embed = tensors.get("lm_head.weight"), tensors.get("model.embed_tokens.weight")
    if not arch.tied_head or head is None or embed is None:
        return []
    step = max(1, (256 << 20) // max(1, head.bytes // max(1, head.shape[0])))
    same = head.shape == embed.shape and head.dtype == embed.dtype
    for first in range(0, head.shape[0], step) if same else ():
        rows = slice(first, first + step)
        same = same and np.array_equal(head.read(rows).view(np.uint8), embed.read(rows).view(np.uint8))
    return [] if same else ["lm_head.weight: differs from the embedding, while tie_word_embeddings is true"]


def _passed_over(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in PASSED_OVER)
