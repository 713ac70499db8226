"""One signature for every attention implementation.

In: queries of all heads, keys and values of the KV heads (never repeated), positions and segment ids of both.
Out: the weighted values. A query sees the keys of its own segment at positions up to its own; without segment ids all
tokens are of one segment. The flash kernels go by index instead of position: each segment is contiguous and its
positions rise, as packed rows are made; with a context axis rows come in `zigzag_order`.

Shapes: B rows, T query tokens, S key tokens, N query heads, K key/value heads, H head size.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from stratos_jax.model.attention.context import in_row_order
from stratos_jax.model.attention.reference import reference_attention
from stratos_jax.model.config import Implementation
from stratos_jax.model.platform import target_platform
from stratos_jax.types import UserError

PLATFORMS = {"splash": "tpu", "gpu_flash": "gpu"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionSharding:
    """Which mesh axes the caller lays rows, heads and tokens over; kernels then run per device, inside `shard_map`."""

    mesh: jax.sharding.Mesh
    batch: tuple[str, ...]
    heads: tuple[str, ...]
    context: str | None = None

    @property
    def head_shards(self) -> int:
        """How many devices share the heads."""
        return math.prod(self.mesh.shape[axis] for axis in self.heads)


def attend(
    q_BTNH: jax.Array,
    k_BSKH: jax.Array,
    v_BSKH: jax.Array,
    *,
    q_positions: jax.Array,
    kv_positions: jax.Array,
    q_segments: jax.Array | None,
    kv_segments: jax.Array | None,
    scale: float,
    implementation: Implementation,
    context_axis: str | None = None,
    sharding: AttentionSharding | None = None,
) -> jax.Array:
    """Causal attention within segments, in the queries' number format.

    Under `jit` over a mesh give `sharding`. Inside a `shard_map` of one's own, whose devices share each row in
    `zigzag_order`, give the `context_axis` and this device's queries, keys and values.
    """
    where = {"q_positions": q_positions, "kv_positions": kv_positions}
    where |= {"q_segments": q_segments, "kv_segments": kv_segments}
    if sharding is not None:
        return _attend_sharded(q_BTNH, k_BSKH, v_BSKH, where, scale, implementation, sharding)
    num_context = 1 if context_axis is None else jax.lax.axis_size(context_axis)
    name = choose(implementation, target_platform(), num_context)
    if context_axis is None or num_context == 1:
        return _attend_whole_rows(q_BTNH, k_BSKH, v_BSKH, where, scale, name)
    return _attend_over_context(q_BTNH, k_BSKH, v_BSKH, where, scale, name, context_axis)


def choose(implementation: Implementation, platform: str, num_context: int = 1) -> Implementation:
    """The implementation that runs on a platform; a named one that cannot is an error, never replaced."""
    platform = {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform)
    if implementation == "auto":
        best = {"tpu": "splash", "gpu": "gpu_flash" if num_context == 1 else "reference"}
        return best.get(platform, "reference")  # pyright: ignore[reportReturnType]
    wanted = PLATFORMS.get(implementation, platform)
    if wanted != platform:
        raise UserError(
            f"attention {implementation!r} cannot run here",
            got=f"platform {platform}",
            wanted=f"platform {wanted}",
            do='set model.attention to "auto" or "reference"',
        )
    if implementation.startswith("gpu_flash") and num_context > 1:
        raise UserError(
            f"attention {implementation!r} does not split rows over devices",
            got=f"a context axis of {num_context}",
            do='set mesh.context to 1 or model.attention to "reference"',
        )
    return implementation


def _attend_whole_rows(q_BTNH, k_BSKH, v_BSKH, where: dict[str, Any], scale: float, name: Implementation) -> jax.Array:
    """All tokens of the rows in this program's own arrays."""
    interpret = name.endswith("_interpret")
    if name.startswith("splash"):
        from stratos_jax.model.attention.splash import splash_attention

        segments = _segments(where, q_BTNH, k_BSKH)
        return splash_attention(q_BTNH, k_BSKH, v_BSKH, **segments, scale=scale, interpret=interpret)
    if name.startswith("gpu_flash"):
        from stratos_jax.model.attention.gpu_flash import gpu_flash_attention

        segments = where["q_segments"]
        return gpu_flash_attention(q_BTNH, k_BSKH, v_BSKH, segments=segments, scale=scale, interpret=interpret)
    return reference_attention(q_BTNH, k_BSKH, v_BSKH, **where, scale=scale)


def _attend_over_context(q_BTNH, k_BSKH, v_BSKH, where, scale: float, name: Implementation, axis: str) -> jax.Array:
    """This device's part of the queries, all keys of their rows: un-repeated KV heads are cheap to gather."""
    gather = lambda x: jax.lax.all_gather(x, axis, axis=1, tiled=True)
    where = where | _segments(where, q_BTNH, k_BSKH)
    k_BSKH, v_BSKH, kv_segments = gather(k_BSKH), gather(v_BSKH), gather(where["kv_segments"])
    if not name.startswith("splash"):
        where |= {"kv_segments": kv_segments, "kv_positions": gather(where["kv_positions"])}
        return _attend_whole_rows(q_BTNH, k_BSKH, v_BSKH, where, scale, name)
    from stratos_jax.model.attention.splash import splash_over_context

    shards = jax.lax.axis_size(axis)
    k_BSKH, v_BSKH, kv_segments = (in_row_order(x, shards) for x in (k_BSKH, v_BSKH, kv_segments))
    segments = {"q_segments": where["q_segments"], "kv_segments": kv_segments}
    interpret = name.endswith("_interpret")
    return splash_over_context(q_BTNH, k_BSKH, v_BSKH, **segments, scale=scale, axis=axis, interpret=interpret)


def _attend_sharded(q_BTNH, k_BSKH, v_BSKH, where, scale, implementation: Implementation, sharding: AttentionSharding):
    """Rows over `batch`, heads over `heads`, tokens over `context`; each device then works alone."""
    num_heads, num_kv_heads, head_shards = q_BTNH.shape[2], k_BSKH.shape[2], sharding.head_shards
    if num_heads % head_shards or (num_kv_heads % head_shards and head_shards % num_kv_heads):
        raise UserError(
            "heads cannot be split evenly over the mesh",
            got=f"{num_heads} query heads and {num_kv_heads} KV heads over {head_shards} devices",
            do="choose mesh.tensor as a divisor or a multiple of the KV heads that divides the query heads",
        )
    kv_heads = sharding.heads if num_kv_heads % head_shards == 0 else None
    q_spec = P(sharding.batch, sharding.context, sharding.heads, None)
    kv_spec = P(sharding.batch, sharding.context, kv_heads, None)
    token_spec = P(sharding.batch, sharding.context)

    def on_device(q_BTNH, k_BSKH, v_BSKH, where):
        if kv_heads is None and head_shards > 1:
            k_BSKH, v_BSKH = (_own_head(x, sharding) for x in (k_BSKH, v_BSKH))
        where = {"q_segments": None, "kv_segments": None} | where
        kernel = {"implementation": implementation, "context_axis": sharding.context}
        return attend(q_BTNH, k_BSKH, v_BSKH, **where, scale=scale, **kernel)

    where = {name: value for name, value in where.items() if value is not None}
    in_specs = (q_spec, kv_spec, kv_spec, dict.fromkeys(where, token_spec))
    run = jax.shard_map(on_device, mesh=sharding.mesh, in_specs=in_specs, out_specs=q_spec, check_vma=False)
    return run(q_BTNH, k_BSKH, v_BSKH, where)


def _own_head(x_BSKH: jax.Array, sharding: AttentionSharding) -> jax.Array:
    """The one KV head that this device's query heads share, where there are more devices than KV heads."""
    shards_per_head = sharding.head_shards // x_BSKH.shape[2]
    return jax.lax.dynamic_slice_in_dim(x_BSKH, jax.lax.axis_index(sharding.heads) // shards_per_head, 1, axis=2)


def _segments(where: dict[str, Any], q_BTNH: jax.Array, k_BSKH: jax.Array) -> dict[str, jax.Array]:
    """Segment ids, ones where the caller gave none."""
    ones = lambda x: jnp.ones(x.shape[:2], jnp.int32)
    q_segments, kv_segments = where["q_segments"], where["kv_segments"]
    return {
        "q_segments": ones(q_BTNH) if q_segments is None else q_segments,
        "kv_segments": ones(k_BSKH) if kv_segments is None else kv_segments,
    }
