"""`stratos plan` with the real TPU compiler, on a model small enough to compile in seconds."""

import json
import os
import subprocess
import sys

import pytest
from plan_small import HF, PATIENCE, SMALL

from stratos_jax.plan import cache

pytestmark = pytest.mark.tpu_compiler
WANTED = (
    *("fits", "hbm_arguments_gib", "hbm_temporaries_gib", "hbm_peak_gib", "hbm_limit_gib", "host_gib"),
    *("estimated_cycles", "attention_tflops", "wire_gib", "wire_async_gib", "step_seconds"),
    *("tokens_per_second_per_chip", "mfu", "hours", "usd", "mesh", "remat"),
)
HUGE = json.dumps(
    HF | {"vocab_size": 32_000, "hidden_size": 4096, "intermediate_size": 16_384, "num_hidden_layers": 24}
)


@pytest.fixture(scope="module")
def first(asked):
    """The plan that most tests start from."""
    done = asked("--topology", "v5e:2x4", "--rows", "800", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_figures_are_those_of_the_compiled_step(asked, first):
    assert all(first[name] is not None for name in WANTED)
    direct = direct_compile()
    assert first["hbm_arguments_gib"] * 2**30 == direct["arguments"]
    assert first["hbm_temporaries_gib"] * 2**30 == direct["temporaries"]
    assert first["hbm_peak_gib"] * 2**30 == direct["peak"]
    assert first["num_steps"] == 300 and first["hours"] == pytest.approx(300 * first["step_seconds"] / 3600)
    parts = {name: size for name, size in first["hbm_split_gib"].items() if name != "code"}
    assert sum(parts.values()) == pytest.approx(first["hbm_peak_gib"])


def direct_compile() -> dict:
    """The same step compiled without the planner."""
    code = f"""
import json, runpy
from stratos_jax.model.config import read_architecture
from stratos_jax.train.aot import compile_for_topology
r = runpy.run_path({str(SMALL)!r})["recipe"]()
made = compile_for_topology(read_architecture(r.model.hf), r.model, r.train, r.mesh, "v5e:2x4", row_tokens=1024)
m = made.memory
sizes = {{"arguments": m.argument_size_in_bytes, "temporaries": m.temp_size_in_bytes, "peak": m.peak_memory_in_bytes}}
print(json.dumps(sizes))
"""
    return json.loads(python(code).stdout.splitlines()[-1])


def python(code: str) -> subprocess.CompletedProcess:
    env = os.environ | {"ALLOW_MULTIPLE_LIBTPU_LOAD": "true"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_a_plan_that_is_known_needs_neither_jax_nor_the_compiler(first, plan_cache):
    words = ["plan", str(SMALL), "--cache", str(plan_cache), "--topology", "v5e:2x4", "--rows", "800", "--json"]
    code = f"""
import sys
from stratos_jax.cli import main
sys.argv = ["stratos", *{words!r}]
try:
    code = main()
except SystemExit as stop:
    code = stop.code
print(sorted({{"jax", "flax", "numpy", "libtpu"}} & set(sys.modules)), code or 0)
"""
    *plan, loaded = python(code).stdout.splitlines()
    assert json.loads("".join(plan)) == first
    assert loaded == "[] 0"


def test_the_report_names_every_figure_and_explains_it(asked, first):
    done = asked("--topology", "v5e:2x4", "--rows", "800", "--explain")
    assert done.returncode == 0, done.stderr
    assert f"fits on v5e:2x4 (8 chips), {first['hbm_limit_gib'] - first['hbm_peak_gib']:.1f} GiB" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 140
    for word in ("peak", "activations", "cycles", "wire", "MFU", "step"):
        assert f"\n  {word}: " in done.stdout
    assert f"{first['num_steps']} steps" in done.stdout and f"${first['usd']:,.0f} at $1.20" in done.stdout


def test_prices_are_ones_own_where_they_are_given(asked, first):
    done = json.loads(asked(*"--topology v5e:2x4 --rows 800 --json --usd-per-chip-hour 2.4".split()).stdout)
    assert done["usd"] == pytest.approx(2 * first["usd"])


def test_unknown_topology_and_a_mesh_that_does_not_divide(asked):
    unknown = asked("--topology", "v5e:2x5")
    assert unknown.returncode == 2 and "did you mean v5e:2x" in unknown.stderr and "v6e:16x16" in unknown.stderr
    uneven = asked("--topology", "v5e:2x4", "mesh.tensor=8")
    assert uneven.returncode == 2 and "tensor" in uneven.stderr and "Traceback" not in uneven.stderr


def test_no_topology_at_all(asked):
    done = asked()
    assert done.returncode == 2 and "--topology" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--plot", "x.png"), "--plot needs --search"),
        (("--what", "decode", "--search"), "about training"),
        (("--what", "convert", "--roofline", "1.5"), "--roofline"),
        (("--topology", "v5e:2x4", "--rows", "0"), "--rows"),
        (("--topology", "v5e:2x4", "--calibrate", "nowhere"), "no such run"),
    ],
)
def test_options_that_make_no_sense(asked, words, said):
    done = asked(*words)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr


REFUSED = ("--topology", "v5e:2x2", f"model.hf={HUGE}", "--json")


@pytest.fixture(scope="module")
def refusal(asked):
    done = asked(*REFUSED)
    assert done.returncode == 3, done.stderr
    return json.loads(done.stdout)


def test_what_does_not_fit_is_refused_and_a_change_is_named(refusal):
    assert refusal["fits"] is False and refusal["hbm_limit_gib"] == 15.75 and refusal["refusal"]
    (named,) = refusal["remedies"]
    assert named["change"] and not named["checked"] and named["hbm_peak_gib"] < 15.75


def test_micro_batches_compile(asked):
    """The compiler once moved the gradients' reductions out of the loop over micro-batches, and failed."""
    done = asked("--topology", "v5e:2x4", "train.rows_per_step=16", "train.rows_per_device=1", "--json")
    assert done.returncode == 0, done.stderr


def test_without_the_compiler_the_extra_is_named(tmp_path):
    words = ["plan", str(SMALL), "--topology", "v5e:2x4", "--cache", str(tmp_path)]
    code = f"""
import sys
sys.modules["libtpu"] = None  # as if it were not installed
from stratos_jax.cli import main
sys.argv = ["stratos", *{words!r}]
raise SystemExit(main())
"""
    env = {name: value for name, value in os.environ.items() if name != "TPU_LIBRARY_PATH"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, env=env)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "stratos_jax[tpu]" in done.stderr and "Traceback" not in done.stderr


def test_what_the_cache_leaves_out_is_no_part_of_a_step():
    code = "import stratos_jax.train.aot, sys; print(*(m for m in sys.modules if m.startswith('stratos_jax.train.')))"
    loaded = {f"train/{name.rsplit('.', 1)[-1]}.py" for name in python(code).stdout.split()}
    assert "train/step.py" in loaded and not loaded & set(cache.APART)
