"""The decoder of Qwen2.5 and Llama 3, declared in Flax NNX.

In: activations, rotary angles and an attention function. Out: activations. Whoever calls sees plain dicts, by way of
`model.params` and `model.forward`; NNX ends here. Every parameter carries the logical names of its axes.

Shapes: B rows, T tokens, D hidden, N query heads, K key/value heads, H head size, F MLP width, V vocabulary.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from stratos_jax.model.attention import target_platform
from stratos_jax.model.config import Architecture

Constrain = Callable[[jax.Array, tuple[str, ...]], jax.Array]  # pins an activation's logical axes to the mesh
HIDDEN = ("batch", "sequence", "embed")
INWARD = ("batch", "sequence", "embed_in")  # what the products of a layer's half take in
OUTWARD = ("batch", "sequence", "embed_out")  # what they give out: a sum over heads or MLP width
HEADS = ("batch", "sequence", "heads", "head_dim")
KV_HEADS = ("batch", "sequence", "kv_heads", "head_dim")
MLP = ("batch", "sequence", "mlp")
LOGITS = ("batch", "sequence", "vocab")


def precision_of(dtype: Any) -> jax.lax.Precision:
    """float32 means float32 on every backend; TPU and GPU would round its products otherwise."""
    return jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT


def einsum(spec: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """A product in the activation's number format; the weight is cast where it is used."""
    weight = weight.astype(x.dtype)
    if target_platform() == "cpu":
        return _einsum_on_cpu(spec, x, weight)  # pyright: ignore[reportReturnType] custom_vjp hides what it returns
    return jnp.einsum(spec, x, weight, precision=precision_of(x.dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _einsum_on_cpu(spec: str, x: jax.Array, weight: jax.Array):
    return jnp.einsum(spec, x, weight, precision=precision_of(x.dtype))


def _einsum_on_cpu_bwd(spec: str, saved: tuple, d_out: jax.Array):
    x, weight = saved
    x_axes, weight_axes, out_axes = spec.replace("->", ",").split(",")
    precision = precision_of(x.dtype)
    d_x = jnp.einsum(f"{out_axes},{weight_axes}->{x_axes}", d_out, weight, precision=precision)
    return d_x, sum_over_tokens(f"{x_axes},{out_axes}->{weight_axes}", x, d_out, precision=precision)


_einsum_on_cpu.defvjp(lambda spec, x, weight: (_einsum_on_cpu(spec, x, weight), (x, weight)), _einsum_on_cpu_bwd)


def sum_over_tokens(spec: str, a: jax.Array, b: jax.Array, **kwargs: Any) -> jax.Array:
    """A weight's gradient: a product of two activations that sums over their tokens.

    For that, XLA on a CPU turns the first one on its side, slowly and with all that computes it, and goes by the order
    of the result's axes to choose the first. So the smaller one is named first, and the result turned behind a fence.
    """
    if target_platform() != "cpu":
        return jnp.einsum(spec, a, b, **kwargs)
    a_axes, b_axes, out_axes = spec.replace("->", ",").split(",")
    if a.size > b.size:
        a, b, a_axes, b_axes = b, a, b_axes, a_axes
    order = "".join(axis for axis in a_axes + b_axes if axis in out_axes)
    product = jax.lax.optimization_barrier(jnp.einsum(f"{a_axes},{b_axes}->{order}", a, b, **kwargs))
    return jnp.einsum(f"{order}->{out_axes}", product)


class RMSNorm(nnx.Module):
    """Root-mean-square norm, rounded to the activation's format before the scale is applied, as transformers does."""

    def __init__(self, arch: Architecture, dtype: Any):
        self.eps = arch.norm_eps
        self.scale = nnx.Param(jnp.ones(arch.hidden_size, dtype), axes=("norm",))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        wide_BTD = x_BTD.astype(jnp.float32)
        square_BT1 = jnp.mean(jnp.square(wide_BTD), axis=-1, keepdims=True)
        normed_BTD = wide_BTD * jax.lax.rsqrt(square_BT1 + self.eps)
        return self.scale[...].astype(x_BTD.dtype) * normed_BTD.astype(x_BTD.dtype)


class Attention(nnx.Module):
    """Projections round an attention function; heads have an axis of their own."""

    def __init__(self, arch: Architecture, key: jax.Array, dtype: Any):
        D, N, K, H = arch.hidden_size, arch.num_heads, arch.num_kv_heads, arch.head_dim
        q_key, k_key, v_key, o_key = jax.random.split(key, 4)
        draw = lambda key, *shape: arch.init_std * jax.random.normal(key, shape, dtype)
        self.q = nnx.Param(draw(q_key, D, N, H), axes=("embed", "heads", "head_dim"))
        self.k = nnx.Param(draw(k_key, D, K, H), axes=("embed", "kv_heads", "head_dim"))
        self.v = nnx.Param(draw(v_key, D, K, H), axes=("embed", "kv_heads", "head_dim"))
        self.o = nnx.Param(draw(o_key, N, H, D), axes=("heads", "head_dim", "embed"))
        self.qkv_bias = arch.qkv_bias
        if arch.qkv_bias:
            self.q_bias = nnx.Param(jnp.zeros((N, H), dtype), axes=("heads", "head_dim"))
            self.k_bias = nnx.Param(jnp.zeros((K, H), dtype), axes=("kv_heads", "head_dim"))
            self.v_bias = nnx.Param(jnp.zeros((K, H), dtype), axes=("kv_heads", "head_dim"))

    def __call__(self, x_BTD: jax.Array, rotate: Callable, attend: Callable, constrain: Constrain) -> tuple:
        q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, self.q[...])
        k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, self.k[...])
        v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, self.v[...])
        if self.qkv_bias:
            q_BTNH += self.q_bias[...].astype(x_BTD.dtype)
            k_BTKH += self.k_bias[...].astype(x_BTD.dtype)
            v_BTKH += self.v_bias[...].astype(x_BTD.dtype)
        q_BTNH = checkpoint_name(constrain(rotate(q_BTNH), HEADS), "query")
        k_BTKH = checkpoint_name(constrain(rotate(k_BTKH), KV_HEADS), "key")
        v_BTKH = checkpoint_name(constrain(v_BTKH, KV_HEADS), "value")
        out_BTNH, cache = attend(q_BTNH, k_BTKH, v_BTKH)
        out_BTNH = constrain(out_BTNH, HEADS)
        return constrain(einsum("BTNH,NHD->BTD", out_BTNH, self.o[...]), OUTWARD), cache


class Mlp(nnx.Module):
    """SwiGLU: silu(gate) * up, projected down."""

    def __init__(self, arch: Architecture, key: jax.Array, dtype: Any):
        D, F = arch.hidden_size, arch.mlp_size
        gate_key, up_key, down_key = jax.random.split(key, 3)
        draw = lambda key, *shape: arch.init_std * jax.random.normal(key, shape, dtype)
        self.gate = nnx.Param(draw(gate_key, D, F), axes=("embed", "mlp"))
        self.up = nnx.Param(draw(up_key, D, F), axes=("embed", "mlp"))
        self.down = nnx.Param(draw(down_key, F, D), axes=("mlp", "embed"))

    def __call__(self, x_BTD: jax.Array, constrain: Constrain) -> jax.Array:
        gate_BTF = checkpoint_name(constrain(einsum("BTD,DF->BTF", x_BTD, self.gate[...]), MLP), "mlp_gate")
        up_BTF = checkpoint_name(constrain(einsum("BTD,DF->BTF", x_BTD, self.up[...]), MLP), "mlp_up")
        return constrain(einsum("BTF,FD->BTD", jax.nn.silu(gate_BTF) * up_BTF, self.down[...]), OUTWARD)


class DecoderLayer(nnx.Module):
    """One layer: attention and MLP, each normed before and added to the residual stream after."""

    def __init__(self, arch: Architecture, key: jax.Array, dtype: Any):
        attention_key, mlp_key = jax.random.split(key)
        self.attention_norm = RMSNorm(arch, dtype)
        self.attention = Attention(arch, attention_key, dtype)
        self.mlp_norm = RMSNorm(arch, dtype)
        self.mlp = Mlp(arch, mlp_key, dtype)

    def __call__(self, x_BTD: jax.Array, rotate: Callable, attend: Callable, constrain: Constrain) -> tuple:
        x_BTD = checkpoint_name(x_BTD, "layer_input")
        with jax.named_scope("attention"):
            attended_BTD, cache = self.attention(
                constrain(self.attention_norm(x_BTD), INWARD), rotate, attend, constrain
            )
            x_BTD = constrain(x_BTD + attended_BTD, HIDDEN)
        with jax.named_scope("mlp"):
            x_BTD = constrain(x_BTD + self.mlp(constrain(self.mlp_norm(x_BTD), INWARD), constrain), HIDDEN)
        return x_BTD, cache


class Ends(nnx.Module):
    """What stands before and after the layers: embedding, last norm, and the head unless it is tied."""

    def __init__(self, arch: Architecture, key: jax.Array, dtype: Any):
        embed_key, head_key = jax.random.split(key)
        shape = (arch.vocab_size, arch.hidden_size)
        self.embed = nnx.Param(arch.init_std * jax.random.normal(embed_key, shape, dtype), axes=("vocab", "embed"))
        self.final_norm = RMSNorm(arch, dtype)
        if not arch.tied_head:
            self.head = nnx.Param(arch.init_std * jax.random.normal(head_key, shape, dtype), axes=("vocab", "embed"))
