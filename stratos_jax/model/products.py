"""Products with float32 sums, on every platform.

In: activations and weights of one format. Out: float32.
"""

from typing import Any

import jax
import jax.numpy as jnp

from stratos_jax.model.platform import target_platform


def precision_of(dtype: Any) -> jax.lax.Precision:
    """float32 means float32 on every backend; TPU and GPU would round its products otherwise."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def product(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum with float32 sums; float32 operands are not rounded."""
    return jnp.einsum(spec, a, b, precision=precision_of(a.dtype), preferred_element_type=jnp.float32)


def sum_over_tokens(spec: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """A weight's gradient: a product of two activations that sums over their tokens, float32.

    For that, XLA on a CPU turns the first one on its side, slowly and with all that computes it, and goes by the order
    of the result's axes to choose the first. So the smaller one is named first, and the result turned behind a fence.
    """
    if target_platform() != "cpu":
        return product(spec, a, b)
    a_axes, b_axes, out_axes = spec.replace("->", ",").split(",")
    if a.size > b.size:
        a, b, a_axes, b_axes = b, a, b_axes, a_axes
    order = "".join(axis for axis in a_axes + b_axes if axis in out_axes)
    fenced = jax.lax.optimization_barrier(product(f"{a_axes},{b_axes}->{order}", a, b))
    return jnp.einsum(f"{order}->{out_axes}", fenced)
