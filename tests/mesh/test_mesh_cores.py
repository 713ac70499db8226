"""A CPU as the device: how many devices its cores make, and a malloc that keeps a step's buffers."""

import os
import platform
import subprocess
import sys

import pytest

from stratos_jax.mesh import cores

PROGRAM = """
import ctypes, os, resource, sys
from stratos_jax.mesh import cores

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
print("start", os.getpid(), sys.argv[1:], flush=True)
if sys.argv[1] == "keep":
    cores.keep_memory()
for turn in range(6):
    if turn == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    buffer = libc.malloc(1 << 26)
    ctypes.memset(buffer, 1, 1 << 26)
    libc.free(buffer)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize(
    ("rows", "devices"), [([8], "8"), ([30], "15"), ([8, 12], "4"), ([7], "7"), ([17], "1"), ([32], "16"), ([0], "1")]
)
def test_as_many_devices_as_cores_can_share_the_rows(monkeypatch, rows, devices):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setenv(cores.DEVICES, "gone afterwards")
    monkeypatch.delenv(cores.DEVICES)
    cores.one_device_per_core(rows)
    assert os.environ[cores.DEVICES] == devices


@pytest.mark.parametrize(
    "choice", [(cores.DEVICES, "3"), ("XLA_FLAGS", f"{cores.FLAG}=3"), ("TPU_WORKER_HOSTNAMES", "a,b")]
)
def test_what_someone_chose_stays(monkeypatch, choice):
    monkeypatch.delenv(cores.DEVICES)
    monkeypatch.setenv(*choice)
    before = dict(os.environ)
    cores.one_device_per_core([8])
    assert dict(os.environ) == before


def program(tmp_path, *words: str, **env: str) -> list[str]:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environment = {**os.environ, "PYTHONPATH": root, **env}
    command = [sys.executable, str(path), *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_memory_is_kept_by_one_new_start_of_the_same_program(tmp_path):
    first, second, faults = program(tmp_path, "keep", "a b")
    assert first == second and first.endswith("['keep', 'a b']")  # same process, same words
    assert int(faults) < 1_000 < int(program(tmp_path, "leave")[-1])


def test_a_malloc_that_someone_tuned_stays(tmp_path):
    assert len(program(tmp_path, "keep", GLIBC_TUNABLES="glibc.malloc.arena_max=2")) == 2
