"""The same global batches on any number of hosts, through changes of their number and kills: real processes."""

import json
import pathlib
import random
import subprocess
import sys
import time

import pytest
import shards_data

from stratos_jax.shards import build, loader
from stratos_jax.shards.config import ShardsConfig, SourceConfig

SCRIPT = pathlib.Path(__file__).parent / "hosts_of_shards.py"
RUN = {"rows_per_step": 16, "seed": 11, "epochs": 3}


@pytest.fixture(scope="module", params=[None, pytest.param(16, marks=pytest.mark.slow)], ids=["plain", "balanced"])
def folder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hosts")
    path = shards_data.write(folder / "dataset.jsonl", shards_data.rows(400, words=(2, 60)))
    settings = ShardsConfig(
        sources=(SourceConfig(path=str(path)),), row_tokens=512, num_shards=4, balance_rows=request.param
    )
    tokenizer = shards_data.tiny_tokenizer(folder / "tokenizer")
    build.run(settings, folder / "shards", tokenizer_dir=tokenizer, workers=1)
    return folder / "shards"


def steps_of(folder) -> int:
    return loader.Loader(folder, **RUN).num_steps


class Hosts:
    """Host processes, kept between phases; each has a loader of its own."""

    def __init__(self, folder):
        self._command = [sys.executable, str(SCRIPT), str(folder), json.dumps(RUN)]
        self._alive: list[subprocess.Popen] = []

    def start(self, count: int) -> None:
        """Have `count` processes that are ready."""
        fresh = [
            subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count - len(self._alive))
        ]
        for process in fresh:
            assert process.stdout.readline() == "ready\n"
        self._alive += fresh

    def phase(self, count: int, begin: int, end: int, out: pathlib.Path, kill_after: float | None = None) -> None:
        """Let `count` hosts do steps [begin, end), or kill them all with -9 after a while."""
        self.start(count)
        working = self._alive[:count]
        for index, process in enumerate(working):
            pause = 0.0 if kill_after is None else 0.01
            order = {"index": index, "hosts": count, "begin": begin, "end": end, "pause": pause}
            process.stdin.write(json.dumps({**order, "out": f"{out}-{index}"}) + "\n")
            process.stdin.flush()
        if kill_after is None:
            for process in working:
                assert process.stdout.readline() == "done\n"
            return
        time.sleep(kill_after)
        for process in working:
            process.kill()
        self.stop(working)

    def stop(self, which: list[subprocess.Popen] | None = None) -> None:
        """End processes and close their pipes."""
        for process in list(self._alive if which is None else which):
            process.stdin.close()
            process.stdout.close()
            process.wait(300)
            self._alive.remove(process)


def hashes(files: list[pathlib.Path]) -> dict[int, list]:
    """The hashes of each step's rows, put together from all hosts."""
    found: dict[int, dict[int, list]] = {}
    for path in files:
        for line in path.read_text().splitlines():
            if not line.endswith("]]}"):
                continue  # torn by a kill
            record = json.loads(line)
            place = found.setdefault(record["step"], {})
            for index, row in enumerate(record["rows"], start=record["first"]):
                assert place.setdefault(index, row) == row, "a step that was done twice differs"
    return {step: [rows[i] for i in sorted(rows)] for step, rows in sorted(found.items())}


@pytest.fixture
def hosts(folder):
    made = Hosts(folder)
    yield made
    made.stop()


def play(hosts, out: pathlib.Path, phases) -> dict[int, list]:
    """Run phases of (hosts, begin, end) one after another."""
    out.mkdir()
    for number, (count, begin, end) in enumerate(phases):
        hosts.phase(count, begin, end, out / str(number))
    return hashes(sorted(out.iterdir()))


def test_one_two_four_and_eight_hosts_and_changes_between_them_see_the_same_batches(folder, hosts, tmp_path):
    steps = steps_of(folder)
    whole = play(hosts, tmp_path / "1", [[1, 0, steps]])
    assert len(whole) == steps and all(len(rows) == 16 for rows in whole.values())
    assert len({json.dumps(rows) for rows in whole.values()}) == steps, "no two steps are alike"
    for count in (2, 4, 8):
        assert play(hosts, tmp_path / str(count), [[count, 0, steps]]) == whole
    chance = random.Random(5)
    for trial in range(3):
        first, second = sorted(chance.sample(range(1, steps), 2))
        phases = [[4, 0, first], [2, first, second], [8, second, steps]]
        assert play(hosts, tmp_path / f"change{trial}", phases) == whole


@pytest.mark.slow
def test_hosts_killed_at_random_resume_on_other_counts_with_the_same_batches(folder, hosts, tmp_path):
    """After a kill the run goes on at the first step that some host lacks, on another number of hosts."""
    steps, chance, kills, begin = steps_of(folder), random.Random(2), 0, 0
    whole = play(hosts, tmp_path / "1", [[1, 0, steps]])
    out = tmp_path / "killed"
    out.mkdir()
    while kills < 6 and begin < steps:
        count = (4, 2, 8)[kills % 3]
        stem = out / f"{kills:02d}"
        hosts.phase(count, begin, steps, stem, kill_after=chance.uniform(0.05, 0.25))
        files = [out / f"{kills:02d}-{i}" for i in range(count)]
        done = [sum(x.endswith("]]}") for x in f.read_text().splitlines()) if f.exists() else 0 for f in files]
        begin, kills = begin + min(done), kills + 1
    hosts.phase(2, begin, steps, out / "last")
    assert hashes(sorted(out.iterdir())) == whole and kills > 0


FEED = """
import json, os, sys
import jax, numpy as np
jax.distributed.initialize(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from stratos_jax.shards import loader
from stratos_jax.train.feed import Feed
run = json.loads(sys.argv[5])
opened = loader.Loader(sys.argv[4], **run)
mesh = jax.make_mesh((4, 2), ("fsdp", "context"), axis_types=(AxisType.Auto,) * 2)
sharding = NamedSharding(mesh, PartitionSpec("fsdp", "context"))
whole = {step: opened.batch(step) for step in range(3, 6)}
asked, read = [], opened.read_rows
opened.read_rows = lambda rows: asked.extend(rows) or read(rows)
for step, batch in Feed(opened, dict.fromkeys(whole[3], sharding), 3, 6):
    for name, array in batch.items():
        for shard in array.addressable_shards:
            assert np.array_equal(np.asarray(shard.data), whole[step][name][shard.index]), (step, name)
print(json.dumps({"read": len(asked), "devices": jax.device_count()}))
"""


@pytest.mark.slow
def test_two_processes_of_one_mesh_each_read_their_own_rows(folder, tmp_path):
    import os
    import socket

    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": "4", "JAX_PLATFORMS": "cpu"}
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", FEED, address, "2", str(index), str(folder), json.dumps(RUN)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    shown = []
    for process in hosts:
        out, error = process.communicate(timeout=240)
        assert process.returncode == 0, error[-2000:]
        shown.append(json.loads(out.splitlines()[-1]))
    assert [s["devices"] for s in shown] == [8, 8]
    assert [s["read"] for s in shown] == [24, 24], "half of the rows of three steps each"
