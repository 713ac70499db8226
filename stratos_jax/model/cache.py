"""The contiguous KV cache: one row of slots per sequence, a token's slot being its position.

In: rotated keys and values of new tokens. Out: attention over all tokens so far, and the next cache. `forward` needs
only the three methods below, so that an engine may bring another cache, paged for instance. While `forward` runs, the
cache is the carry of the scan over layers and is updated in place.

Shapes: L layers, B sequences, S slots, T new tokens, N query heads, K key/value heads, H head size.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from stratos_jax.model.attention.reference import reference_attention
from stratos_jax.model.config import Architecture


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """Keys and values of the tokens so far; `fresh` (static): no sequence has any token yet."""

    k_LBSKH: jax.Array
    v_LBSKH: jax.Array
    lengths_B: jax.Array
    fresh: bool = dataclasses.field(metadata={"static": True})

    def attend(self, layer: Any, q_BTNH, k_BTKH, v_BTKH, *, positions_BT, segments_BT, scale: float, attend: Callable):
        """Store one layer's new keys and values, and attend over all slots up to each query's position.

        `attend` is used while the cache is fresh: the tokens are then a plain row.
        """
        num_slots = self.k_LBSKH.shape[2]
        slots_BT = jnp.where(segments_BT == 0, num_slots, positions_BT)  # padding is dropped: no such slot
        rows_B1 = jnp.arange(slots_BT.shape[0])[:, None]
        write = lambda cache, new: cache.at[layer, rows_B1, slots_BT].set(new.astype(cache.dtype), mode="drop")
        cache = dataclasses.replace(self, k_LBSKH=write(self.k_LBSKH, k_BTKH), v_LBSKH=write(self.v_LBSKH, v_BTKH))
        if self.fresh:
            where = {"q_positions": positions_BT, "kv_positions": positions_BT}
            where |= {"q_segments": segments_BT, "kv_segments": segments_BT}
            return attend(q_BTNH, k_BTKH, v_BTKH, **where, scale=scale), cache
        slots_BS = jnp.broadcast_to(jnp.arange(num_slots), (slots_BT.shape[0], num_slots))
        out_BTNH = reference_attention(
            q_BTNH,
            cache.k_LBSKH[layer].astype(q_BTNH.dtype),
            cache.v_LBSKH[layer].astype(q_BTNH.dtype),
            q_positions=positions_BT,
            kv_positions=slots_BS,  # position alone masks the slots that are not written yet
            q_segments=None,
            kv_segments=None,
            scale=scale,
        )
        return out_BTNH, cache

    def advance(self, positions_BT: jax.Array, segments_BT: jax.Array) -> "Cache":
        """The cache after the new tokens."""
        ends_BT = jnp.where(segments_BT == 0, 0, positions_BT + 1)
        lengths_B = jnp.maximum(self.lengths_B, jnp.max(ends_BT, axis=1))
        return dataclasses.replace(self, lengths_B=lengths_B, fresh=False)


def init_cache(arch: Architecture, batch: int, max_len: int, dtype: Any) -> Cache:
    """An empty cache for `batch` sequences of at most `max_len` tokens."""
    shape = (arch.num_layers, batch, max_len, arch.num_kv_heads, arch.head_dim)
    return Cache(
        k_LBSKH=jnp.zeros(shape, dtype),
        v_LBSKH=jnp.zeros(shape, dtype),
        lengths_B=jnp.zeros(batch, jnp.int32),
        fresh=True,
    )
