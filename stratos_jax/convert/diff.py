"""Two sets of weights, compared tensor by tensor, whichever form each has.

In: two places, each a model folder or a checkpoint. Out: one `Difference` for each tensor, by its HF name; two
checkpoints are compared by leaf, optimizer state and all. A few of the largest tensors are in memory at a time.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from stratos_jax import checkpoint
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.folder import read_tensors
from stratos_jax.convert.source import Source
from stratos_jax.convert.verify import kind_of, split_step
from stratos_jax.store import Url
from stratos_jax.types import UserError, raise_all


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """How far one tensor of A is from that of B."""

    name: str
    bitwise: bool
    max_abs: float = 0.0
    relative: float = 0.0  # root mean square of the difference over that of A
    note: str = ""  # what stands in the way of a comparison


@dataclasses.dataclass(frozen=True, slots=True)
class Side:
    """Tensors by name: shape, number format and how to read one."""

    shapes: Mapping[str, tuple[tuple[int, ...], str]]
    read: Callable[[str], np.ndarray]
    digests: Mapping[str, str]  # where they are known without reading


def diff(a: Url, b: Url) -> Iterator[Difference]:
    """Every tensor of either side."""
    by_leaf = kind_of(a) == kind_of(b) == "checkpoint"
    left, right = (_side(str(url), by_leaf=by_leaf) for url in (a, b))
    for name in sorted(left.shapes.keys() | right.shapes.keys()):
        if name not in right.shapes or name not in left.shapes:
            yield Difference(name=name, bitwise=False, note=f"only in {'A' if name in left.shapes else 'B'}")
        elif left.shapes[name][0] != right.shapes[name][0]:
            shapes = " and ".join(str(list(side.shapes[name][0])) for side in (left, right))
            yield Difference(name=name, bitwise=False, note=f"shapes {shapes}")
        elif left.digests.get(name, "a") == right.digests.get(name, "b"):
            yield Difference(name=name, bitwise=True)
        else:
            yield _compare(name, left, right)


def _compare(name: str, left: Side, right: Side) -> Difference:
    a, b = left.read(name), right.read(name)
    formats = [side.shapes[name][1] for side in (left, right)]
    bitwise = formats[0] == formats[1] and a.tobytes() == b.tobytes()
    if bitwise:
        return Difference(name=name, bitwise=True)
    wide_a, wide_b = a.astype(np.float64).reshape(-1), b.astype(np.float64).reshape(-1)
    gap = np.abs(wide_a - wide_b)
    size = float(np.sqrt(np.mean(np.square(wide_a)))) if a.size else 0.0
    return Difference(
        name=name,
        bitwise=False,
        max_abs=float(gap.max(initial=0.0)),
        relative=float(np.sqrt(np.mean(np.square(gap)))) / size if size else float("inf"),
        note=f"{formats[0]} and {formats[1]}" if formats[0] != formats[1] else "",
    )


def _side(url: str, *, by_leaf: bool) -> Side:
    kind = kind_of(url)
    if kind == "hf":
        tensors, problems = read_tensors(url)
        raise_all(problems, what="not a complete model folder", where=url)
        shapes = {name: (tensor.shape, str(tensor.dtype)) for name, tensor in tensors.items()}
        return Side(shapes, lambda name: tensors[name].read(), {})
    if kind is None:
        raise UserError("neither a model folder nor a checkpoint", where=url, wanted="config.json, or folders of steps")
    directory, step = split_step(url)
    if by_leaf:
        return _leaf_side(directory, step)
    source = Source(directory, step, None, ConvertConfig(dtype="keep"))
    entries: Mapping[str, Any] = {entry.hf_name: entry for entry in source.entries}
    shapes = {tensor.name: (tensor.shape, str(tensor.dtype)) for tensor in source.planned}
    return Side(shapes, lambda name: source.tensor(entries[name]), {})


def _leaf_side(directory: str, step: int | None) -> Side:
    chosen = checkpoint.newest(directory) if step is None else step
    assert chosen is not None  # `kind_of` has seen one
    reader = checkpoint.LeafReader(directory, chosen)
    leaves = reader.integrity.leaves
    shapes = {leaf.path: (leaf.shape, leaf.dtype) for leaf in leaves}
    return Side(shapes, reader.read, {leaf.path: f"{leaf.dtype} {leaf.digest}" for leaf in leaves})
