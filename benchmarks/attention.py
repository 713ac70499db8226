"""Reference attention beside dense attention, forward and backward: seconds and temporary memory, in one run.

usage: python benchmarks/attention.py [--lengths 1024 2048 4096] [--repeats 5]

The two sides take turns, so that a busy machine slows both; the best of the repeats is shown. The rows are packed: four
documents each, whose tokens see only their own document.
"""

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.model.attention.reference import reference_attention

HEADS, KV_HEADS, HEAD_DIM, DOCUMENTS = 8, 2, 64, 4


def main() -> None:
    """Print one Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(
        f"jax {jax.__version__}, {jax.devices()[0].device_kind}, {HEADS} heads over {KV_HEADS} of {HEAD_DIM}, float32"
    )
    print("| tokens | linear s | dense s | dense / linear | linear MiB | dense MiB |\n|---|---|---|---|---|---|")
    for length in args.lengths:
        arrays, where = inputs(length)
        sides = [compiled(attention, arrays, where) for attention in (linear, dense)]
        best = [float("inf")] * 2
        for _ in range(args.repeats):
            for i, side in enumerate(sides):
                start = time.perf_counter()
                jax.block_until_ready(side(*arrays, where))
                best[i] = min(best[i], time.perf_counter() - start)
        memory = [side.memory_analysis().temp_size_in_bytes / 2**20 for side in sides]
        seconds = f"{best[0]:.3f} | {best[1]:.3f} | {best[1] / best[0]:.2f}"
        print(f"| {length} | {seconds} | {memory[0]:.0f} | {memory[1]:.0f} |", flush=True)


def inputs(length: int) -> tuple[tuple[jax.Array, ...], dict[str, jax.Array]]:
    """Queries, keys, values, and positions and segment ids of one packed row."""
    rng = np.random.default_rng(0)
    draw = lambda heads: jnp.asarray(rng.standard_normal((1, length, heads, HEAD_DIM), dtype=np.float32))
    positions_BT = jnp.asarray(np.tile(np.arange(length // DOCUMENTS), DOCUMENTS)[None], jnp.int32)
    segments_BT = jnp.asarray(np.repeat(np.arange(DOCUMENTS) + 1, length // DOCUMENTS)[None], jnp.int32)
    where = {"q_positions": positions_BT, "kv_positions": positions_BT}
    return (draw(HEADS), draw(KV_HEADS), draw(KV_HEADS)), where | {
        "q_segments": segments_BT,
        "kv_segments": segments_BT,
    }


def compiled(attention: Callable, arrays: tuple, where: dict) -> jax.stages.Compiled:
    """Gradients for queries, keys and values, compiled."""
    loss = lambda q, k, v, where: jnp.sum(jnp.square(attention(q, k, v, where)))
    return jax.jit(jax.grad(loss, (0, 1, 2))).lower(*arrays, where).compile()


def linear(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, where: dict) -> jax.Array:
    """Ours."""
    return reference_attention(q_BTNH, k_BSKH, v_BSKH, **where, scale=HEAD_DIM**-0.5)


def dense(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, where: dict) -> jax.Array:
    """JAX's own attention, with the mask of the packed row."""
    mask_BTS = where["q_positions"][:, :, None] >= where["kv_positions"][:, None]
    mask_BTS &= where["q_segments"][:, :, None] == where["kv_segments"][:, None]
    return jax.nn.dot_product_attention(q_BTNH, k_BSKH, v_BSKH, mask=mask_BTS[:, None], implementation="xla")


if __name__ == "__main__":
    main()
