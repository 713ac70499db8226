"""The one table from logical axes to mesh axes.

In: the logical names that `model` gives to the axes of parameters and activations. Out: partition specs for a mesh.
Parameters are split over `tensor` along heads, MLP width and vocabulary, and over `fsdp` and `context` along the first
axis that this leaves free; rows of a batch are split over `data` and `fsdp`, their tokens over `context`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.types import raise_all

AXES = ("data", "fsdp", "context", "tensor")
ROWS = ("data", "fsdp")

SHARDS = ("fsdp", "context")  # of parameters; the first axis of SPLIT that tensor leaves free goes over these
SPLIT = ("vocab", "mlp", "embed")
PARAM_RULES: Mapping[str, tuple[str, ...]] = {
    "layers": (),
    "vocab": ("tensor",),
    "embed": (),
    "norm": (),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": (),
    "mlp": ("tensor",),
    "rank": (),  # of LoRA
}
BATCH_SPEC = P(ROWS, "context")


def is_axes(value: Any) -> bool:
    """Whether a node of a tree of logical axes is a leaf."""
    return isinstance(value, tuple)


def param_spec(axes: Sequence[str], mesh_shape: Mapping[str, int]) -> P:
    """The partition spec of a parameter.

    A matrix is gathered along its first axis where it can be: rows of a shard then lie together, on TPU in whole tiles.
    """
    used = [tuple(name for name in PARAM_RULES[axis] if mesh_shape[name] > 1) for axis in axes]
    free = [i for i, axis in enumerate(axes) if axis in SPLIT and not used[i]]
    if free:
        used[free[0]] = SHARDS
    return P(*(names or None for names in used))


def names_in(spec: P) -> tuple[str, ...]:
    """All mesh axes that a spec uses."""
    return tuple(name for entry in spec for name in _names(entry))


def _names(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def param_specs(axes_tree: Any, mesh_shape: Mapping[str, int]) -> Any:
    """Partition specs of a tree of parameters, from its logical axes."""
    return jax.tree.map(lambda axes: param_spec(axes, mesh_shape), axes_tree, is_leaf=is_axes)


def shardings(mesh: Mesh, spec_tree: Any) -> Any:
    """Named shardings of a tree of specs."""
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), spec_tree, is_leaf=lambda v: isinstance(v, P))


def check_divides(mesh_shape: Mapping[str, int], axes_tree: Any, shapes_tree: Any, where: str = "the mesh") -> None:
    """Refuse a mesh over which a parameter cannot be split evenly; every such parameter is named."""
    raise_all(
        undivided(mesh_shape, axes_tree, shapes_tree),
        what="the mesh does not divide the model",
        where=f"{where} {dict(mesh_shape)}",
        do="choose mesh axes that divide these sizes, or leave them at 0",
    )


def undivided(mesh_shape: Mapping[str, int], axes_tree: Any, shapes_tree: Any) -> list[str]:
    """For each parameter axis that the mesh does not divide, one line that names both."""
    problems = []
    flat_axes = jax.tree_util.tree_flatten_with_path(axes_tree, is_leaf=is_axes)[0]
    for (path, axes), leaf in zip(flat_axes, jax.tree.leaves(shapes_tree), strict=True):
        spec = param_spec(axes, mesh_shape)
        for axis, size, entry in zip(axes, leaf.shape, spec, strict=True):
            names = _names(entry)
            if size % math.prod(mesh_shape[name] for name in names):
                name = "/".join(str(getattr(key, "key", key)) for key in path)
                over = " x ".join(f"{n}={mesh_shape[n]}" for n in names)
                problems.append(f"{name} {tuple(leaf.shape)}: axis {axis!r} of size {size} over {over}")
    return problems
