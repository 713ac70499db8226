"""Flash attention for GPUs in Pallas (Triton): rows of contiguous segments, K/V heads un-repeated.

In: queries, keys and values of whole rows on one device, and where each token's segment starts and ends. Out: attended
values. A query at t sees the keys from its segment's start to t: blocks before the segment are never visited.

Shapes: B rows, T tokens (a multiple of TILE), N query heads, K key/value heads, H head size (a power of two); in the
kernels Q queries and S keys of one tile.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

TILE = 64  # tokens of a tile of queries or keys
MASKED = -1e30


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def flash(q_BTNH, k_BTKH, v_BTKH, starts_BT, ends_BT, scale: float, interpret: bool) -> jax.Array:
    """Causal attention within segments [start, end)."""
    return _forward(q_BTNH, k_BTKH, v_BTKH, starts_BT, scale, interpret)[0]


def _flash_fwd(q_BTNH, k_BTKH, v_BTKH, starts_BT, ends_BT, scale: float, interpret: bool):
    out_BTNH, log_norm_BNT = _forward(q_BTNH, k_BTKH, v_BTKH, starts_BT, scale, interpret)
    out_BTNH = checkpoint_name(out_BTNH, "attention_context")
    log_norm_BNT = checkpoint_name(log_norm_BNT, "attention_context")
    return out_BTNH, (q_BTNH, k_BTKH, v_BTKH, starts_BT, ends_BT, out_BTNH, log_norm_BNT)


def _flash_bwd(scale: float, interpret: bool, residuals: tuple, dout_BTNH: jax.Array):
    q_BTNH, k_BTKH, v_BTKH, starts_BT, ends_BT, out_BTNH, log_norm_BNT = residuals
    B, T, N, H = q_BTNH.shape
    K = k_BTKH.shape[2]
    delta_BNT = jnp.einsum("BTNH,BTNH->BNT", dout_BTNH, out_BTNH, preferred_element_type=jnp.float32)
    specs = _Specs(T, N // K, H)
    given = (q_BTNH, k_BTKH, v_BTKH, dout_BTNH, log_norm_BNT, delta_BNT, starts_BT, ends_BT)
    call = functools.partial(
        pl.pallas_call,
        grid=(T // TILE, B, N),
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
    )
    dq_BTNH = call(
        functools.partial(_dq_kernel, scale=scale),
        in_specs=[
            specs.q_tile,
            specs.kv_row,
            specs.kv_row,
            specs.q_tile,
            *[specs.head_tile] * 2,
            *[specs.ids_tile] * 2,
        ],
        out_specs=specs.q_tile,
        out_shape=jax.ShapeDtypeStruct(q_BTNH.shape, q_BTNH.dtype),
        name="flash_dq",
    )(*given)
    dkv_shape = jax.ShapeDtypeStruct(q_BTNH.shape, jnp.float32)  # of each query head, summed below
    dk_BTNH, dv_BTNH = call(
        functools.partial(_dkv_kernel, scale=scale),
        in_specs=[specs.q_row, specs.kv_tile, specs.kv_tile, specs.q_row, *[specs.head_row] * 2]
        + [specs.ids_row, specs.ids_tile],
        out_specs=[specs.q_tile, specs.q_tile],
        out_shape=[dkv_shape, dkv_shape],
        name="flash_dkv",
    )(*given)
    over_group = lambda x_BTNH, like: x_BTNH.reshape(B, T, K, N // K, H).sum(axis=3).astype(like.dtype)
    return dq_BTNH, over_group(dk_BTNH, k_BTKH), over_group(dv_BTNH, v_BTKH), None, None


flash.defvjp(_flash_fwd, _flash_bwd)


class _Specs:
    """What a program of the grid (tile, row, query head) sees of each array."""

    def __init__(self, length: int, group: int, head_dim: int):
        self.q_tile = pl.BlockSpec((None, TILE, None, head_dim), lambda i, b, n: (b, i, n, 0))
        self.q_row = pl.BlockSpec((None, length, None, head_dim), lambda i, b, n: (b, 0, n, 0))
        self.kv_tile = pl.BlockSpec((None, TILE, None, head_dim), lambda i, b, n: (b, i, n // group, 0))
        self.kv_row = pl.BlockSpec((None, length, None, head_dim), lambda i, b, n: (b, 0, n // group, 0))
        self.head_tile = pl.BlockSpec((None, None, TILE), lambda i, b, n: (b, n, i))
        self.head_row = pl.BlockSpec((None, None, length), lambda i, b, n: (b, n, 0))
        self.ids_tile = pl.BlockSpec((None, TILE), lambda i, b, n: (b, i))
        self.ids_row = pl.BlockSpec((None, length), lambda i, b, n: (b, 0))


def _forward(q_BTNH, k_BTKH, v_BTKH, starts_BT, scale: float, interpret: bool) -> tuple[jax.Array, jax.Array]:
    """Output, and log of each softmax's normalizer."""
    B, T, N, H = q_BTNH.shape
    specs = _Specs(T, N // k_BTKH.shape[2], H)
    log_norm = jax.ShapeDtypeStruct((B, N, T), jnp.float32)
    return pl.pallas_call(
        functools.partial(_forward_kernel, scale=scale),
        grid=(T // TILE, B, N),
        in_specs=[specs.q_tile, specs.kv_row, specs.kv_row, specs.ids_tile],
        out_specs=[specs.q_tile, specs.head_tile],
        out_shape=[jax.ShapeDtypeStruct(q_BTNH.shape, q_BTNH.dtype), log_norm],
        compiler_params=triton.CompilerParams(num_warps=4, num_stages=2),
        interpret=interpret,
        name="flash_forward",
    )(q_BTNH, k_BTKH, v_BTKH, starts_BT)


def _forward_kernel(q_ref, k_ref, v_ref, starts_ref, out_ref, log_norm_ref, *, scale: float):
    tile = pl.program_id(0)
    q_QH, starts_Q = q_ref[...], starts_ref[...]

    def add(j: Any, sums: tuple) -> tuple:
        top_Q, norm_Q, out_QH = sums
        keys = pl.ds(j * TILE, TILE)
        mask_QS = _seen(tile, j, starts_Q)
        s_QS = jnp.where(mask_QS, _dot(q_QH, k_ref[keys, :].T) * scale, MASKED)
        new_top_Q = jnp.maximum(top_Q, jnp.max(s_QS, axis=1))
        p_QS = jnp.where(mask_QS, jnp.exp(s_QS - new_top_Q[:, None]), 0.0)
        shrink_Q = jnp.exp(top_Q - new_top_Q)
        out_QH = out_QH * shrink_Q[:, None] + _dot(p_QS.astype(v_ref.dtype), v_ref[keys, :])
        return new_top_Q, norm_Q * shrink_Q + jnp.sum(p_QS, axis=1), out_QH

    start = (jnp.full(TILE, MASKED, jnp.float32), jnp.zeros(TILE, jnp.float32), jnp.zeros(q_QH.shape, jnp.float32))
    top_Q, norm_Q, out_QH = jax.lax.fori_loop(jnp.min(starts_Q) // TILE, tile + 1, add, start)
    out_ref[...] = (out_QH / norm_Q[:, None]).astype(out_ref.dtype)
    log_norm_ref[...] = top_Q + jnp.log(norm_Q)


def _dq_kernel(q_ref, k_ref, v_ref, dout_ref, log_norm_ref, delta_ref, starts_ref, ends_ref, dq_ref, *, scale: float):
    tile = pl.program_id(0)
    q_QH, dout_QH, starts_Q = q_ref[...], dout_ref[...], starts_ref[...]
    log_norm_Q, delta_Q = log_norm_ref[...], delta_ref[...]

    def add(j: Any, dq_QH: jax.Array) -> jax.Array:
        keys = pl.ds(j * TILE, TILE)
        k_SH = k_ref[keys, :]
        p_QS = jnp.exp(_dot(q_QH, k_SH.T) * scale - log_norm_Q[:, None])
        p_QS = jnp.where(_seen(tile, j, starts_Q), p_QS, 0.0)
        ds_QS = p_QS * (_dot(dout_QH, v_ref[keys, :].T) - delta_Q[:, None]) * scale
        return dq_QH + _dot(ds_QS.astype(k_SH.dtype), k_SH)

    zeros_QH = jnp.zeros(q_QH.shape, jnp.float32)
    dq_QH = jax.lax.fori_loop(jnp.min(starts_Q) // TILE, tile + 1, add, zeros_QH)
    dq_ref[...] = dq_QH.astype(dq_ref.dtype)


def _dkv_kernel(
    q_ref, k_ref, v_ref, dout_ref, log_norm_ref, delta_ref, starts_ref, ends_ref, dk_ref, dv_ref, *, scale: float
):
    tile = pl.program_id(0)
    k_SH, v_SH = k_ref[...], v_ref[...]

    def add(i: Any, sums: tuple) -> tuple:
        dk_SH, dv_SH = sums
        queries = pl.ds(i * TILE, TILE)
        q_QH, dout_QH = q_ref[queries, :], dout_ref[queries, :]
        p_QS = jnp.exp(_dot(q_QH, k_SH.T) * scale - log_norm_ref[queries][:, None])
        p_QS = jnp.where(_seen(i, tile, starts_ref[queries]), p_QS, 0.0)
        dv_SH += _dot(p_QS.astype(dout_QH.dtype).T, dout_QH)
        ds_QS = p_QS * (_dot(dout_QH, v_SH.T) - delta_ref[queries][:, None]) * scale
        return dk_SH + _dot(ds_QS.astype(q_QH.dtype).T, q_QH), dv_SH

    zeros_SH = jnp.zeros(k_SH.shape, jnp.float32)
    last = (jnp.max(ends_ref[...]) + TILE - 1) // TILE
    dk_ref[...], dv_ref[...] = jax.lax.fori_loop(tile, last, add, (zeros_SH, zeros_SH))


def _seen(q_tile: Any, kv_tile: Any, starts_Q: jax.Array) -> jax.Array:
    """Which keys of one tile the queries of another see."""
    queries_Q = q_tile * TILE + jnp.arange(TILE)
    keys_S = kv_tile * TILE + jnp.arange(TILE)
    return (queries_Q[:, None] >= keys_S[None, :]) & (keys_S[None, :] >= starts_Q[:, None])


def _dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """A product with float32 sums."""
    precision = jax.lax.Precision.HIGHEST if x.dtype == jnp.float32 else jax.lax.Precision.DEFAULT
    return jnp.dot(x, y, precision=precision, preferred_element_type=jnp.float32)


def padded_head(head_dim: int) -> int:
    """The next power of two."""
    return 1 << math.ceil(math.log2(max(head_dim, 16)))
