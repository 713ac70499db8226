"""The 0.5B both ways at its real size, with proof, in little memory."""

import importlib.util
import json
import subprocess
import sys

import pytest
from helpers import ROOT

from stratos_jax.convert.verify import sha256_of

BOTH_WAYS = """
import json, resource, sys
from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
config = ConvertConfig(dtype="keep", proof_prompts=1)
convert.from_hf(sys.argv[1], sys.argv[2], config)
report = convert.to_hf(sys.argv[2], sys.argv[3], config)
print(json.dumps({**report, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))
"""


@pytest.mark.slow
def test_half_a_billion(tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark", ROOT / "benchmarks" / "convert.py")
    assert spec is not None and spec.loader is not None
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    benchmark.CONFIG = ROOT / "tests" / "golden" / "configs" / "Qwen2.5-0.5B-Instruct.json"
    size = benchmark.write_model(tmp_path / "hf", None)
    folders = [str(tmp_path / name) for name in ("hf", "ckpt", "out")]
    done = subprocess.run([sys.executable, "-c", BOTH_WAYS, *folders], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["bytes"] == size and report["round_trip"]["bitwise"]
    assert report["logits"]["reference"].startswith("transformers")
    assert report["logits"]["max_kl"] < 1e-6 and report["peak_gib"] < 3.0
    files = [sha256_of(str(tmp_path / name / "model.safetensors")) for name in ("hf", "out")]
    assert files[0] == files[1]
