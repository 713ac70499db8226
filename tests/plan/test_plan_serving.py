"""The engine's steps on a TPU that is not here, and what an evaluation and a conversion cost."""

import json

import pytest
from plan_small import HF

TPU = ("--topology", "v6e:1x1")


@pytest.mark.tpu_compiler
def test_decode_fits_and_its_figures_hang_together(asked):
    done = asked("--what", "decode", *TPU, "engine.batch_size=8", "--prompt-tokens", "256", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["cache_tokens"] == 256 + 1024 and plan["batch_size"] == 8
    cache = 8 * plan["cache_tokens"] * 2 * 2 * 2 * 128 * 2  # keys and values, layers, heads, head size, bfloat16
    assert plan["hbm_split_gib"]["cache"] * 2**30 == cache
    assert plan["hbm_arguments_gib"] >= plan["hbm_split_gib"]["weights"] + plan["hbm_split_gib"]["cache"]
    assert plan["tokens_per_second"] == pytest.approx(8 / plan["step_seconds"])
    assert plan["estimated_cycles"] > 0 and 0 < plan["bandwidth_share"] <= 1
    usd = 2.7 / 3600 / plan["tokens_per_second"] * 1e6
    assert plan["usd_per_million_tokens"] == pytest.approx(usd)


@pytest.mark.tpu_compiler
def test_prefill_runs_the_attention_kernel(asked):
    done = asked("--what", "prefill", *TPU, "engine.batch_size=8", "--prompt-tokens", "512", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["step_seconds_parts"]["attention"] > 0 and 0 < plan["mfu"] < 1
    assert plan["tokens_per_second"] == pytest.approx(8 * 512 / plan["step_seconds"])


@pytest.mark.tpu_compiler
def test_a_cache_that_does_not_fit_is_refused_with_a_batch_that_does(asked):
    hf = json.dumps(HF | {"num_hidden_layers": 32, "max_position_embeddings": 32_768})
    long = ("engine.batch_size=128", "evaluate.sampling.max_tokens=32000", f"model.hf={hf}")
    done = asked("--what", "decode", *TPU, *long, "--json")
    assert done.returncode == 3, done.stderr
    plan = json.loads(done.stdout)
    (change,) = plan["remedies"]
    words = [w for w in long if not w.startswith("engine.batch_size")]
    assert asked("--what", "decode", *TPU, *words, *change.split()).returncode == 0


def test_hours_of_the_suite_by_hand(asked):
    done = asked("--what", "evaluate", *TPU, "--roofline", "0.5", "--answer-tokens", "1000", "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["samples"] == {"AIME24": 30} and plan["answer_tokens"] == {"AIME24": 1000}
    layer = 4 * 256 * 256 + 3 * 256 * 512  # q, k, v, o and the MLP
    weights = 2 * (2 * layer + 2 * 1024 * 256)
    cache = plan["batch_size"] * plan["cache_tokens"] * 2 * 2 * 2 * 128 * 2
    step = (weights + cache) / 1640e9 / 0.5
    assert plan["tokens_per_second"] == pytest.approx(plan["batch_size"] / step)
    assert plan["hours"] == pytest.approx(30_000 / plan["tokens_per_second"] / 3600, rel=0.2)  # and the prompts
    assert plan["usd"] == pytest.approx(plan["hours"] * 2.7)


def test_idle_chips_are_said(asked):
    text = asked("--what", "evaluate", "--topology", "v6e:2x2").stdout
    assert "one device of the slice, the others idle" in text and "on v6e:1x1" in text


def test_converting(asked):
    plan = json.loads(asked("--what", "convert", "--disk-gb-s", "2", "--roofline", "0.5", "--json").stdout)
    bytes_moved = (plan["read_gib"] + plan["written_gib"]) * 2**30
    assert plan["hours"] == pytest.approx(bytes_moved / 1e9 / 3600)
