"""Attention in plain JAX, in memory linear in length: softmax summed over blocks, which the backward pass recomputes.

In: queries, un-repeated keys and values, positions and segment ids. Out: attended values. Runs on every backend, takes
any order of tokens (zig-zag rows, cache slots), and skips the blocks in which no query sees a key.

Shapes: B rows, T query tokens, S key tokens, K key/value heads, G queries per KV head, H head size; `i` counts blocks
of queries and `j` blocks of keys.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

BLOCK = 512  # a block of scores has at most BLOCK x BLOCK entries per row and head
MASKED = -1e30


class Where(NamedTuple):
    """Positions and segment ids of queries and keys."""

    q_positions_BT: jax.Array
    kv_positions_BS: jax.Array
    q_segments_BT: jax.Array
    kv_segments_BS: jax.Array


def reference_attention(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    q_positions: jax.Array,
    kv_positions: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    scale: float,
    block: int = BLOCK,
) -> jax.Array:
    """Causal attention within segments; scores and sums in float32."""
    B, T, N, H = q_BTNH.shape
    S, K = k_BSKH.shape[1:3]
    block_q = min(T, block)
    block_kv = min(S, block * block // block_q)
    where = Where(
        _pad(q_positions, 1, block_q),
        _pad(kv_positions, 1, block_kv),
        _pad(jnp.ones((B, T), jnp.int32) if q_segments is None else q_segments, 1, block_q, value=-1),
        _pad(jnp.ones((B, S), jnp.int32) if kv_segments is None else kv_segments, 1, block_kv, value=-2),
    )
    q_BTKGH = _pad(q_BTNH.reshape(B, T, K, N // K, H), 1, block_q)
    out = _attention(q_BTKGH, _pad(k_BSKH, 1, block_kv), _pad(v_BSKH, 1, block_kv), where, scale, (block_q, block_kv))
    return out[:, :T].reshape(B, T, N, H)  # pyright: ignore[reportIndexIssue]


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q_BTKGH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    return _forward(q_BTKGH, k_BSKH, v_BSKH, where, scale, blocks)[0]


def _forward(q_BTKGH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    """Output, and log of each softmax's normalizer (B,K,G,T)."""
    dot = _product(q_BTKGH.dtype)
    queries, keys = _split_blocks(q_BTKGH, k_BSKH, v_BSKH, where, blocks)

    def one_query_block(query: tuple):
        q_BTKGH, *_ = query
        B, T, K, G, H = q_BTKGH.shape

        def add_key_block(sums: tuple, key: tuple):
            mask_B11TS = _mask(query[-2:], key[-2:])

            def add(sums: tuple):
                top_BKGT, norm_BKGT, out_BKGTH = sums
                k_BSKH, v_BSKH, *_ = key
                s_BKGTS = jnp.where(mask_B11TS, dot("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH) * scale, MASKED)
                new_top_BKGT = jnp.maximum(top_BKGT, jnp.max(s_BKGTS, axis=-1))
                p_BKGTS = jnp.where(mask_B11TS, jnp.exp(s_BKGTS - new_top_BKGT[..., None]), 0.0)
                shrink_BKGT = jnp.exp(top_BKGT - new_top_BKGT)
                out_BKGTH = out_BKGTH * shrink_BKGT[..., None]
                out_BKGTH += dot("BKGTS,BSKH->BKGTH", p_BKGTS.astype(v_BSKH.dtype), v_BSKH)
                return new_top_BKGT, norm_BKGT * shrink_BKGT + jnp.sum(p_BKGTS, axis=-1), out_BKGTH

            return _where_seen(mask_B11TS, add, sums, many=keys[0].shape[0] > 1), None

        empty = jnp.zeros((B, K, G, T), jnp.float32)
        start = (empty + MASKED, empty, jnp.zeros((B, K, G, T, H), jnp.float32))
        (top_BKGT, norm_BKGT, out_BKGTH), _ = jax.lax.scan(add_key_block, start, keys)
        norm_BKGT = jnp.where(norm_BKGT == 0, 1.0, norm_BKGT)  # a padded query sees nothing
        return (out_BKGTH / norm_BKGT[..., None]).astype(q_BTKGH.dtype), top_BKGT + jnp.log(norm_BKGT)

    out_iBKGTH, log_norm_iBKGT = jax.lax.map(one_query_block, queries)
    out_BTKGH = _join(jnp.moveaxis(out_iBKGTH, 4, 2), 1)
    return out_BTKGH, log_norm_iBKGT


def _attention_fwd(q_BTKGH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    out_BTKGH, log_norm_iBKGT = _forward(q_BTKGH, k_BSKH, v_BSKH, where, scale, blocks)
    out_BTKGH = checkpoint_name(out_BTKGH, "attention_context")
    log_norm_iBKGT = checkpoint_name(log_norm_iBKGT, "attention_context")
    return out_BTKGH, (q_BTKGH, k_BSKH, v_BSKH, where, out_BTKGH, log_norm_iBKGT)


def _attention_bwd(scale: float, blocks: tuple[int, int], residuals: tuple, dout_BTKGH: jax.Array):
    q_BTKGH, k_BSKH, v_BSKH, where, out_BTKGH, log_norm_iBKGT = residuals
    dot = _product(q_BTKGH.dtype)
    queries, keys = _split_blocks(q_BTKGH, k_BSKH, v_BSKH, where, blocks)
    delta_BTKG = jnp.sum(dout_BTKGH.astype(jnp.float32) * out_BTKGH.astype(jnp.float32), axis=-1)
    delta_iBKGT = jnp.moveaxis(_split(delta_BTKG, 1, blocks[0]), 2, -1)
    dout_iBTKGH = _split(dout_BTKGH, 1, blocks[0])
    dq_iBTKGH = jnp.zeros(queries[0].shape, jnp.float32)

    def one_key_block(dq_iBTKGH: jax.Array, key: tuple):
        k_BSKH, v_BSKH, *_ = key

        def add_query_block(sums: tuple, block: tuple):
            query, dq_BTKGH, dout_BTKGH, delta_BKGT, log_norm_BKGT = block
            mask_B11TS = _mask(query[-2:], key[-2:])

            def add(state: tuple):
                dk_BSKH, dv_BSKH, dq_BTKGH = state
                q_BTKGH = query[0]
                s_BKGTS = dot("BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH) * scale
                p_BKGTS = jnp.where(mask_B11TS, jnp.exp(s_BKGTS - log_norm_BKGT[..., None]), 0.0)
                dv_BSKH += dot("BKGTS,BTKGH->BSKH", p_BKGTS.astype(q_BTKGH.dtype), dout_BTKGH)
                dp_BKGTS = dot("BTKGH,BSKH->BKGTS", dout_BTKGH, v_BSKH)
                ds_BKGTS = (p_BKGTS * (dp_BKGTS - delta_BKGT[..., None]) * scale).astype(q_BTKGH.dtype)
                dk_BSKH += dot("BKGTS,BTKGH->BSKH", ds_BKGTS, q_BTKGH)
                return dk_BSKH, dv_BSKH, dq_BTKGH + dot("BKGTS,BSKH->BTKGH", ds_BKGTS, k_BSKH)

            many = queries[0].shape[0] > 1 or keys[0].shape[0] > 1
            dk_BSKH, dv_BSKH, dq_BTKGH = _where_seen(mask_B11TS, add, (*sums, dq_BTKGH), many=many)
            return (dk_BSKH, dv_BSKH), dq_BTKGH

        zeros = jnp.zeros(k_BSKH.shape, jnp.float32)
        per_query = (queries, dq_iBTKGH, dout_iBTKGH, delta_iBKGT, log_norm_iBKGT)
        (dk_BSKH, dv_BSKH), dq_iBTKGH = jax.lax.scan(add_query_block, (zeros, zeros), per_query)
        return dq_iBTKGH, (dk_BSKH.astype(k_BSKH.dtype), dv_BSKH.astype(v_BSKH.dtype))

    dq_iBTKGH, (dk_jBSKH, dv_jBSKH) = jax.lax.scan(one_key_block, dq_iBTKGH, keys)
    return _join(dq_iBTKGH, 1).astype(q_BTKGH.dtype), _join(dk_jBSKH, 1), _join(dv_jBSKH, 1), None


_attention.defvjp(_attention_fwd, _attention_bwd)


def _product(dtype: Any):
    """Einsum with float32 sums; float32 operands are not rounded on any backend."""
    precision = jax.lax.Precision.HIGHEST if dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)


def _mask(query: tuple, key: tuple) -> jax.Array:
    """True where a query sees a key, (B,1,1,T,S)."""
    (q_positions_BT, q_segments_BT), (kv_positions_BS, kv_segments_BS) = query, key
    mask_BTS = q_positions_BT[:, :, None] >= kv_positions_BS[:, None, :]
    mask_BTS &= q_segments_BT[:, :, None] == kv_segments_BS[:, None, :]
    return mask_BTS[:, None, None]


def _where_seen(mask_B11TS: jax.Array, add: Callable, sums: tuple, *, many: bool) -> tuple:
    """Add a block's part to sums, unless none of its queries sees a key; a row's only block is never empty."""
    return jax.lax.cond(jnp.any(mask_B11TS), add, lambda sums: sums, sums) if many else add(sums)


def _split_blocks(q_BTKGH, k_BSKH, v_BSKH, where: Where, blocks: tuple[int, int]) -> tuple[tuple, tuple]:
    """Queries (q, positions, segments) and keys (k, v, positions, segments), with the blocks on axis 0."""
    block_q, block_kv = blocks
    queries = tuple(_split(x, 1, block_q) for x in (q_BTKGH, where.q_positions_BT, where.q_segments_BT))
    keys = tuple(_split(x, 1, block_kv) for x in (k_BSKH, v_BSKH, where.kv_positions_BS, where.kv_segments_BS))
    return queries, keys


def _split(x: jax.Array, dim: int, block: int) -> jax.Array:
    shape = (*x.shape[:dim], x.shape[dim] // block, block, *x.shape[dim + 1 :])
    return jnp.moveaxis(x.reshape(shape), dim, 0)


def _join(x: jax.Array, dim: int) -> jax.Array:
    x = jnp.moveaxis(x, 0, dim)
    return x.reshape(*x.shape[:dim], -1, *x.shape[dim + 2 :])


def _pad(x: jax.Array, dim: int, block: int, value: int = 0) -> jax.Array:
    """Fill up a dimension to whole blocks."""
    missing = math.ceil(x.shape[dim] / block) * block - x.shape[dim]
    if not missing:
        return x
    return jnp.pad(x, [(0, missing if i == dim else 0) for i in range(x.ndim)], constant_values=value)
