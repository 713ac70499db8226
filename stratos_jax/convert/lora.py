"""A low-rank adapter in the PEFT layout, merged into the weights while they are read.

In: a model folder and an adapter folder. Out: the same folder with `W + scale * B @ A` in place of each adapted W,
computed in float32 and rounded once.
"""

import dataclasses
import json
import math
from collections.abc import Mapping

import numpy as np

from stratos_jax import store
from stratos_jax.convert.folder import HfFolder, shorten
from stratos_jax.convert.safetensors import Tensor, read_header
from stratos_jax.store import Url
from stratos_jax.types import Json, UserError, raise_all

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
# Settings under which an adapter is not the plain sum that is computed here.
MUST_BE: Mapping[str, tuple[Json, ...]] = {
    "peft_type": ("LORA", None),
    "bias": ("none", None),
    "use_dora": (False, None),
    "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}


@dataclasses.dataclass(frozen=True, slots=True)
class MergedTensor:
    """An adapted tensor; the sum is made when it is read."""

    base: Tensor
    a: Tensor  # [rank, in]
    b: Tensor  # [out, rank]
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the base."""
        return self.base.shape

    @property
    def dtype(self) -> np.dtype:
        """Of the base."""
        return self.base.dtype

    @property
    def bytes(self) -> int:
        """Of the base."""
        return self.base.bytes

    def read(self, rows: slice | None = None) -> np.ndarray:
        """The merged tensor, or a run of its rows."""
        wide = self.base.read(rows).astype(np.float32)
        low = self.b.read(rows).astype(np.float32) @ self.a.read().astype(np.float32)
        return (wide + np.float32(self.scale) * low).astype(self.dtype)


def merge(folder: HfFolder, adapter: Url) -> HfFolder:
    """The folder with the adapter in it; every problem of the adapter is listed at once."""
    adapter = str(adapter)
    config = _read_config(adapter)
    problems = [
        f"{CONFIG}: {key} is {config[key]!r}, only {allowed[0]!r} can be merged"
        for key, allowed in MUST_BE.items()
        if config.get(key) not in allowed
    ]
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not rank or not alpha:
        problems.append(f"{CONFIG}: r and lora_alpha are {rank!r} and {alpha!r}, wanted two numbers")
    pairs, more = _read_pairs(adapter)
    problems += more
    merged = dict(folder.tensors)
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank) if rank and alpha else 0.0
    for name, (a, b) in pairs.items():
        base = folder.tensors.get(name)
        if base is None:
            problems.append(f"{name}: the model has no such tensor")
        elif a.shape != (rank, base.shape[-1]) or b.shape != (base.shape[0], rank) or len(base.shape) != 2:
            problems.append(
                f"{name}: {list(base.shape)} takes no A {list(a.shape)} and B {list(b.shape)} of rank {rank}"
            )
        else:
            merged[name] = MergedTensor(base, a, b, scale)
    raise_all(shorten(problems), what="the adapter cannot be merged", where=adapter)
    return dataclasses.replace(folder, tensors=merged)


def _read_config(adapter: str) -> Mapping[str, Json]:
    where = store.join(adapter, CONFIG)
    if not store.exists(where):
        raise UserError("no adapter_config.json, so not an adapter folder", where=adapter, do="check the path")
    try:
        return json.loads(store.read_text(where))
    except json.JSONDecodeError as error:
        raise UserError("adapter_config.json is not JSON", where=where, got=error) from error


def _read_pairs(adapter: str) -> tuple[dict[str, tuple[Tensor, Tensor]], list[str]]:
    """A and B of each adapted tensor, by its HF name."""
    where = store.join(adapter, WEIGHTS)
    found = store.stat(where)
    if found is None:
        return {}, [f"{WEIGHTS}: missing"]
    tensors, problems = read_header(where, found.bytes)
    halves: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        for side in ("A", "B"):
            if name.endswith(f".lora_{side}.weight"):
                target = name.removeprefix(PREFIX).removesuffix(f".lora_{side}.weight") + ".weight"
                halves.setdefault(target, {})[side] = tensor
                break
        else:
            problems.append(f"{name}: not a part of a plain LoRA adapter")
    problems += [f"{name}: only one of A and B" for name, pair in halves.items() if len(pair) < 2]
    return {name: (pair["A"], pair["B"]) for name, pair in halves.items() if len(pair) == 2}, problems
