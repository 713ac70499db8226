"""The quickstart's config on a pod of four local processes: the losses of one process, and the same data."""

import json
import os
import socket
import subprocess
import sys

import pytest
from helpers import ROOT

from stratos_jax.store import jsonl

WORDS = ("curate.problems.procedural.problems=300", "curate.problems.procedural.held_out=18", "train.max_steps=12")
HOSTS = 4


def stratos(*words):
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "stratos_jax.cli", *words], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
    )


def wait(processes, seconds=600):
    for process in processes:
        _, errors = process.communicate(timeout=seconds)
        assert process.returncode == 0, errors[-3000:]


def losses(folder):
    return {r["step"]: r["loss"] for _, r in jsonl.read_jsonl(folder / "train" / "metrics.jsonl")}


@pytest.mark.slow
def test_four_processes_give_the_losses_of_one(tmp_path):
    base = tmp_path / "base"
    wait([stratos("run", "configs/quickstart.py", *WORDS, "--dir", str(base), "--to", "shards")])
    shards = str(base / "traces" / "shards")
    common = ("train", "configs/quickstart.py", *WORDS, "--shards", shards)
    wait([stratos(*common, "--dir", str(tmp_path / "one"))])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    pod = ("--dir", str(tmp_path / "four"), "--coordinator", address, "--num-hosts", str(HOSTS))
    wait([stratos(*common, *pod, "--host", str(host)) for host in range(HOSTS)])
    one, four = losses(tmp_path / "one"), losses(tmp_path / "four")
    assert one.keys() == four.keys() and len(one) == 12
    for step, loss in one.items():
        assert four[step] == pytest.approx(loss, rel=2e-5)
    mesh = json.loads((tmp_path / "four" / "train" / "manifest.json").read_text())["counts"]["mesh"]
    assert mesh["data"] * mesh["fsdp"] == HOSTS
