"""Rotary positions: plain, and with Llama 3's stretching of long wavelengths.

In: explicit positions. Out: queries or keys rotated by angles that are computed in float32.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.model.config import Architecture
from stratos_jax.model.platform import target_platform


def frequencies(arch: Architecture) -> np.ndarray:
    """Radians per position for each pair of dimensions, float32.

    Rounded where PyTorch rounds: at position 30,000 one unit in the last place of a frequency is 0.003 radians.
    """
    exponents = np.arange(0, arch.head_dim, 2, dtype=np.float32) / np.float32(arch.head_dim)
    plain = np.float32(1) / np.power(arch.rope_theta, exponents, dtype=np.float64).astype(np.float32)
    scaling = arch.rope_scaling
    if scaling is None:
        return plain
    low, high, factor, length = (
        np.float32(value)
        for value in (
            scaling.low_freq_factor,
            scaling.high_freq_factor,
            scaling.factor,
            scaling.original_max_positions,
        )
    )
    wavelengths = np.float32(2 * math.pi) / plain
    blend = (length / wavelengths - low) / (high - low)  # 0: slow, stretched by the factor; 1: fast, left alone
    blended = (1 - blend) * plain / factor + blend * plain
    return np.where(blend >= 1, plain, np.where(blend <= 0, plain / factor, blended))


def make_rotate(arch: Architecture, positions_BT: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """A function that rotates x_BTNH; dimension i is paired with i + H/2."""
    angles_BTh = positions_BT[..., None].astype(jnp.float32) * frequencies(arch)
    both_halves = lambda x_BTh: jnp.concatenate([x_BTh, x_BTh], axis=-1)[:, :, None]
    cos_BT1H, sin_BT1H = both_halves(jnp.cos(angles_BTh)), both_halves(jnp.sin(angles_BTh))
    as_product = target_platform() == "tpu"

    def rotate(x_BTNH: jax.Array) -> jax.Array:
        partners_BTNH = partners(x_BTNH, as_product=as_product)
        return (x_BTNH.astype(jnp.float32) * cos_BT1H + partners_BTNH * sin_BT1H).astype(x_BTNH.dtype)

    return rotate


def partners(x_BTNH: jax.Array, *, as_product: bool) -> jax.Array:
    """For each dimension the one that it is rotated with, float32: (-right, left) of the halves (left, right).

    A product with ones, minus ones and zeros gives the same bits. A TPU has no cheap way to cut a tile of 128 lanes in
    two: with halves of their own, a 32B step takes 2 % more cycles.
    """
    if not as_product:
        left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
        return jnp.concatenate([-right, left], axis=-1)
    half = x_BTNH.shape[-1] // 2
    signs_HH = np.eye(2 * half, k=half, dtype=np.float32) - np.eye(2 * half, k=-half, dtype=np.float32)
    precision = jax.lax.Precision.HIGHEST if x_BTNH.dtype == jnp.float32 else None
    signs_HH = jnp.asarray(signs_HH, x_BTNH.dtype)
    return jnp.einsum("BTNG,GH->BTNH", x_BTNH, signs_HH, precision=precision, preferred_element_type=jnp.float32)
