"""Rotary positions: plain, and with Llama 3's stretching of long wavelengths.

In: explicit positions. Out: queries or keys rotated by angles that are computed in float32.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.model.config import Architecture


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
    cos_BT1h, sin_BT1h = jnp.cos(angles_BTh)[:, :, None], jnp.sin(angles_BTh)[:, :, None]

    def rotate(x_BTNH: jax.Array) -> jax.Array:
        left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
        rotated = [left * cos_BT1h - right * sin_BT1h, right * cos_BT1h + left * sin_BT1h]
        return jnp.concatenate(rotated, axis=-1).astype(x_BTNH.dtype)

    return rotate
