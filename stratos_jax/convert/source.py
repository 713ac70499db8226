"""The weights of one step as HF tensors, one at a time, whatever the trainer kept beside them.

In: a step of a checkpoint. Out: tensors in the target's number format. A LoRA run keeps a frozen base and adapters:
they are merged while they are read. All that is read is digested, and held against what was saved at the end.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stratos_jax import checkpoint, store
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.folder import read_config
from stratos_jax.convert.ingest import CARRIED, PARAMS, dtype_of, sha256
from stratos_jax.convert.safetensors import Planned
from stratos_jax.model.config import Architecture, read_architecture
from stratos_jax.model.names import Entry, hf_entries
from stratos_jax.store import Url
from stratos_jax.types import Json, UserError, raise_all

BASE = "base"  # the subtree of the frozen weights of a LoRA run; its adapters stand under PARAMS


class Source:
    """The weights of one step, as HF tensors in the target's number format."""

    def __init__(self, directory: Url, step: int | None, hf_config: Mapping[str, Json] | None, config: ConvertConfig):
        chosen = checkpoint.newest(directory) if step is None else step
        if chosen is None:
            raise UserError(
                "no checkpoint here", where=directory, do="check the path; a step is a folder with a number"
            )
        self.reader = checkpoint.LeafReader(directory, chosen)
        self.step, self.url = chosen, self.reader.url
        self.metadata = self.reader.integrity.metadata
        self.hf_config = hf_config or _stored_config(str(directory), self.metadata)
        self.arch: Architecture = read_architecture(self.hf_config)
        self.entries = hf_entries(self.arch)
        self._stored = {leaf.path: leaf for leaf in self.reader.integrity.leaves}
        self._root = BASE if any(path.startswith(f"{BASE}/") for path in self._stored) else PARAMS
        self._scale = _adapter_scale(self.metadata) if self._root == BASE else 0.0
        self.formats = self._check_leaves()
        if config.vocab_rows is not None:
            self._cut_vocabulary(config.vocab_rows)
        if config.dtype != "keep":
            self.formats = dict.fromkeys(self.formats, dtype_of(config.dtype))
        self.planned = [Planned(e.hf_name, self.formats[self._leaf(e.path)], e.hf_shape) for e in self.entries]
        self.sums: dict[str, str] = {}  # of each tensor in our shape, as it was read and cast
        self._words: dict[str, checkpoint.Words] = {}

    @property
    def out_config(self) -> dict[str, Json]:
        """The target's config.json."""
        kinds = {str(format) for format in self.formats.values()}
        key = "dtype" if "dtype" in self.hf_config else "torch_dtype"
        return {**self.hf_config, key: kinds.pop() if len(kinds) == 1 else "float32"}

    def tensor(self, entry: Entry) -> np.ndarray:
        """One HF tensor; what was read is digested on the way."""
        rows = slice(entry.our_shape[0]) if entry.path in (("embed",), ("head",)) else slice(None)
        cast = self._read(entry.path, entry.layer, digest=True)[rows]
        self.sums[entry.hf_name] = sha256(cast)
        return entry.to_hf(cast)

    def read_leaf(self, path: tuple[str, ...], index: Any) -> np.ndarray:
        """A part of a parameter, in the target's number format."""
        return self._read(path, index, digest=False)

    def _read(self, path: tuple[str, ...], index: Any, *, digest: bool) -> np.ndarray:
        """A part of a parameter, with its adapter in it, cast."""
        name, adapter = self._leaf(path), "/".join((PARAMS, *path))
        part = self._part(name, index, digest)
        if self._root == BASE and f"{adapter}/a" in self._stored:
            a, b = (self._part(f"{adapter}/{side}", index, digest).astype(np.float32) for side in "ab")
            part = part.astype(np.float32) + np.float32(self._scale / a.shape[-1]) * np.tensordot(a, b, axes=1)
        return part.astype(self.formats[name], copy=False)

    def _part(self, name: str, index: Any, digest: bool) -> np.ndarray:
        part = self.reader.read(name, index)
        if digest:
            words = checkpoint.words_of(part, (index or 0) * part.size)
            self._words[name] = checkpoint.add(self._words.get(name, (0, 0)), words)
        return part

    def _leaf(self, path: tuple[str, ...]) -> str:
        return "/".join((self._root, *path))

    def damage(self) -> list[str]:
        """Leaves that are not what was saved; all tensors must have been read."""
        leaves = ((path, self.reader.integrity.leaf(path), words) for path, words in self._words.items())
        return [f"{path}: digest differs" for path, leaf, words in leaves if checkpoint.text(words) != leaf.digest]

    def _cut_vocabulary(self, rows: int) -> None:
        """Leave out padded rows of embedding and head."""
        if rows > self.arch.vocab_size:
            do = "rows that were never trained are not made up; leave vocab_rows out"
            raise UserError("vocab_rows is larger than the model", got=rows, wanted=self.arch.vocab_size, do=do)
        self.hf_config = {**self.hf_config, "vocab_size": rows}
        self.arch = read_architecture(self.hf_config)
        self.entries = hf_entries(self.arch)

    def _check_leaves(self) -> dict[str, np.dtype]:
        """The number format of each leaf; raises where the checkpoint is of another model."""
        stored, layers = self._stored, self.arch.num_layers
        problems, formats = [], {}
        for entry in self.entries:
            path = self._leaf(entry.path)
            wanted = entry.our_shape if entry.layer is None else (layers, *entry.our_shape)
            if path in formats:
                continue
            formats[path] = np.dtype(np.float32)
            if path not in stored:
                packed = any(name.startswith(f"{path}/") for name in stored)
                what = "quantized; merge the exported adapter into the original weights: from-hf --lora"
                problems.append(f"{path}: {what if packed else 'not in the checkpoint'}")
            elif stored[path].shape != wanted:
                problems.append(f"{path}: has shape {list(stored[path].shape)}, the config says {list(wanted)}")
            else:
                formats[path] = dtype_of(stored[path].dtype)
        extra = [p for p in stored if p.startswith(f"{self._root}/") and p.count("/") < 3 and p not in formats]
        problems += [f"{path}: not a parameter of this architecture" for path in extra]
        raise_all(problems, what="a checkpoint of another model", where=self.url, do="give the config of its model")
        return formats


def _adapter_scale(metadata: Mapping[str, Any]) -> float:
    """Alpha of a LoRA run."""
    lora = metadata.get("task", {}).get("train", {}).get("lora") or {}
    if "alpha" not in lora:
        raise UserError("the checkpoint has adapters, but does not say their alpha", do="export the adapters instead")
    return float(lora["alpha"])


def _stored_config(directory: str, metadata: Mapping[str, Any]) -> Mapping[str, Json]:
    """The model's raw config: of the step's metadata, of the trainer's source, or carried with the weights."""
    model = metadata.get("task", {}).get("model", {})
    found = metadata.get("hf_config") or model.get("hf")
    if found:
        return found
    for folder in (store.join(directory, CARRIED), model.get("source")):
        if folder and store.exists(store.join(folder, "config.json")):
            return read_config(folder)
    raise UserError(
        "the checkpoint does not say of which model it is", where=directory, do="name a folder with --model"
    )
