"""The forward pass on plain parameter dicts.

In: parameters, tokens, explicit positions and segment ids, optionally a KV cache. Out: the last hidden states (and the
next cache); `logits` is a step of its own, so that a loss may take it a chunk at a time. The trainer decides what is
kept for the backward pass (`remat`) and where activations live (`constrain`, `sharding`); the model names logical axes.

Names for `jax.checkpoint_policies.save_only_these_names`: layer_input, query, key, value, attention_context (output and
normalizer of the kernel), mlp_gate, mlp_up; on a CPU also attention_out.

Shapes: B rows, T tokens, D hidden, V vocabulary, L layers, N query heads, K key/value heads, H head size.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from stratos_jax.model import on_cpu
from stratos_jax.model.attention import AttentionSharding
from stratos_jax.model.attention import attend as default_attend
from stratos_jax.model.config import Architecture, Implementation
from stratos_jax.model.network import HIDDEN, LOGITS, Constrain, DecoderLayer, RMSNorm, einsum
from stratos_jax.model.platform import target_platform
from stratos_jax.model.rope import make_rotate

keep: Callable = lambda x, *_: x


def forward(
    params: dict[str, Any],
    arch: Architecture,
    tokens_BT: jax.Array,
    *,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array | None = None,
    cache: Any = None,
    compute_dtype: Any,
    attention: Implementation = "auto",
    remat: Callable | None = None,
    constrain: Constrain = keep,
    sharding: AttentionSharding | None = None,
    fetch: Callable[[Any], Any] = keep,
    attend: Callable[..., jax.Array] | None = None,
) -> tuple[jax.Array, Any]:
    """Last hidden states, normed, and the next cache.

    A token attends to the tokens of its own segment at positions up to its own; segment 0 is padding. `remat` is a
    policy of `jax.checkpoint` for each layer (`checkpoint_policies.nothing_saveable` recomputes all); None keeps all.
    `fetch` makes one layer's parameters out of a slice of `params["layers"]`, inside `remat`: a trainer that runs this
    per device gathers shards there, or merges adapters. `attend` takes the place of the attention function then.
    """
    dtype = jnp.dtype(compute_dtype)
    segments_BT = jnp.ones_like(tokens_BT) if segment_ids_BT is None else segment_ids_BT
    x_BTD = constrain(params["embed"][tokens_BT].astype(dtype), HIDDEN)
    rotate = make_rotate(arch, positions_BT)
    graph, _ = nnx.split(nnx.eval_shape(lambda: DecoderLayer(arch, jax.random.key(0), "float32")))
    scale = arch.head_dim**-0.5
    carried = on_cpu.STACKED if target_platform() == "cpu" else dtype
    if attend is None:
        attend = functools.partial(default_attend, implementation=attention, sharding=sharding)

    def run_layer(carry: tuple, layer: tuple) -> tuple:
        x_BTD, cache = carry
        x_BTD = x_BTD.astype(dtype)
        index, layer_params = layer
        if cache is None:
            where = {"q_positions": positions_BT, "kv_positions": positions_BT}
            where |= {"q_segments": segment_ids_BT, "kv_segments": segment_ids_BT}
            attend_layer = lambda q, k, v: (attend(q, k, v, **where, scale=scale), None)  # pyright: ignore[reportArgumentType]
        else:
            tokens = {"positions_BT": positions_BT, "segments_BT": segments_BT}
            attend_layer = lambda q, k, v: cache.attend(index, q, k, v, **tokens, scale=scale, attend=attend)
        x_BTD, cache = nnx.merge(graph, fetch(layer_params))(x_BTD, rotate, attend_layer, constrain)
        return (x_BTD.astype(carried), cache), None

    laid_out = cache is None and on_cpu.lays_out(arch.num_layers, dtype)
    body = run_layer if remat is None else jax.checkpoint(run_layer, policy=remat, prevent_cse=laid_out)
    layers = (jnp.arange(arch.num_layers), params["layers"])
    (x_BTD, cache), _ = jax.lax.scan(body, (x_BTD.astype(carried), cache), layers, unroll=laid_out)
    x_BTD = x_BTD.astype(dtype)
    if cache is not None:
        cache = cache.advance(positions_BT, segments_BT)
    return _final_norm(params, arch, x_BTD), cache


def logits(
    params: dict[str, Any], arch: Architecture, hidden_BTD: jax.Array, *, constrain: Constrain = keep
) -> jax.Array:
    """Scores of the next token, float32; the product itself is in the hidden states' format."""
    head_VD = params["embed"] if arch.tied_head else params["head"]
    return constrain(einsum("BTD,VD->BTV", hidden_BTD, head_VD), LOGITS).astype(jnp.float32)


def _final_norm(params: dict[str, Any], arch: Architecture, x_BTD: jax.Array) -> jax.Array:
    graph, _ = nnx.split(nnx.eval_shape(lambda: RMSNorm(arch, "float32")))
    return nnx.merge(graph, params["final_norm"])(x_BTD)
