"""`stratos plan` with the real TPU compiler, on a model small enough to compile in seconds."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.tpu_compiler
CONFIG = """
from stratos_jax.model.config import ModelConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.train.config import TrainConfig

HF = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 1024, "hidden_size": 256,
    "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2,
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}


def recipe():
    return Recipe(
        name="small",
        model=ModelConfig(hf=HF),
        shards=ShardsConfig(sources=(SourceConfig(path="rows.jsonl"),), row_tokens=1024),
        train=TrainConfig(rows_per_step=8, remat="full"),
    )
"""


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plan")
    (folder / "small.py").write_text(CONFIG)

    def ask(*words):
        command = [
            sys.executable,
            "-m",
            "stratos_jax.cli",
            "plan",
            str(folder / "small.py"),
            "--cache",
            str(folder / "cache"),
        ]
        return subprocess.run([*command, *words], capture_output=True, text=True, timeout=300, env=os.environ)

    return ask


def test_figures_are_those_of_the_compiled_step(asked, tmp_path):
    done = asked("--topology", "v5e:2x4", "--rows", "800", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    wanted = (
        *("fits", "hbm_arguments_gib", "hbm_temporaries_gib", "hbm_peak_gib", "hbm_limit_gib", "host_gib"),
        *("estimated_cycles", "attention_tflops", "wire_gib", "wire_async_gib", "step_seconds"),
        *("tokens_per_second_per_chip", "mfu", "hours", "usd", "mesh", "remat"),
    )
    assert all(plan[name] is not None for name in wanted)
    direct = direct_compile(tmp_path)
    assert plan["hbm_arguments_gib"] * 2**30 == direct["arguments"]
    assert plan["hbm_temporaries_gib"] * 2**30 == direct["temporaries"]
    assert plan["hbm_peak_gib"] * 2**30 == direct["peak"]
    assert plan["num_steps"] == 300 and plan["hours"] == pytest.approx(300 * plan["step_seconds"] / 3600)
    parts = {name: size for name, size in plan["hbm_split_gib"].items() if name != "code"}
    assert sum(parts.values()) == pytest.approx(plan["hbm_peak_gib"])
    again = asked("--topology", "v5e:2x4", "--rows", "800", "--json")
    assert json.loads(again.stdout) == plan


def direct_compile(folder: pathlib.Path) -> dict:
    """The same step compiled without the planner."""
    (folder / "small.py").write_text(CONFIG)
    code = f"""
import json, runpy
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model.config import read_architecture
from stratos_jax.train.aot import compile_for_topology
r = runpy.run_path({str(folder / "small.py")!r})["recipe"]()
made = compile_for_topology(read_architecture(r.model.hf), r.model, r.train, r.mesh, "v5e:2x4", row_tokens=1024)
m = made.memory
sizes = {{"arguments": m.argument_size_in_bytes, "temporaries": m.temp_size_in_bytes, "peak": m.peak_memory_in_bytes}}
print(json.dumps(sizes))
"""
    env = os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_unknown_topology_and_a_mesh_that_does_not_divide(asked):
    unknown = asked("--topology", "v5e:2x5")
    assert unknown.returncode == 2 and "did you mean v5e:2x" in unknown.stderr
    uneven = asked("--topology", "v5e:2x4", "mesh.tensor=8")
    assert uneven.returncode == 2 and "tensor" in uneven.stderr and "Traceback" not in uneven.stderr


def test_what_does_not_fit_is_refused_with_exit_code_3(asked):
    wide = ("model.hf.hidden_size=1",)  # no such override: fields of a mapping are replaced as a whole
    assert asked("--topology", "v5e:1x1", *wide).returncode == 2
    config = json.dumps(hf(vocab_size=152_064, hidden_size=4096, intermediate_size=16_384, num_hidden_layers=24))
    done = asked("--topology", "v5e:1x1", f"model.hf={config}", "--json")
    assert done.returncode == 3, done.stderr
    plan = json.loads(done.stdout)
    assert plan["fits"] is False and plan["hbm_limit_gib"] == 15.75 and plan["refusal"]


def hf(**changes) -> dict:
    scope: dict = {}
    exec(CONFIG.split("def recipe")[0], scope)
    return scope["HF"] | changes


def test_micro_batches_compile(asked):
    """The compiler once moved the gradients' reductions out of the loop over micro-batches, and failed."""
    done = asked("--topology", "v5e:2x4", "train.rows_per_step=16", "train.rows_per_device=1", "--json")
    assert done.returncode == 0, done.stderr
