"""Frozen weights in fewer bits: int8 steps of a block's largest value, or the 16 levels of NormalFloat in 4 bits.

In: matrices. Out: `Packed` (a pytree node) and the matrices that it stands for. A block is 64 values along the last
axis, or all of it where 64 does not divide.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

BLOCK = 64
# Quantiles of the normal distribution scaled to [-1, 1], with an exact zero (Dettmers et al., 2023, appendix E).
NF4 = np.array(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0]
    + [0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0],
    np.float32,
)


class Packed(NamedTuple):
    """Codes (int8; or uint8, two of them in one) and a scale for each block."""

    codes: jax.Array
    scale: jax.Array


def is_packed(value: Any) -> bool:
    """Whether a node of a tree is a quantized matrix."""
    return isinstance(value, Packed)


def pack(weight: jax.Array, kind: str) -> Packed:
    """Quantize a matrix along its last axis."""
    block = BLOCK if weight.shape[-1] % BLOCK == 0 else weight.shape[-1]
    blocks = weight.astype(jnp.float32).reshape(*weight.shape[:-1], -1, block)
    top = jnp.max(jnp.abs(blocks), axis=-1)
    unit = blocks / jnp.where(top == 0, 1.0, top)[..., None]
    if kind == "int8":
        return Packed(jnp.round(unit * 127).astype(jnp.int8).reshape(weight.shape), top / 127)
    assert kind == "nf4" and weight.shape[-1] % 2 == 0
    middles = jnp.asarray((NF4[1:] + NF4[:-1]) / 2)
    codes = jnp.searchsorted(middles, unit).astype(jnp.uint8).reshape(*weight.shape[:-1], -1, 2)
    return Packed(codes[..., 0] | (codes[..., 1] << 4), top)


def unpack(packed: Packed, dtype: Any) -> jax.Array:
    """The matrix that the codes stand for."""
    codes, scale = packed
    if codes.dtype == jnp.uint8:
        pair = jnp.stack([codes & 15, codes >> 4], axis=-1)
        codes = jnp.asarray(NF4)[pair.reshape(*codes.shape[:-1], -1).astype(jnp.int32)]
    blocks = codes.astype(jnp.float32).reshape(*scale.shape, -1)
    return (blocks * scale[..., None]).reshape(codes.shape).astype(dtype)


def quantize_tree(params: dict[str, Any], kind: str, matrices: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Parameters with the named matrices of all layers quantized."""
    layers = {part: dict(weights) for part, weights in params["layers"].items()}
    for part, name in matrices:
        layers[part][name] = pack(layers[part][name], kind)
    return {**params, "layers": layers}
