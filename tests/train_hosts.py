"""Runs `stratos train` as several real processes on this machine, for tests that kill, stop and restart them."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

from stratos_jax import store

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
import training
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.train.config import CheckpointConfig

def recipe():
    return Recipe(
        name="hosts",
        shards=ShardsConfig(sources=(SourceConfig(path="unused"),), row_tokens=training.ROW),
        model=training.model_config(),
        mesh=MeshConfig(start_seconds=600.0, barrier_seconds=600.0, silence_seconds=30.0),
        train=training.train_config(
            max_steps=24, remat="none", checkpoint=CheckpointConfig(every_steps=4), watchdog_seconds=600.0
        ),
    )
"""


class Run:
    """One run folder, and the processes that work on it."""

    def __init__(self, folder: pathlib.Path, shards: pathlib.Path | str, cache: pathlib.Path, url: str | None = None):
        self.folder, self.shards, self.cache = folder, shards, cache
        self.url = url or str(folder)  # where the run is kept; `folder` holds its config and what processes printed
        self.local = folder / "local"  # the temporary folder of the machine, for a run in a bucket
        self.processes: list[subprocess.Popen] = []
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.py").write_text(CONFIG.format(tests=str(pathlib.Path(__file__).parent)))

    def start(self, hosts: int, devices: int, *overrides: str, preexec=None) -> None:
        """Start all processes of the run."""
        port = free_port()
        self.processes, self.logs = [], []
        for host in range(hosts):
            log = self.folder / f"log-{time.monotonic_ns()}-{host}.txt"
            command = [sys.executable, "-m", "stratos_jax.cli", "train", str(self.folder / "config.py"), *overrides]
            command += ["--dir", self.url, "--shards", str(self.shards)]
            if hosts > 1:
                command += ["--coordinator", f"127.0.0.1:{port}", "--num-hosts", str(hosts), "--host", str(host)]
            env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
            env |= {"JAX_COMPILATION_CACHE_DIR": str(self.cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            if store.is_remote(self.url):
                self.local.mkdir(exist_ok=True)
                env["TMPDIR"] = str(self.local)
            with open(log, "wb") as file:
                process = subprocess.Popen(command, env=env, stdout=file, stderr=file, preexec_fn=preexec)
            self.processes.append(process)
            self.logs.append(log)

    def wait(self, seconds: float = 600.0) -> list[int]:
        """Exit codes of all processes."""
        deadline = time.monotonic() + seconds
        try:
            return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]
        except subprocess.TimeoutExpired:
            raise AssertionError(f"a process does not end\n{self.output()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """End what still runs."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()

    def wait_for_step(self, step: int, seconds: float = 600.0) -> None:
        """Until the metrics have that step."""
        deadline = time.monotonic() + seconds
        while len(self.losses()) < step:
            assert time.monotonic() < deadline, f"step {step} does not come\n{self.output()}"
            assert all(process.poll() is None for process in self.processes), self.output()
            time.sleep(0.02)

    def wait_for_checkpoint(self, seconds: float = 600.0) -> None:
        """Until a step is saved whole, so that there is something to go on from."""
        deadline = time.monotonic() + seconds
        while not any(file.url.endswith("/integrity.json") for file in self.files()):
            assert time.monotonic() < deadline, f"no checkpoint comes\n{self.output()}"
            assert all(process.poll() is None for process in self.processes), self.output()
            time.sleep(0.02)

    def files(self) -> list[store.Stat]:
        """What the run folder holds."""
        try:
            return store.list_files(self.url)
        except store.Missing:
            return []

    def losses(self) -> list[float]:
        """Loss of each step so far."""
        path = self.folder / "train" / "metrics.jsonl"
        if store.is_remote(self.url):
            path = next(self.local.glob("stratos_run_*/metrics.jsonl"), path)
        lines = path.read_text().split("\n")[:-1] if path.exists() else []
        return [json.loads(line)["loss"] for line in lines]

    def output(self, host: int | None = None) -> str:
        """What the processes printed."""
        logs = self.logs if host is None else [self.logs[host]]
        return "\n".join(f"--- {log.name}\n{log.read_text(errors='replace')[-6000:]}" for log in logs)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
