"""The decoder of Qwen2.5 and Llama 3, declared in Flax NNX.

In: activations, rotary angles and an attention function. Out: activations. Whoever calls sees plain dicts, by way of
`model.params` and `model.forward`; NNX ends here. Every parameter carries the logical names of its axes.

Shapes: B rows, T tokens, D hidden, N query heads, K key/value heads, H head size, F MLP width, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from stratos_jax.model import on_cpu
from stratos_jax.model.config import Architecture
from stratos_jax.model.platform import target_platform
from stratos_jax.model.products import precision_of

Constrain = Callable[[jax.Array, tuple[str, ...]], jax.Array]  # pins an activation's logical axes to the mesh
HIDDEN = ("batch", "sequence", "embed")
INWARD = ("batch", "sequence", "embed_in")  # what the products of a layer's half take in
OUTWARD = ("batch", "sequence", "embed_out")  # what they give out: a sum over heads or MLP width
HEADS = ("batch", "sequence", "heads", "head_dim")
KV_HEADS = ("batch", "sequence", "kv_heads", "head_dim")
MLP = ("batch", "sequence", "mlp")
LOGITS = ("batch", "sequence", "vocab")


def einsum(spec: str, x: jax.Array, weight: jax.Array) -> jax.Array:
    """A product in the activation's number format; the weight is cast where it is used."""
    if target_platform() == "cpu":
        return on_cpu.einsum(spec, x, weight)  # pyright: ignore[reportReturnType] custom_vjp hides what it returns
    return jnp.einsum(spec, x, weight.astype(x.dtype), precision=precision_of(x.dtype))


def keep(x: jax.Array, name: str) -> jax.Array:
    """`x` under a name by which a remat policy may keep it for the backward pass."""
    if target_platform() == "cpu":
        return on_cpu.keep(x, name)  # pyright: ignore[reportReturnType] custom_vjp hides what it returns
    return checkpoint_name(x, name)


def to_tokens(vector: jax.Array, x: jax.Array) -> jax.Array:
    """A bias or scale in the format of activations, ready to be added to them or multiplied."""
    vector = vector.astype(x.dtype)
    if target_platform() == "cpu":
        return on_cpu.to_tokens(vector, x.shape)  # pyright: ignore[reportReturnType] as above
    return vector


class RMSNorm(nnx.Module):
    """Root-mean-square norm, rounded to the activation's format before the scale is applied, as transformers does."""

    def __init__(self, arch: Architecture, dtype: Any):
        self.eps = arch.norm_eps
        self.scale = nnx.Param(jnp.ones(arch.hidden_size, dtype), axes=("norm",))

    def __call__(self, x_BTD: jax.Array) -> jax.Array:
        wide_BTD = x_BTD.astype(jnp.float32)
        square_BT1 = jnp.mean(jnp.square(wide_BTD), axis=-1, keepdims=True)
        normed_BTD = wide_BTD * jax.lax.rsqrt(square_BT1 + self.eps)
        return to_tokens(self.scale[...], x_BTD) * normed_BTD.astype(x_BTD.dtype)


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
        if target_platform() == "cpu":
            q_BTNH, k_BTKH, v_BTKH = on_cpu.heads(x_BTD, self.q[...], self.k[...], self.v[...])
        else:
            q_BTNH = einsum("BTD,DNH->BTNH", x_BTD, self.q[...])
            k_BTKH = einsum("BTD,DKH->BTKH", x_BTD, self.k[...])
            v_BTKH = einsum("BTD,DKH->BTKH", x_BTD, self.v[...])
        if self.qkv_bias:
            q_BTNH += to_tokens(self.q_bias[...], q_BTNH)
            k_BTKH += to_tokens(self.k_bias[...], k_BTKH)
            v_BTKH += to_tokens(self.v_bias[...], v_BTKH)
        q_BTNH = keep(constrain(rotate(q_BTNH), HEADS), "query")
        k_BTKH = keep(constrain(rotate(k_BTKH), KV_HEADS), "key")
        v_BTKH = keep(constrain(v_BTKH, KV_HEADS), "value")
        out_BTNH, cache = attend(q_BTNH, k_BTKH, v_BTKH)
        out_BTNH = constrain(out_BTNH, HEADS)
        out_BTD = einsum("BTNH,NHD->BTD", out_BTNH, self.o[...])
        if target_platform() == "cpu":  # elsewhere a product is cheaper than what it takes to keep it
            out_BTD = keep(out_BTD, "attention_out")
        return constrain(out_BTD, OUTWARD), cache


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
        if target_platform() == "cpu":
            out_BTD = on_cpu.swiglu(x_BTD, self.gate[...], self.up[...], self.down[...])
            return constrain(out_BTD, OUTWARD)  # pyright: ignore[reportArgumentType] custom_vjp hides what it returns
        gate_BTF = keep(constrain(einsum("BTD,DF->BTF", x_BTD, self.gate[...]), MLP), "mlp_gate")
        up_BTF = keep(constrain(einsum("BTD,DF->BTF", x_BTD, self.up[...]), MLP), "mlp_up")
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
        x_BTD = keep(x_BTD, "layer_input")
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
