"""GPU flash attention: cuDNN for rows of one document, our Pallas kernel for packed rows.

In: whole rows on one device. Out: attended values. cuDNN takes no segment ids (only a mask that is quadratic in
length); the Pallas kernel skips what lies outside a segment.

Shapes: B rows, T tokens, N query heads, K key/value heads, H head size.
"""

import jax
import jax.numpy as jnp

from stratos_jax.model.attention import gpu_kernel

CUDNN_DTYPES = (jnp.bfloat16, jnp.float16)


def gpu_flash_attention(q_BTNH, k_BTKH, v_BTKH, *, segments: jax.Array | None, scale: float, interpret: bool):
    """Causal attention within segments; None: one document per row."""
    B, T, _, H = q_BTNH.shape
    if segments is None and q_BTNH.dtype in CUDNN_DTYPES and not interpret:
        return jax.nn.dot_product_attention(q_BTNH, k_BTKH, v_BTKH, scale=scale, is_causal=True, implementation="cudnn")
    segments_BT = jnp.ones((B, T), jnp.int32) if segments is None else segments.astype(jnp.int32)
    missing = -T % gpu_kernel.TILE
    fill = lambda x_BTNH: jnp.pad(x_BTNH, ((0, 0), (0, missing), (0, 0), (0, gpu_kernel.padded_head(H) - H)))
    bounds = segment_bounds(jnp.pad(segments_BT, ((0, 0), (0, missing)), constant_values=-1))
    out_BTNH = gpu_kernel.flash(fill(q_BTNH), fill(k_BTKH), fill(v_BTKH), *bounds, scale, interpret)
    return out_BTNH[:, :T, :, :H]  # pyright: ignore[reportIndexIssue]


def segment_bounds(segments_BT: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each token the index at which its segment starts, and the one behind its end."""
    T = segments_BT.shape[1]
    index_T = jnp.arange(T, dtype=jnp.int32)
    edge_BT = jnp.pad(segments_BT[:, 1:] != segments_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)
    starts_BT = jax.lax.cummax(jnp.where(edge_BT, index_T, 0), axis=1)
    last_BT = jnp.pad(edge_BT[:, 1:], ((0, 0), (0, 1)), constant_values=True)
    ends_BT = jax.lax.cummin(jnp.where(last_BT, index_T + 1, T), axis=1, reverse=True)
    return starts_BT, ends_BT
