"""The figures of a step, as sums that add up over tokens, micro-batches and devices.

In: a batch and the loss of each of its tokens. Out: loss, loss by span (thought, solution, format) and by position, and
how sure the model is of the token that ends a sample.

Shapes: B rows, T tokens.
"""

from typing import Any

import jax
import jax.numpy as jnp

SPANS = ("thought", "solution", "format")  # 1, 2, 3 in spans_BT
POSITION_EDGES = (0, 1024, 4096, 8192, 16_384)  # buckets of positions within a sample


def ends(batch: dict[str, Any]) -> jax.Array:
    """True at the last trained token of each sample."""
    weights_BT, segments_BT = batch["loss_weights_BT"], batch["segment_ids_BT"]
    next_trained_BT = jnp.roll(weights_BT != 0, -1, axis=1) & (jnp.roll(segments_BT, -1, axis=1) == segments_BT)
    return (weights_BT != 0) & ~next_trained_BT.at[:, -1].set(False)


def sums(batch: dict[str, Any], losses_BT: jax.Array, loss: jax.Array) -> dict[str, jax.Array]:
    """Sums of one micro-batch; `loss` is its share of the step's."""
    trained_BT = batch["loss_weights_BT"] != 0
    last_BT = batch["ends_BT"]
    out = {
        "loss": loss,
        "tokens": jnp.sum(batch["segment_ids_BT"] != 0, dtype=jnp.float32),
        "trained_tokens": jnp.sum(trained_BT, dtype=jnp.float32),
        "pairs": jnp.sum(jnp.where(batch["segment_ids_BT"] != 0, batch["positions_BT"] + 1.0, 0.0)),
        "end/sum": jnp.sum(jnp.where(last_BT, jnp.exp(-losses_BT), 0.0)),
        "end/count": jnp.sum(last_BT, dtype=jnp.float32),
    }
    masks = {f"loss_{name}": batch["spans_BT"] == i + 1 for i, name in enumerate(SPANS)}
    for low, high in zip(POSITION_EDGES, (*POSITION_EDGES[1:], None)):
        inside_BT = batch["positions_BT"] >= low
        masks[f"loss_from_{low}"] = inside_BT if high is None else inside_BT & (batch["positions_BT"] < high)
    for name, mask_BT in masks.items():
        out[f"{name}/sum"] = jnp.sum(jnp.where(mask_BT & trained_BT, losses_BT, 0.0))
        out[f"{name}/count"] = jnp.sum(mask_BT & trained_BT, dtype=jnp.float32)
    return out


def finish(sums: dict[str, jax.Array], total_weight: jax.Array) -> dict[str, jax.Array]:
    """Figures of a step; a mean over no token is NaN, and is left out when it is written."""
    names = [name.removesuffix("/sum") for name in sums if name.endswith("/sum")]
    means = {name: sums[f"{name}/sum"] / sums[f"{name}/count"] for name in names}
    means["end_probability"] = means.pop("end")
    plain = {name: value for name, value in sums.items() if "/" not in name}
    return {**plain, **means, "weight": total_weight}
