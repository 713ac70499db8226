"""The arithmetic of a layer in the words that XLA on a CPU does well.

In: activations and weights, as everywhere. Out: what plain JAX gives, to rounding. Behind it are these habits of XLA's
(and one more in `products`):

- Products of bfloat16 are fast (AMX) where their sums come out as float32, and several times slower otherwise.
- A loop that stacks bfloat16 writes the whole stack anew for each layer; integers go to their place.
- A loop copies each layer's weights out of their stack, and float32 results into theirs.
- A sum over tokens is a walk of one core; a product with ones is not.

Shapes: B rows, T tokens, N = B x T, D hidden, F MLP width.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name

from stratos_jax.model.platform import target_platform
from stratos_jax.model.products import product, sum_over_tokens

STACKED = jnp.float32  # the format in which hidden states go from layer to layer: each layer's is stacked
LAID_OUT = 16  # layers; more take long to compile one by one


def lays_out(num_layers: int, dtype: jnp.dtype) -> bool:
    """Whether the loop over layers is written out: float32 saves a twentieth, in copies to and from stacks."""
    return target_platform() == "cpu" and dtype == jnp.float32 and num_layers <= LAID_OUT


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def einsum(spec: str, x: jax.Array, weight: jax.Array):
    """A product in the activation's format; the weight is cast here, so that its gradient is never rounded to that."""
    return product(spec, x, weight.astype(x.dtype)).astype(x.dtype)


def _einsum_bwd(spec: str, saved: tuple, d_out: jax.Array):
    x, weight = saved
    x_axes, weight_axes, out_axes = spec.replace("->", ",").split(",")
    d_x = product(f"{out_axes},{weight_axes}->{x_axes}", d_out, weight.astype(x.dtype)).astype(x.dtype)
    d_weight = sum_over_tokens(f"{x_axes},{out_axes}->{weight_axes}", x, d_out)
    return d_x, d_weight.astype(weight.dtype)


einsum.defvjp(lambda spec, x, weight: (einsum(spec, x, weight), (x, weight)), _einsum_bwd)


def heads(x_BTD: jax.Array, *weights: jax.Array) -> list[jax.Array]:
    """Queries, keys and values by one product; weights are (D,heads,head size)."""
    flat = [weight.reshape(weight.shape[0], -1) for weight in weights]
    all_BTC = einsum("BTD,DC->BTC", x_BTD, jnp.concatenate(flat, axis=1))
    cuts = np.cumsum([weight.shape[1] for weight in flat])[:-1]
    parts = jnp.split(all_BTC, cuts, axis=-1)  # pyright: ignore[reportArgumentType] custom_vjp hides what it is
    return [part.reshape(*x_BTD.shape[:2], *weight.shape[1:]) for part, weight in zip(parts, weights)]


@jax.custom_vjp
def swiglu(x_BTD: jax.Array, gate_DF: jax.Array, up_DF: jax.Array, down_FD: jax.Array):
    """silu(x gate) * (x up), projected down; what is as wide as the MLP is written as seldom as can be."""
    return _swiglu_fwd(x_BTD, gate_DF, up_DF, down_FD)[0]


def _swiglu_fwd(x_BTD: jax.Array, gate_DF: jax.Array, up_DF: jax.Array, down_FD: jax.Array):
    dtype = x_BTD.dtype
    gate_BTF = product("BTD,DF->BTF", x_BTD, gate_DF.astype(dtype))
    up_BTF = product("BTD,DF->BTF", x_BTD, up_DF.astype(dtype))
    inner_BTF = jax.nn.silu(gate_BTF) * up_BTF
    gate_BTF, up_BTF = named(gate_BTF.astype(dtype), "mlp_gate"), named(up_BTF.astype(dtype), "mlp_up")
    out_BTD = product("BTF,FD->BTD", inner_BTF.astype(dtype), down_FD.astype(dtype)).astype(dtype)
    return out_BTD, (x_BTD, gate_BTF, up_BTF, gate_DF, up_DF, down_FD)


def _swiglu_bwd(saved: tuple, d_out_BTD: jax.Array):
    x_BTD, gate_BTF, up_BTF, gate_DF, up_DF, down_FD = saved
    dtype = x_BTD.dtype
    d_inner_BTF = product("BTD,FD->BTF", d_out_BTD, down_FD.astype(dtype))
    gate_BTF, up_BTF = gate_BTF.astype(jnp.float32), up_BTF.astype(jnp.float32)
    sigmoid_BTF = jax.nn.sigmoid(gate_BTF)
    silu_BTF = gate_BTF * sigmoid_BTF
    inner_BTF = (silu_BTF * up_BTF).astype(dtype)
    d_up_BTF = (d_inner_BTF * silu_BTF).astype(dtype)
    d_gate_BTF = (d_inner_BTF * up_BTF * (sigmoid_BTF + silu_BTF * (1 - sigmoid_BTF))).astype(dtype)
    d_x_BTD = product("BTF,DF->BTD", d_gate_BTF, gate_DF.astype(dtype))
    d_x_BTD += product("BTF,DF->BTD", d_up_BTF, up_DF.astype(dtype))
    d_weight = lambda spec, a, b, weight: sum_over_tokens(spec, a, b).astype(weight.dtype)
    return (
        d_x_BTD.astype(dtype),
        d_weight("BTD,BTF->DF", x_BTD, d_gate_BTF, gate_DF),
        d_weight("BTD,BTF->DF", x_BTD, d_up_BTF, up_DF),
        d_weight("BTF,BTD->FD", inner_BTF, d_out_BTD, down_FD),
    )


swiglu.defvjp(_swiglu_fwd, _swiglu_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def to_tokens(vector: jax.Array, shape: tuple[int, ...]):
    """A bias or a scale for each token, (B,T,...)."""
    return jnp.broadcast_to(vector, shape)


def _to_tokens_bwd(shape: tuple[int, ...], _: None, d_out: jax.Array):
    d_out_NC = d_out.reshape(math.prod(shape[:2]), -1)
    d_vector = product("N,NC->C", jnp.ones(d_out_NC.shape[0], d_out.dtype), d_out_NC)
    return (d_vector.reshape(shape[2:]).astype(d_out.dtype),)


to_tokens.defvjp(lambda vector, shape: (to_tokens(vector, shape), None), _to_tokens_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def keep(x: jax.Array, name: str):
    """`x` under a name by which a remat policy may keep it for the backward pass."""
    return named(x, name)


def named(x: jax.Array, name: str) -> jax.Array:
    """The same inside a rule for gradients, where a rule within would hide the name. Not differentiable on a CPU."""
    if target_platform() != "cpu" or x.dtype != jnp.bfloat16:
        return checkpoint_name(x, name)
    bits = checkpoint_name(jax.lax.bitcast_convert_type(x, jnp.uint16), name)
    return jax.lax.bitcast_convert_type(bits, x.dtype)


keep.defvjp(lambda x, name: (named(x, name), None), lambda name, _, d_x: (d_x,))
