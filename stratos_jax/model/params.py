"""Parameters as plain nested dicts: their shapes, their logical axes, their random start.

In: an `Architecture`. Out: trees with the same structure, whose layers are stacked on axis 0:
`embed (V,D)`, `final_norm/scale (D)`, `head (V,D)` unless tied, and under `layers` `attention_norm/scale`,
`attention/{q,k,v,o,q_bias,k_bias,v_bias}`, `mlp_norm/scale`, `mlp/{gate,up,down}`.
"""

import functools
import math
from typing import Any

import jax
from flax import nnx

from stratos_jax.model.config import Architecture
from stratos_jax.model.network import DecoderLayer, Ends

Tree = dict[str, Any]
PARAM_AXES = ("layers", "vocab", "embed", "norm", "heads", "kv_heads", "head_dim", "mlp")  # all that are in use
ACTIVATION_AXES = ("batch", "sequence", "embed", "heads", "kv_heads", "head_dim", "mlp", "vocab")


def init_params(arch: Architecture, key: jax.Array, dtype: Any) -> Tree:
    """A random start: normal weights, zero biases, unit norms; the same at any sharding."""
    ends_key, layers_key = jax.random.split(key)
    ends = _pure(Ends(arch, ends_key, dtype))
    build = lambda key: _pure(DecoderLayer(arch, key, dtype))
    return {**ends, "layers": jax.vmap(build)(jax.random.split(layers_key, arch.num_layers))}


@functools.lru_cache(maxsize=64)
def _abstract(arch: Architecture, dtype_name: str) -> Tree:
    return jax.eval_shape(lambda: init_params(arch, jax.random.key(0), dtype_name))


def abstract_params(arch: Architecture, dtype: Any) -> Tree:
    """Shapes and number formats of all parameters; nothing is allocated."""
    return jax.tree.map(lambda leaf: leaf, _abstract(arch, jax.numpy.dtype(dtype).name))


def logical_axes(arch: Architecture) -> Tree:
    """For each parameter the names of its axes, in a tuple."""
    key = lambda: jax.random.key(0)
    ends = _axes(nnx.eval_shape(lambda: Ends(arch, key(), "float32")))
    layer = _axes(nnx.eval_shape(lambda: DecoderLayer(arch, key(), "float32")))
    is_leaf = lambda value: isinstance(value, tuple)
    return {**ends, "layers": jax.tree.map(lambda axes: ("layers", *axes), layer, is_leaf=is_leaf)}


def num_params(arch: Architecture) -> int:
    """How many numbers the parameters are, a tied head counted once."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(arch, "float32")))


def _pure(module: nnx.Module) -> Tree:
    return nnx.to_pure_dict(nnx.state(module))


def _axes(module: nnx.Module) -> Tree:
    is_param = lambda value: isinstance(value, nnx.Param)
    tree = nnx.to_pure_dict(jax.tree.map(lambda p: _Leaf(p.axes), nnx.state(module), is_leaf=is_param))
    return jax.tree.map(lambda leaf: leaf.axes, tree, is_leaf=lambda value: isinstance(value, _Leaf))


class _Leaf:
    """Keeps a tuple from being taken for a subtree."""

    def __init__(self, axes: tuple[str, ...]):
        self.axes = axes
