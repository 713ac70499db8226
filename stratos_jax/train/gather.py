"""Weights come together where they are used, and their gradients go apart again; runs per device, inside `shard_map`.

In: shards of parameters and their partition specs. Out: parameters, whole but for the mesh axes that are to stay split;
what travels does so in the compute format, the rest stays as it is and is cast where it is used. The transpose of the
all-gather is a reduce-scatter, in the same format, so that a gradient never travels whole.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import rules
from stratos_jax.train.quantized import Packed, unpack


def whole(params: Any, specs: Any, dtype: Any, stay_split: Sequence[str] = ()) -> Any:
    """Each parameter gathered along the axes that its spec splits; `params` may lack parts of `specs`."""
    return {name: _whole(leaf, specs[name], dtype, stay_split) for name, leaf in params.items()}


def _whole(leaf: Any, spec: Any, dtype: Any, stay_split: Sequence[str]) -> Any:
    if isinstance(leaf, dict):
        return whole(leaf, spec, dtype, stay_split)
    if isinstance(leaf, Packed):  # travels as it is, and is unpacked where it is used
        return unpack(Packed(*(_gathered(part, own, stay_split) for part, own in zip(leaf, spec))), dtype)
    return _gathered(leaf, spec, stay_split, dtype)


def _gathered(leaf: jax.Array, spec: P, stay_split: Sequence[str], dtype: Any = None) -> jax.Array:
    for dim, entry in enumerate(spec):
        names = tuple(name for name in rules.names_in(P(entry)) if name not in stay_split)
        if names and jax.lax.axis_size(names) > 1:
            leaf = jax.lax.all_gather(leaf.astype(dtype or leaf.dtype), names, axis=dim, tiled=True)
    return leaf


def of_one_layer(specs: Any) -> Any:
    """Specs of a slice of stacked parameters: without the layer axis."""
    return jax.tree.map(lambda spec: P(*spec[1:]), specs, is_leaf=lambda value: isinstance(value, P))


def finish_reduction(grads: Any, specs: Any, axes: Sequence[str]) -> Any:
    """Sum gradients over the mesh axes over which their parameters are not split."""

    def reduce(grad: jax.Array, spec: P) -> jax.Array:
        rest = tuple(axis for axis in axes if axis not in rules.names_in(spec))
        return jax.lax.psum(grad, rest) if rest and jax.lax.axis_size(rest) > 1 else grad

    return jax.tree.map(reduce, grads, specs)
