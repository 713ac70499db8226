"""Weights of an HF folder straight onto a mesh: each process reads what its devices hold, one tensor at a time.

In: a folder, an architecture, shardings. Out: the parameter tree, as a trainer starts from it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stratos_jax.convert.folder import HfFolder, open_folder
from stratos_jax.model.config import Architecture
from stratos_jax.model.names import Entry, hf_entries
from stratos_jax.store import Url
from stratos_jax.types import UserError

Box = tuple[tuple[int, int], ...]  # first and end index along each axis


def load_hf_params(src: Url, arch: Architecture, shardings: Any, dtype: Any) -> dict[str, Any]:
    """The parameters of the folder `src` in `dtype`, sharded as the tree `shardings` says."""
    import jax

    folder = open_folder(src, mixed=True)
    if folder.arch != arch:
        raise UserError("the weights are of another model", where=src, got=folder.arch, wanted=arch)
    groups: dict[tuple[str, ...], list[Entry]] = {}
    for entry in hf_entries(arch):
        groups.setdefault(entry.path, []).append(entry)
    tree: dict[str, Any] = {}
    for path, entries in groups.items():
        sharding = _at(shardings, path)
        leaf = _load_leaf(folder, entries, sharding, np.dtype(jax.numpy.dtype(dtype)))
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = leaf
    return tree


def _load_leaf(folder: HfFolder, entries: list[Entry], sharding: Any, dtype: np.dtype) -> Any:
    """One parameter: read the union of what local devices need of each tensor, and cut it up among them."""
    import jax

    stacked = entries[0].layer is not None
    shape = (len(entries), *entries[0].our_shape) if stacked else entries[0].our_shape
    boxes = {_box(index, shape) for index in sharding.addressable_devices_indices_map(shape).values()}
    buffers = {box: np.empty([end - first for first, end in box], dtype) for box in boxes}
    for entry in entries:
        holders = [b for b in boxes if not stacked or b[0][0] <= (entry.layer or 0) < b[0][1]]
        if not holders:
            continue
        parts = [box[1:] if stacked else box for box in holders]
        union = tuple((min(b[i][0] for b in parts), max(b[i][1] for b in parts)) for i in range(len(parts[0])))
        read, origin = _read_box(folder, entry, union)
        for box, part in zip(holders, parts, strict=True):
            cut = tuple(slice(f - o, e - o) for (f, e), o in zip(part, origin, strict=True))
            if stacked:
                buffers[box][(entry.layer or 0) - box[0][0]] = read[cut]
            else:
                buffers[box][...] = read[cut]
    return jax.make_array_from_callback(shape, sharding, lambda index: buffers[_box(index, shape)])  # pyright: ignore[reportArgumentType]


def _read_box(folder: HfFolder, entry: Entry, box: Box) -> tuple[np.ndarray, tuple[int, ...]]:
    """At least this part of a parameter, and the index at which what was read begins.

    A run of HF rows is one range of bytes, so the part is widened to whole rows: of the first split axis where HF has
    several in one.
    """
    tensor = folder.tensors[entry.hf_name]
    outer = entry.order.index(0)  # our axis that is the slowest one of the HF tensor
    first, end = box[outer]
    per_index = entry.hf_shape[0] // entry.split[0]
    rows = tensor.read(slice(first * per_index, end * per_index))
    part = rows.reshape(end - first, *entry.split[1:]).transpose(entry.order)
    return part, tuple(first if axis == outer else 0 for axis in range(len(box)))


def _box(index: tuple[slice, ...], shape: tuple[int, ...]) -> Box:
    return tuple(cut.indices(size)[:2] for cut, size in zip(index, shape, strict=True))


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree
