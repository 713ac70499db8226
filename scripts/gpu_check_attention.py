"""Checks of attention that need a GPU, for whoever has one: `python scripts/gpu_check_attention.py`.

In: the GPU's kernels. Out: one line per check and exit code 1 if any failed: forward and backward against float32
attention on the same GPU, packed and unpacked, for the head shapes of the supported models, and the time of both.
"""

import dataclasses
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.model.attention import attend

SHAPES = {  # (query heads, KV heads, head size)
    "Qwen2.5-0.5B": (14, 2, 64),
    "Qwen2.5-7B": (28, 4, 128),
    "Llama-3.1-8B": (32, 8, 128),
}
LENGTH = 4096
TOLERANCE = 3e-2  # of bfloat16 results, relative to the largest value
SCALE_OF = lambda head_dim: head_dim**-0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """What one comparison found."""

    name: str
    ok: bool
    detail: str


def attention_checks() -> list[Check]:
    """gpu_flash against float32 reference attention: packed rows go to Pallas, rows of one document to cuDNN."""
    checks = []
    for model, (num_heads, num_kv_heads, head_dim) in SHAPES.items():
        for packed in (True, False):
            name = f"{model} {'packed' if packed else 'one document'} {LENGTH} tokens"
            try:
                checks.append(_compare(name, num_heads, num_kv_heads, head_dim, packed))
            except Exception as error:  # a kernel that does not compile is a finding, not the end of the checks
                checks.append(Check(name=name, ok=False, detail=f"{type(error).__name__}: {error}".splitlines()[0]))
    return checks


def _compare(name: str, num_heads: int, num_kv_heads: int, head_dim: int, packed: bool) -> Check:
    rng = np.random.default_rng(0)
    draw = lambda heads: jnp.asarray(rng.standard_normal((1, LENGTH, heads, head_dim)), jnp.bfloat16)
    q, k, v, w = draw(num_heads), draw(num_kv_heads), draw(num_kv_heads), draw(num_heads)
    lengths = (LENGTH // 4, LENGTH // 2, LENGTH // 8, LENGTH - LENGTH // 4 - LENGTH // 2 - LENGTH // 8)
    lengths = lengths if packed else (LENGTH,)
    positions = jnp.asarray(np.concatenate([np.arange(n) for n in lengths])[None], jnp.int32)
    segments = jnp.asarray(np.repeat(np.arange(len(lengths)) + 1, lengths)[None], jnp.int32) if packed else None
    where = {"q_positions": positions, "kv_positions": positions, "q_segments": segments, "kv_segments": segments}

    def step(implementation: str, dtype: str) -> Callable:
        def loss(q, k, v):
            q, k, v = (x.astype(dtype) for x in (q, k, v))
            out = attend(q, k, v, **where, scale=SCALE_OF(head_dim), implementation=implementation)
            return jnp.sum(out.astype(jnp.float32) * w), out

        return jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))

    wanted, _ = _run(step("reference", "float32"), q, k, v)
    _, plain_seconds = _run(step("reference", "bfloat16"), q, k, v)
    got, flash_seconds = _run(step("gpu_flash", "bfloat16"), q, k, v)
    errors = {
        part: float(np.abs(x - y).max() / np.abs(y).max())
        for part, x, y in zip(("out", "dq", "dk", "dv"), got, wanted, strict=True)
    }
    shown = ", ".join(f"{part} {error:.1e}" for part, error in errors.items())
    detail = f"{shown}; {1e3 * flash_seconds:.2f} ms, plain JAX {1e3 * plain_seconds:.2f} ms"
    return Check(name=name, ok=max(errors.values()) <= TOLERANCE, detail=detail)


def _run(step: Callable, *arrays: jax.Array) -> tuple[list[np.ndarray], float]:
    """(output, gradients) in float32, and seconds of one warm call."""
    jax.block_until_ready(step(*arrays))
    start = time.perf_counter()
    (_, out), grads = jax.block_until_ready(step(*arrays))
    seconds = time.perf_counter() - start
    return [np.asarray(x, np.float32) for x in (out, *grads)], seconds


def main() -> int:
    """Print the checks; 1 if any failed."""
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}")
    checks = attention_checks()
    for check in checks:
        print(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.detail}")
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
