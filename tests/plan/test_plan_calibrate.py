"""What a run teaches the estimate: the ratio of times and of memory, kept and used afterwards."""

import dataclasses
import json

import numpy as np
import pytest
from plan_small import recipe

from stratos_jax.plan import calibrate, gpu
from stratos_jax.plan.program import Job
from stratos_jax.train.metrics import Rates, Recorder
from stratos_jax.types import UserError, to_json


@pytest.fixture
def plan():
    r = recipe()
    job = Job(model=r.model, mesh=r.mesh, train=r.train, row_tokens=1024)
    return gpu.plan(job, "h100:8", num_rows=800, price=2.0, ratio=gpu.PUBLISHED)


@pytest.fixture
def run(tmp_path):
    """A folder as the trainer writes it: its own recorder, a clock of ours."""
    folder = tmp_path / "run"
    folder.mkdir()
    rates = Rates(flops=lambda tokens, pairs: tokens, peak_flops=None, memory=lambda: 3.0)
    recorder = Recorder(rates, ["w"])
    values = {"leaf_norms": np.ones(1), "tokens": np.float32(8192), "pairs": np.float32(1), "loss": np.float32(1)}
    for step in range(12):
        recorder._pending.append((step, values))
    with pytest.MonkeyPatch.context() as patch:
        clock = iter(np.arange(12) * 0.5)
        patch.setattr("time.monotonic", lambda: float(next(clock)))
        rows = recorder.drain()
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_times_and_memory_of_a_run_are_kept_and_used(plan, run, tmp_path):
    found = calibrate.compare(plan, str(run), "h100", tmp_path / "cache")
    assert found.step_seconds == pytest.approx(0.5)
    assert found.hours == pytest.approx(plan.num_steps * 0.5 / 3600) and found.usd == pytest.approx(found.hours * 16)
    assert found.mfu == pytest.approx(plan.mfu * plan.step_seconds / 0.5)
    ratio = calibrate.ratio_of("h100", tmp_path / "cache")
    assert ratio == found.ratio and ratio.memory == pytest.approx(3.0 / plan.hbm_peak_gib)
    assert ratio.value == pytest.approx(0.5 / plan.step_seconds_parts["model FLOPs at peak"])
    assert calibrate.ratio_of("a100", tmp_path / "cache", gpu.PUBLISHED) == gpu.PUBLISHED


def test_a_second_run_with_the_ratio_gives_the_measured_time(plan, run, tmp_path):
    calibrate.compare(plan, str(run), "h100", tmp_path)
    r = recipe()
    job = Job(model=r.model, mesh=r.mesh, train=r.train, row_tokens=1024)
    again = gpu.plan(job, "h100:8", num_rows=800, price=2.0, ratio=calibrate.ratio_of("h100", tmp_path))
    assert again.step_seconds == pytest.approx(0.5)


def test_a_run_of_another_shape_is_refused(plan, run, tmp_path):
    r = recipe()
    other = dataclasses.replace(r, train=dataclasses.replace(r.train, rows_per_step=16))
    (run / "recipe.json").write_text(json.dumps(to_json(other)))
    with pytest.raises(UserError, match="another step"):
        calibrate.compare(plan, str(run), "h100", tmp_path)


@pytest.mark.parametrize("rows", ["", '{"step": 1, "seconds": 1.0}\n{"step": 2, "seconds": 1.0}\n'])
def test_a_run_without_timed_steps_is_refused(plan, tmp_path, rows):
    (tmp_path / "metrics.jsonl").write_text(rows)
    with pytest.raises(UserError, match="no timed steps"):
        calibrate.compare(plan, str(tmp_path), "h100", tmp_path)
    with pytest.raises(UserError, match="no metrics"):
        calibrate.compare(plan, str(tmp_path / "empty"), "h100", tmp_path)


def test_what_does_not_fit_teaches_nothing(plan, run, tmp_path):
    with pytest.raises(UserError, match="does not fit"):
        calibrate.compare(dataclasses.replace(plan, fits=False), str(run), "h100", tmp_path)
