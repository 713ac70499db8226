"""Attention in plain JAX, in memory linear in length: softmax summed over blocks, which the backward pass recomputes.

In: queries, un-repeated keys and values, positions and segment ids. Out: attended values. Runs on every backend, takes
any order of tokens (zig-zag rows, cache slots), and skips the blocks in which no query sees a key.

Products are of plain matrices, B x K of them: the queries of a KV head stand below each other, in R rows. Where a
product would need a block of scores turned over, its small side is turned instead: turning a block of scores takes a
CPU longer than multiplying it.

Shapes: B rows, T query tokens, S key tokens, N query heads, K key/value heads, G queries per KV head, R = G x T, H head
size; `i` counts blocks of queries and `j` blocks of keys.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from stratos_jax.model.on_cpu import named
from stratos_jax.model.products import product

BLOCK = (256, 256)  # queries and keys of a block: its scores stay in a CPU's cache
FEW = 2  # blocks that a loop walks written out: a CPU copies them and their sums in and out of stacks otherwise
MASKED = -1e30
NOTHING = -1e29  # the largest score of a query that sees no key: above MASKED, so that e to the difference is 0


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
    block: tuple[int, int] = BLOCK,
) -> jax.Array:
    """Causal attention within segments; scores and sums in float32."""
    B, T = q_BTNH.shape[:2]
    S = k_BSKH.shape[1]
    block_q = min(T, block[0])
    block_kv = min(S, block[0] * block[1] // block_q)
    where = Where(
        _pad(q_positions, block_q),
        _pad(kv_positions, block_kv),
        _pad(jnp.ones((B, T), jnp.int32) if q_segments is None else q_segments, block_q, value=-1),
        _pad(jnp.ones((B, S), jnp.int32) if kv_segments is None else kv_segments, block_kv, value=-2),
    )
    q_BTNH, k_BSKH, v_BSKH = _pad(q_BTNH, block_q), _pad(k_BSKH, block_kv), _pad(v_BSKH, block_kv)
    out_BTNH = _attention(q_BTNH, k_BSKH, v_BSKH, where, scale, (block_q, block_kv))
    return out_BTNH[:, :T]  # pyright: ignore[reportIndexIssue] custom_vjp hides what it returns


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _attention(q_BTNH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    return _forward(q_BTNH, k_BSKH, v_BSKH, where, scale, blocks)[0]


def _forward(q_BTNH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    """Output, and log of each softmax's normalizer, in blocks."""
    queries, keys = _blocks_of(q_BTNH, k_BSKH, v_BSKH, where, blocks)

    def one_query_block(query: tuple):
        q_BKRH, *_ = query

        def add_key_block(sums: tuple, key: tuple):
            mask_BTS = _mask(query[-2:], key[-2:])

            def add(sums: tuple):
                top_BKR, norm_BKR, out_BKRH = sums
                k_BKSH, v_BKSH, *_ = key
                s_BKRS = _hide(product("BKRH,BKSH->BKRS", q_BKRH, k_BKSH) * scale, mask_BTS)
                new_top_BKR = jnp.maximum(top_BKR, jnp.max(s_BKRS, axis=-1))
                p_BKRS = jnp.exp(s_BKRS - new_top_BKR[..., None])
                shrink_BKR = jnp.exp(top_BKR - new_top_BKR)
                out_BKRH = out_BKRH * shrink_BKR[..., None]
                out_BKRH += product("BKRS,BKSH->BKRH", p_BKRS.astype(v_BKSH.dtype), v_BKSH)
                return new_top_BKR, norm_BKR * shrink_BKR + jnp.sum(p_BKRS, axis=-1), out_BKRH

            return _where_seen(mask_BTS, add, sums, many=keys[0].shape[0] > 1), None

        zeros_BKR = jnp.zeros(q_BKRH.shape[:3], jnp.float32)
        start = (zeros_BKR + NOTHING, zeros_BKR, jnp.zeros(q_BKRH.shape, jnp.float32))
        (top_BKR, norm_BKR, out_BKRH), _ = jax.lax.scan(add_key_block, start, keys, unroll=_few(keys))
        norm_BKR = jnp.where(norm_BKR == 0, 1.0, norm_BKR)  # a padded query sees nothing
        return (out_BKRH / norm_BKR[..., None]).astype(q_BKRH.dtype), top_BKR + jnp.log(norm_BKR)

    step = lambda _, query: (None, one_query_block(query))
    _, (out_iBKRH, log_norm_iBKR) = jax.lax.scan(step, None, queries, unroll=_few(queries))
    return _join(out_iBKRH, blocks[0]), log_norm_iBKR


def _attention_fwd(q_BTNH, k_BSKH, v_BSKH, where: Where, scale: float, blocks: tuple[int, int]):
    out_BTNH, log_norm_iBKR = _forward(q_BTNH, k_BSKH, v_BSKH, where, scale, blocks)
    out_BTNH = named(out_BTNH, "attention_context")
    log_norm_iBKR = named(log_norm_iBKR, "attention_context")
    return out_BTNH, (q_BTNH, k_BSKH, v_BSKH, where, out_BTNH, log_norm_iBKR)


def _attention_bwd(scale: float, blocks: tuple[int, int], residuals: tuple, dout_BTNH: jax.Array):
    q_BTNH, k_BSKH, v_BSKH, where, out_BTNH, log_norm_iBKR = residuals
    queries, keys = _blocks_of(q_BTNH, k_BSKH, v_BSKH, where, blocks)
    num_kv_heads = k_BSKH.shape[2]
    delta_BTN = jnp.sum(dout_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32), axis=-1)
    delta_iBKR = _split(delta_BTN[..., None], blocks[0], num_kv_heads)[..., 0]
    dout_iBKRH = _split(dout_BTNH, blocks[0], num_kv_heads)
    many = queries[0].shape[0] > 1 or keys[0].shape[0] > 1

    def one_query_block(d_keys: tuple, block: tuple):
        query, dout_BKRH, delta_BKR, log_norm_BKR = block
        q_BKRH = query[0]
        q_BKHR, dout_BKHR = (jax.lax.optimization_barrier(jnp.swapaxes(x, 2, 3)) for x in (q_BKRH, dout_BKRH))

        def add_key_block(dq_BKRH: jax.Array, block: tuple):
            key, dk_BKHS, dv_BKHS = block
            mask_BTS = _mask(query[-2:], key[-2:])

            def add(sums: tuple):
                dq_BKRH, dk_BKHS, dv_BKHS = sums
                k_BKSH, v_BKSH, *_ = key
                s_BKRS = _hide(product("BKRH,BKSH->BKRS", q_BKRH, k_BKSH) * scale, mask_BTS)
                p_BKRS = jnp.exp(s_BKRS - log_norm_BKR[..., None])
                dv_BKHS += product("BKHR,BKRS->BKHS", dout_BKHR, p_BKRS.astype(q_BKRH.dtype))
                dp_BKRS = product("BKRH,BKSH->BKRS", dout_BKRH, v_BKSH)
                ds_BKRS = (p_BKRS * (dp_BKRS - delta_BKR[..., None]) * scale).astype(q_BKRH.dtype)
                dk_BKHS += product("BKHR,BKRS->BKHS", q_BKHR, ds_BKRS)
                return dq_BKRH + product("BKRS,BKSH->BKRH", ds_BKRS, k_BKSH), dk_BKHS, dv_BKHS

            dq_BKRH, *d_key = _where_seen(mask_BTS, add, (dq_BKRH, dk_BKHS, dv_BKHS), many=many)
            return dq_BKRH, tuple(d_key)

        zeros_BKRH = jnp.zeros(q_BKRH.shape, jnp.float32)
        dq_BKRH, d_keys = jax.lax.scan(add_key_block, zeros_BKRH, (keys, *d_keys), unroll=_few(keys))
        return d_keys, dq_BKRH

    zeros_jBKHS = jnp.zeros(jnp.swapaxes(keys[0], 3, 4).shape, jnp.float32)
    per_query = (queries, dout_iBKRH, delta_iBKR, log_norm_iBKR)
    sums = (zeros_jBKHS, zeros_jBKHS)
    (dk_jBKHS, dv_jBKHS), dq_iBKRH = jax.lax.scan(one_query_block, sums, per_query, unroll=_few(queries))
    d_key = lambda x_jBKHS: _join(jnp.swapaxes(x_jBKHS, 3, 4), blocks[1]).astype(k_BSKH.dtype)
    return _join(dq_iBKRH, blocks[0]).astype(q_BTNH.dtype), d_key(dk_jBKHS), d_key(dv_jBKHS), None


_attention.defvjp(_attention_fwd, _attention_bwd)


def _few(blocks: tuple) -> bool:
    """Whether there are so few blocks that their loop is written out."""
    return blocks[0].shape[0] <= FEW


def _mask(query: tuple, key: tuple) -> jax.Array:
    """True where a query sees a key, (B,T,S)."""
    (q_positions_BT, q_segments_BT), (kv_positions_BS, kv_segments_BS) = query, key
    mask_BTS = q_positions_BT[:, :, None] >= kv_positions_BS[:, None, :]
    return mask_BTS & (q_segments_BT[:, :, None] == kv_segments_BS[:, None, :])


def _hide(s_BKRS: jax.Array, mask_BTS: jax.Array) -> jax.Array:
    """Scores with MASKED for the keys that a query does not see."""
    B, K, _, S = s_BKRS.shape
    # Tied to the scores: masks would be spread out for all heads and blocks, once for all layers, and then be fetched.
    s_BKRS, mask_BTS, masked = jax.lax.optimization_barrier((s_BKRS, mask_BTS, jnp.float32(MASKED)))
    s_BKGTS = s_BKRS.reshape(B, K, -1, mask_BTS.shape[1], S)
    return jnp.where(mask_BTS[:, None, None], s_BKGTS, masked).reshape(s_BKRS.shape)


def _where_seen(mask_BTS: jax.Array, add: Callable, sums: tuple, *, many: bool) -> tuple:
    """Add a block's part to sums, unless none of its queries sees a key; a row's only block is never empty."""
    return jax.lax.cond(jnp.any(mask_BTS), add, lambda sums: sums, sums) if many else add(sums)


def _blocks_of(q_BTNH, k_BSKH, v_BSKH, where: Where, blocks: tuple[int, int]) -> tuple[tuple, tuple]:
    """Queries (q, positions, segments) and keys (k, v, positions, segments), with the blocks on axis 0."""
    block_q, block_kv = blocks
    num_kv_heads = k_BSKH.shape[2]
    ids = lambda x_BT, block: jnp.moveaxis(x_BT.reshape(x_BT.shape[0], -1, block), 1, 0)
    queries = (
        _split(q_BTNH, block_q, num_kv_heads),
        ids(where.q_positions_BT, block_q),
        ids(where.q_segments_BT, block_q),
    )
    keys = tuple(_split(x_BSKH, block_kv, num_kv_heads) for x_BSKH in (k_BSKH, v_BSKH))
    return queries, (*keys, ids(where.kv_positions_BS, block_kv), ids(where.kv_segments_BS, block_kv))


def _split(x_BTNH: jax.Array, block: int, num_kv_heads: int) -> jax.Array:
    """Blocks of tokens as matrices of one KV head: (i,B,K,R,H)."""
    B, T, N, H = x_BTNH.shape
    x_BiTKGH = x_BTNH.reshape(B, T // block, block, num_kv_heads, N // num_kv_heads, H)
    return x_BiTKGH.transpose(1, 0, 3, 4, 2, 5).reshape(T // block, B, num_kv_heads, -1, H)


def _join(x_iBKRH: jax.Array, block: int) -> jax.Array:
    """Undo `_split`."""
    i, B, K, R, H = x_iBKRH.shape
    x_iBKGTH = x_iBKRH.reshape(i, B, K, R // block, block, H)
    return x_iBKGTH.transpose(1, 0, 4, 2, 3, 5).reshape(B, i * block, K * (R // block), H)


def _pad(x: jax.Array, block: int, value: int = 0) -> jax.Array:
    """Fill up the tokens, on axis 1, to whole blocks."""
    missing = -x.shape[1] % block
    if not missing:
        return x
    return jnp.pad(x, [(0, missing if dim == 1 else 0) for dim in range(x.ndim)], constant_values=value)
