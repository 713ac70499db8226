"""TPU splash attention: causal and segment masks, blocks above the diagonal never visited, K/V heads un-repeated.

In: the queries of this device and the keys and values of whole rows, in row order. Out: attended values. Causality goes
by index in the row; with rows whose positions rise within each segment that is causality by position.

Shapes: B rows, T query tokens, S key tokens, N query heads, K key/value heads, G queries per KV head, H head size.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernels
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from stratos_jax.model.attention.context import zigzag_order
from stratos_jax.types import UserError

LANES = 128
# Largest tiles; the published long-row recipes of TPU trainers use these. The wide block_kv_dkv matters: the fused
# backward kernel writes one partial dq per key block, which XLA sums afterwards.
BLOCK_Q, BLOCK_KV, BLOCK_KV_COMPUTE = 1024, 1024, 1024
BLOCK_Q_DKV, BLOCK_KV_DKV, BLOCK_KV_DKV_COMPUTE = 512, 2048, 512


class OrderedCausalMask(masks.CausalMask):
    """Causal mask of queries that stand in another order than the keys."""

    def __init__(self, q_order: np.ndarray, num_keys: int):
        super().__init__((len(q_order), num_keys))
        self.q_sequence = np.asarray(q_order, np.int32)


def padded_length(length: int) -> int:
    """The next length that the kernel's tiles divide; long rows are padded more, to keep tiles wide."""
    step = LANES if length <= 1024 else 512
    return math.ceil(length / step) * step


def make_kernel(q_order: np.ndarray, num_keys: int, group: int, *, q_shards: int, interpret: bool) -> Any:
    """The kernel for one KV head and its `group` query heads; a pytree, whose leaves tell which blocks to visit."""
    block_q, block_kv = len(q_order) // q_shards, num_keys
    sizes = kernels.BlockSizes(
        block_q=_tile(block_q, BLOCK_Q),
        block_kv=_tile(block_kv, BLOCK_KV),
        block_kv_compute=_tile(block_kv, BLOCK_KV_COMPUTE),
        block_q_dkv=_tile(block_q, BLOCK_Q_DKV),
        block_kv_dkv=_tile(block_kv, BLOCK_KV_DKV),
        block_kv_dkv_compute=_tile(block_kv, BLOCK_KV_DKV_COMPUTE),
        use_fused_bwd_kernel=True,
    )
    mask = masks.MultiHeadMask([OrderedCausalMask(q_order, num_keys)] * group)
    return kernels.make_splash_mqa(
        mask,
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=q_shards,
        residual_checkpoint_name="attention_context",
        interpret=interpret,
    )


def run_kernel(kernel: Any, q_BTNH, k_BSKH, v_BSKH, *, q_segments, kv_segments, scale: float) -> jax.Array:
    """The kernel over rows and KV heads."""
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    scaled_BTNH = (q_BTNH.astype(jnp.float32) * scale).astype(q_BTNH.dtype)
    q_BKGTH = scaled_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKSH, v_BKSH = k_BSKH.transpose(0, 2, 1, 3), v_BSKH.transpose(0, 2, 1, 3)
    segments = kernels.SegmentIds(q=q_segments.astype(jnp.int32), kv=kv_segments.astype(jnp.int32))
    over_heads = jax.vmap(lambda q_GTH, k_SH, v_SH, ids: kernel(q_GTH, k_SH, v_SH, segment_ids=ids), (0, 0, 0, None))
    out_BKGTH = jax.vmap(over_heads)(q_BKGTH, k_BKSH, v_BKSH, segments)
    return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)


def splash_attention(q_BTNH, k_BSKH, v_BSKH, *, q_segments, kv_segments, scale: float, interpret: bool) -> jax.Array:
    """Whole rows on one device; any length, filled up to the kernel's tiles."""
    length = q_BTNH.shape[1]
    target = padded_length(length)
    fill = lambda x, value=0: jnp.pad(
        x, [(0, target - length if dim == 1 else 0) for dim in range(x.ndim)], constant_values=value
    )
    group = q_BTNH.shape[2] // k_BSKH.shape[2]
    kernel = make_kernel(np.arange(target), target, group, q_shards=1, interpret=interpret)
    segments = {"q_segments": fill(q_segments, -1), "kv_segments": fill(kv_segments, -1)}
    return run_kernel(kernel, fill(q_BTNH), fill(k_BSKH), fill(v_BSKH), **segments, scale=scale)[:, :length]


def splash_over_context(q_BTNH, k_BSKH, v_BSKH, *, q_segments, kv_segments, scale: float, axis: str, interpret: bool):
    """This device's queries of rows in `zigzag_order` over a mesh axis, and all keys in row order."""
    length, shards = k_BSKH.shape[1], jax.lax.axis_size(axis)
    if length % (shards * LANES):
        raise UserError(
            "a row cannot be split over the context axis for splash attention",
            got=f"{length} tokens over {shards} devices",
            wanted=f"a multiple of {shards * LANES} tokens",
        )
    group = q_BTNH.shape[2] // k_BSKH.shape[2]
    kernel = make_kernel(zigzag_order(length, shards), length, group, q_shards=shards, interpret=interpret)
    infos = (kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info)
    own = kernels.SplashAttentionKernel(*(_own_part(info, axis) for info in infos), **kernel.kwargs)
    return run_kernel(own, q_BTNH, k_BSKH, v_BSKH, q_segments=q_segments, kv_segments=kv_segments, scale=scale)


def _own_part(info: Any, axis: str) -> Any:
    """What of a kernel's visiting lists is about this device's queries: they lie along axis 1 of the lists."""
    if info is None:
        return None
    index, shards = jax.lax.axis_index(axis), jax.lax.axis_size(axis)

    def part(x: jax.Array | None, dim: int) -> jax.Array | None:
        if x is None:
            return None
        size = x.shape[dim] // shards
        return jax.lax.dynamic_slice_in_dim(x, index * size, size, dim)

    lists = {name: part(getattr(info, name), 1) for name in ("data_next", "mask_next", "block_mask")}
    return info._replace(**lists, q_sequence=part(info.q_sequence, 0))


def _tile(length: int, largest: int) -> int:
    """The widest multiple of 128 that divides a length, up to `largest`."""
    tiles = [tile for tile in range(LANES, min(length, largest) + 1, LANES) if length % tile == 0]
    assert tiles, f"no tile divides {length}"
    return tiles[-1]
