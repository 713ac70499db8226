"""Adam's moments in fewer bytes: bfloat16, or int8 with a scale for each block.

In: an Optax transformation whose state has `mu` and `nu`. Out: the same one, which keeps them encoded between steps.
int8 keeps the square root of `nu`, whose range is half as many powers of ten, and rounds it up, so that a small
second moment never becomes zero and blows up its update.

Shapes: a block is `BLOCK` values of the last axis, or all of it where it does not divide.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

BLOCK = 128


class Quantized(NamedTuple):
    """Values of a block as steps of its scale."""

    steps: jax.Array  # int8, the parameter's shape
    scale: jax.Array  # float32, one for each block


def stored(inner: optax.GradientTransformation, kind: str) -> optax.GradientTransformation:
    """`inner` with its moments kept as `kind` ("bfloat16" or "int8")."""

    def encode(state: Any) -> Any:
        if kind == "bfloat16":
            narrow = lambda tree: jax.tree.map(lambda x: x.astype(jnp.bfloat16), tree)
            return state._replace(mu=narrow(state.mu), nu=narrow(state.nu))
        mu = jax.tree.map(lambda x: quantize(x, jnp.round, 127), state.mu)
        nu = jax.tree.map(lambda x: quantize(jnp.sqrt(x), jnp.ceil, 127), state.nu)
        return state._replace(mu=mu, nu=nu)

    def decode(state: Any) -> Any:
        if kind == "bfloat16":
            widen = lambda tree: jax.tree.map(lambda x: x.astype(jnp.float32), tree)
            return state._replace(mu=widen(state.mu), nu=widen(state.nu))
        is_leaf = lambda value: isinstance(value, Quantized)
        mu = jax.tree.map(dequantize, state.mu, is_leaf=is_leaf)
        nu = jax.tree.map(lambda q: jnp.square(dequantize(q)), state.nu, is_leaf=is_leaf)
        return state._replace(mu=mu, nu=nu)

    def update(grads: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, new = inner.update(grads, decode(state), params)
        return updates, encode(new)

    return optax.GradientTransformation(lambda params: encode(inner.init(params)), update)  # pyright: ignore[reportArgumentType]


def quantize(x: jax.Array, rounding: Any, steps: int) -> Quantized:
    """Blocks of x as whole steps of their largest magnitude."""
    blocks = x.reshape(*x.shape[:-1], -1, block_of(x.shape[-1]))
    scale = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True) / steps
    values = rounding(blocks / jnp.where(scale == 0, 1.0, scale))
    return Quantized(jnp.clip(values, -steps, steps).astype(jnp.int8).reshape(x.shape), scale[..., 0])


def dequantize(q: Quantized) -> jax.Array:
    """The values that the steps stand for, float32."""
    blocks = q.steps.reshape(*q.scale.shape, -1).astype(jnp.float32)
    return (blocks * q.scale[..., None]).reshape(q.steps.shape)


def block_of(size: int) -> int:
    """Values that share a scale."""
    return BLOCK if size % BLOCK == 0 else size
