"""Real processes: killed while saving or converting, out of disk, and saved by two hosts for one."""

import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from helpers import ROOT

from stratos_jax import checkpoint

SAVER = """
import sys, numpy as np, jax.numpy as jnp
from stratos_jax import checkpoint
folder = sys.argv[1]
start = (checkpoint.newest(folder) or 0) + 1
with checkpoint.Checkpointer(folder, keep_last=2) as checkpointer:
    for step in range(start, start + 200):
        checkpointer.save(step, {"w": jnp.full((64, 256), step, jnp.float32), "step": np.int32(step)}, {"n": step})
        print(step, flush=True)
"""
FULL = """
import resource, signal, sys, numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from stratos_jax import checkpoint
from stratos_jax.types import UserError
tree = lambda step: {"w": np.random.default_rng(step).standard_normal((64, 256)).astype(np.float32)}
checkpoint.save(sys.argv[1], 1, tree(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    checkpoint.save(sys.argv[1], 2, tree(2))
except UserError as error:
    print(error); sys.exit(2)
"""
HOST = """
import sys, jax, numpy as np, jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec as P
jax.distributed.initialize(sys.argv[2], 2, int(sys.argv[3]))
from stratos_jax import checkpoint
mesh = jax.make_mesh((4,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))
whole = np.arange(32, dtype=np.float32).reshape(8, 4)
place = NamedSharding(mesh, P("x"))
with checkpoint.Checkpointer(sys.argv[1]) as checkpointer:
    for step in (1, 2):
        make = lambda index: whole[index] * step
        checkpointer.save(step, {"w": jax.make_array_from_callback(whole.shape, place, make)}, {"n": step})
from jax.experimental import multihost_utils
multihost_utils.sync_global_devices("saved")
tree, metadata = checkpoint.restore(sys.argv[1], {"w": jax.ShapeDtypeStruct((8, 4), "float32", sharding=place)})
assert all((np.asarray(s.data) == whole[s.index] * 2).all() for s in tree["w"].addressable_shards)
multihost_utils.sync_global_devices("restored")
if jax.process_index() == 0:
    import pathlib
    biggest = max((pathlib.Path(sys.argv[1]) / "2").rglob("*"), key=lambda p: p.is_file() and p.stat().st_size)
    biggest.write_bytes(b"")
multihost_utils.sync_global_devices("damaged")
tree, metadata = checkpoint.restore(sys.argv[1], {"w": jax.ShapeDtypeStruct((8, 4), "float32", sharding=place)})
assert all((np.asarray(s.data) == whole[s.index]).all() for s in tree["w"].addressable_shards)
print(metadata["step"], list(metadata["passed_over"]))
"""


def start(code: str, *words: object, devices: int = 1) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def test_killed_while_saving_again_and_again(tmp_path):
    """Whatever the moment, the newest step that stands is whole, and the next process goes on from it."""
    rng, newest = random.Random(0), 0
    for _ in range(4):
        process = start(SAVER, tmp_path)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 2.0))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        like = {"w": jax.ShapeDtypeStruct((64, 256), "float32"), "step": jax.ShapeDtypeStruct((), "int32")}
        found = checkpoint.steps(tmp_path)
        if not found:  # killed within the very first save
            continue
        assert checkpoint.verify(tmp_path, deep=True) == []
        tree, metadata = checkpoint.restore(tmp_path, like)
        assert np.all(np.asarray(tree["w"]) == metadata["step"]) and metadata["n"] == metadata["step"] == found[-1]
        assert metadata["passed_over"] == {} and found[-1] >= newest and len(found) <= 3
        newest = found[-1]
    assert newest > 0


def test_a_full_disk_leaves_the_step_before(tmp_path):
    process = start(FULL, tmp_path)
    said, errors = process.communicate(timeout=100)
    assert process.returncode == 2, errors[-2000:]
    assert "file is larger than" in said
    assert checkpoint.steps(tmp_path) == [1] and checkpoint.verify(tmp_path, deep=True) == []


def test_two_hosts_save_and_agree_on_damage_and_one_restores(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    hosts = [start(HOST, tmp_path, address, index, devices=2) for index in range(2)]
    for host in hosts:
        said, errors = host.communicate(timeout=110)
        assert host.returncode == 0, errors[-3000:]
        assert said.strip().splitlines()[-1] == "1 ['2']"
    tree, metadata = checkpoint.restore(tmp_path, {"w": jax.ShapeDtypeStruct((8, 4), "float32")}, step=1)
    assert np.array_equal(tree["w"], np.arange(32, dtype=np.float32).reshape(8, 4)) and metadata["n"] == 1


@pytest.mark.parametrize("verb", ["from_hf", "to_hf"])
def test_killed_while_converting_leaves_nothing_to_load(tmp_path, verb):
    from hf_folders import write_folder

    from stratos_jax import convert
    from stratos_jax.convert.config import ConvertConfig

    keep = ConvertConfig(dtype="keep", proof=False)
    source: pathlib.Path = write_folder(tmp_path / "hf")
    if verb == "to_hf":
        convert.from_hf(source, tmp_path / "ckpt", keep)
        source = tmp_path / "ckpt"
    code = (
        "import sys, os, signal\n"
        "from stratos_jax import convert\n"
        "from stratos_jax.convert.config import ConvertConfig\n"
        "die = lambda done, total: os.kill(os.getpid(), signal.SIGKILL) if done > total // 2 else None\n"
        f"convert.{verb}(sys.argv[1], sys.argv[2], ConvertConfig(dtype='keep', proof=False), progress=die)\n"
    )
    process = start(code, source, tmp_path / "out")
    process.communicate(timeout=100)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    report = getattr(convert, verb)(source, tmp_path / "out", keep)
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]  # what was left is cleared away
    assert json.dumps(report) and (tmp_path / "out" / "conversion_report.json").exists()
