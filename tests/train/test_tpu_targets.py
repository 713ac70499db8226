"""The training step, compiled for TPU slices, beside MaxText's step on the same shapes; no TPU is needed.

MaxText's figures are those of its own ahead-of-time path (commit e591f30, jax 0.10.2, libtpu 0.0.42.1, one row for each
fsdp shard): wire and attention of full remat, cycles of the best of its policies that fit. Cycles are the compiler's
estimates, summed over loops; attention kernels and collectives are not in them.
"""

import json

import pytest
from helpers import ROOT

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model.config import ModelConfig, architecture_of
from stratos_jax.plan import hlo, work
from stratos_jax.train.aot import compile_for_topology
from stratos_jax.train.config import TrainConfig

pytestmark = [pytest.mark.slow, pytest.mark.tpu_compiler]


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    """libtpu for the compiler alone: another process may have it loaded."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")


def compiled(size, target, row_tokens, mesh, **train):
    """The program of a Qwen2.5 of a size for a slice."""
    hf = json.loads((ROOT / f"tests/golden/configs/Qwen2.5-{size}-Instruct.json").read_text())
    model, settings = ModelConfig(hf=hf), TrainConfig(**{"rows_per_step": 64, "remat": "full", **train})
    return compile_for_topology(architecture_of(model), model, settings, mesh, target, row_tokens=row_tokens)


@pytest.mark.parametrize(
    ("size", "target", "row_tokens", "remat", "cycles", "wire_gib", "attention_tflop", "memory_gib"),
    [
        ("7B", "v5e:8x8", 16_384, "full", 9.782e9, 81, 242, 15.75),
        ("32B", "v5p:4x4x4", 16_384, "context_qkv", 1.939e10, 275, 792, 95),
        ("32B", "v6e:16x16", 32_768, "full", 7.698e9, 313, 792, 31.25),
    ],
)
def test_less_work_and_wire_than_maxtext(
    size, target, row_tokens, remat, cycles, wire_gib, attention_tflop, memory_gib
):
    made = compiled(size, target, row_tokens, MeshConfig(), remat=remat)
    found = work.measure(hlo.parse(made.hlo_text))
    assert not found.unknown_loops
    assert 0 < found.total_cycles < cycles
    assert 0 < sum(collective.wire_bytes for collective in found.collectives) < wire_gib * 2**30
    assert 0 < found.attention_flops < (attention_tflop + 0.5) * 1e12
    assert made.memory.peak_memory_in_bytes < memory_gib * 2**30


@pytest.mark.parametrize(
    ("target", "row_tokens", "rows", "mesh"),
    [("v5p:2x2x4", 32_768, 64, MeshConfig()), ("v5p:4x4x4", 131_072, 16, MeshConfig(context=4))],
)
def test_long_rows_fit(target, row_tokens, rows, mesh):
    made = compiled("32B", target, row_tokens, mesh, rows_per_step=rows)
    assert made.memory.peak_memory_in_bytes < 95 * 2**30
