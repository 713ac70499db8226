"""Real processes that are killed, stopped and restarted end with the losses of an undisturbed run."""

import json
import os
import pathlib
import resource
import shutil
import signal

import numpy as np
import pytest
import train_hosts
import training

from stratos_jax import store

pytestmark = pytest.mark.slow
STEPS = 24


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return training.build_shards(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, shards, cache):
    run = train_hosts.Run(tmp_path_factory.mktemp("undisturbed"), shards, cache)
    run.start(2, 2)
    assert run.wait() == [0, 0], run.output()
    assert len(run.losses()) == STEPS
    return run.losses()


@pytest.fixture
def run(tmp_path, shards, cache):
    run = train_hosts.Run(tmp_path, shards, cache)
    yield run
    run.kill()


def finish(run, hosts=2, devices=2):
    run.start(hosts, devices)
    assert run.wait() == [0] * hosts, run.output()
    return run.losses()


def test_a_killed_host_ends_all_and_the_run_goes_on_as_if_nothing_had_been(run, undisturbed):
    run.start(2, 2)
    run.wait_for_step(6)
    run.wait_for_checkpoint()
    run.processes[1].kill()
    codes = run.wait()
    assert codes[1] == -signal.SIGKILL and codes[0] != 0, run.output()
    assert finish(run) == undisturbed
    assert "goes on from step" in run.output(0)


def test_sigterm_to_one_host_saves_on_all_and_exits_42(run, undisturbed):
    run.start(2, 2)
    run.wait_for_step(5)
    run.processes[1].send_signal(signal.SIGTERM)
    assert run.wait() == [42, 42], run.output()
    stopped = len(run.losses())
    assert (run.folder / "train" / "checkpoints" / str(stopped) / "integrity.json").exists()
    assert finish(run) == undisturbed
    assert f"goes on from step {stopped}" in run.output(0)


def test_sigterm_during_compilation_exits_42_at_once(run):
    run.start(1, 2)
    while "steps of" not in run.output():
        assert run.processes[0].poll() is None, run.output()
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.wait(60) == [42]
    assert "nothing to save" in run.output() or run.losses()


def test_a_hung_host_is_named_within_the_time_out(run):
    run.start(2, 2, "train.watchdog_seconds=45", "mesh.silence_seconds=600", "train.max_steps=81")
    run.wait_for_step(4)
    os.kill(run.processes[1].pid, signal.SIGSTOP)
    code = run.processes[0].wait(150)
    assert code == 42, run.output(0)
    assert "host 1" in run.output(0) and "no progress" in run.output(0)
    assert "Thread 0x" in run.output(0)  # the stacks


def test_four_hosts_become_two(run, undisturbed):
    run.start(4, 1)
    run.wait_for_step(5)
    run.processes[2].send_signal(signal.SIGTERM)
    assert run.wait() == [42] * 4, run.output()
    np.testing.assert_allclose(finish(run), undisturbed, rtol=2e-5)


def test_a_flipped_bit_in_the_newest_checkpoint_costs_some_steps_and_nothing_else(run, undisturbed):
    run.start(2, 2)
    run.wait_for_step(10)
    run.processes[0].send_signal(signal.SIGTERM)
    assert run.wait() == [42, 42], run.output()
    newest = max((run.folder / "train" / "checkpoints").iterdir(), key=lambda path: int(path.name))
    flip_a_bit(max((p for p in newest.rglob("*") if p.is_file()), key=lambda path: path.stat().st_size))
    assert finish(run) == undisturbed
    assert f"step {newest.name} is passed over" in run.output(0)


def flip_a_bit(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_full_disk_stops_the_run_and_loses_nothing(run, undisturbed):
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # less than a checkpoint
    run.start(1, 2, preexec=limit)
    (code,) = run.wait()
    assert code not in (0, 42), run.output()
    assert not (run.folder / "train" / "manifest.json").exists()
    np.testing.assert_allclose(finish(run), undisturbed, rtol=2e-5)


def test_a_run_in_a_failing_bucket_is_killed_and_another_machine_goes_on(
    tmp_path, shards, cache, undisturbed, fake_gcs
):
    """Rows, checkpoints and metrics are in gs://; nothing that a machine had on its disk comes along."""
    store.upload_tree(shards, "gs://test-bucket/shards")
    for kind, chance in (("status", 0.05), ("reset", 0.02), ("drop_reply", 0.02), ("truncate", 0.02)):
        fake_gcs.faults.add(kind, times=None, chance=chance)
    run = train_hosts.Run(tmp_path / "run", "gs://test-bucket/shards", cache, url="gs://test-bucket/run")
    try:
        run.start(2, 2)
        run.wait_for_checkpoint()
        run.processes[1].kill()
        codes = run.wait()
        assert codes[1] == -signal.SIGKILL and codes[0] != 0, run.output()
        shutil.rmtree(run.local)
        run.start(2, 2)
        assert run.wait() == [0, 0], run.output()
        assert "goes on from step" in run.output(0)
    finally:
        run.kill()
    assert sum(rule.fired for rule in fake_gcs.faults.rules) > 20
    fake_gcs.faults.clear()
    metrics = store.read_text("gs://test-bucket/run/train/metrics.jsonl").splitlines()
    assert [json.loads(line)["loss"] for line in metrics] == undisturbed
