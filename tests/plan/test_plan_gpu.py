"""GPU targets: arithmetic, and said to be."""

import json

import pytest

from stratos_jax.plan import gpu
from stratos_jax.types import UserError


def test_a_small_run_fits_and_is_marked(asked):
    done = asked("--topology", "h100:8", "--rows", "800", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["analytic"] is True and plan["fits"] and plan["num_steps"] == 300
    assert plan["mfu"] == pytest.approx(0.37) and plan["usd"] == pytest.approx(plan["hours"] * 8 * 2.96)
    text = asked("--topology", "h100:8", "--rows", "800").stdout
    assert text.startswith("ANALYTIC ESTIMATE: should fit") and "37% of peak" in text


def test_step_time_is_model_flops_at_the_stated_share(asked):
    plan = json.loads(asked("--topology", "a100:4", "--json").stdout)
    assert plan["step_seconds"] == pytest.approx(plan["model_tflops"] / 312 / 0.37)
    assert plan["usd"] is None


def test_what_should_not_fit_exits_with_3(asked):
    hf = {"vocab_size": 152_064, "hidden_size": 8192, "intermediate_size": 32_768, "num_hidden_layers": 64}
    from plan_small import HF

    done = asked("--topology", "h100:8", f"model.hf={json.dumps(HF | hf)}")
    assert done.returncode == 3 and "should not fit" in done.stdout


@pytest.mark.parametrize("name", ["h100", "h100:0", "h100:8x8", "h100:"])
def test_names(name):
    with pytest.raises(UserError, match="KIND:NUMBER"):
        gpu.parse(name)
