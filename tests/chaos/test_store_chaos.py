"""Uploads under faults, killed with -9 at random and run again: nothing lost, corrupt, doubled or half-visible."""

import dataclasses
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import threading

import pytest
from fake_gcs.faults import Faults
from fake_gcs.objects import Objects

from stratos_jax import store
from stratos_jax.store import gcs, manifest

UPLOADER = pathlib.Path(__file__).with_name("uploader_of_store_chaos.py")


class WatchedObjects(Objects):
    """Looks, after every change, whether a manifest is visible whose files are not all there and right."""

    half_visible = 0

    def insert(self, bucket, name, body, metadata, query):
        with self._lock:
            made = super().insert(bucket, name, body, metadata, query)
            self._look(name)
            return made

    def delete(self, bucket, name, query):
        with self._lock:
            super().delete(bucket, name, query)
            self._look(name)

    def _look(self, name):
        top, there = name.split("/")[0], self._buckets["test-bucket"]
        marker = there.get(f"{top}/manifest.json")
        if marker is not None:
            listed = json.loads(marker.body.read(0, marker.body.size))["files"]
            found = {file["path"]: there.get(f"{top}/{file['path']}") for file in listed}
            right = all(found[f["path"]] and found[f["path"]].body.crc32c == f["crc32c"] for f in listed)
            self.half_visible += not right


class Killer(Faults):
    """Kills the uploader when its n-th request arrives, some moments later."""

    def __init__(self, seed):
        super().__init__(seed)
        self.victim, self.countdown, self.delay = 0, 0, 0.0

    def pick(self, request):
        with self._lock:
            self.countdown -= 1
            if self.countdown == 0 and self.victim:
                threading.Timer(self.delay, _kill, (self.victim,)).start()
        return super().pick(request)


def _kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it had finished


@dataclasses.dataclass
class Tally:
    """What came of the uploads."""

    uploads: int = 0
    kills: int = 0
    faults: int = 0
    lost: int = 0
    corrupt: int = 0
    half_visible: int = 0
    sent_again: int = 0  # objects that had arrived before a kill, and were sent once more


class Uploads:
    """The forking process, for one upload after another."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, str(UPLOADER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, local, url, *, replace=False, killer=None, down=False):
        """Transfer once; returns the status that the process ended with."""
        assert self._process.stdin and self._process.stdout
        asked = {"local": str(local), "url": url, "replace": replace, "down": down}
        print(json.dumps(asked), file=self._process.stdin, flush=True)
        pid = int(self._process.stdout.readline())
        if killer:
            killer(pid)
        return int(self._process.stdout.readline())

    def close(self):
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def add_faults(faults):
    """About one request in ten goes wrong."""
    for status in (408, 429, 500, 503):
        faults.add("status", status=status, times=None, chance=0.015)
    for kind in ("reset", "drop_reply"):
        faults.add(kind, times=None, chance=0.02)
    for kind in ("reset_reply", "truncate", "damage"):
        faults.add(kind, "alt=media", times=None, chance=0.02)
    faults.add("damage_upload", "upload_id", times=None, chance=0.1)


def make_tree(folder, rng):
    """Random files, one in five trees with one that goes up in chunks."""
    for i in range(rng.randint(1, 25)):
        store.write_bytes(folder / f"d{i % 3}/f{i}.bin", rng.randbytes(rng.choice((0, 1, 100, 5000, 200_000))))
    if rng.random() < 0.2:
        store.write_bytes(folder / "large.bin", rng.randbytes(9 << 20))
    if rng.random() < 0.5:
        manifest.write_manifest(folder, manifest.make_manifest(folder, stage="chaos"))


def one_upload(server, uploads, folder, url, rng, tally):
    """Upload until it is done, with kills on the way; then compare what is there, and what can be fetched."""
    make_tree(folder / "in", rng)
    replace = rng.random() < 0.3
    if replace:  # another complete tree is there before
        make_tree(folder / "old", rng)
        store.upload_tree(folder / "old", url)
    arrived, faults = {}, server.faults
    for _ in range(rng.randint(1, 3)):

        def kill_later(pid):
            faults.countdown, faults.delay = rng.randint(1, 30), rng.uniform(0, 0.02)
            faults.victim = pid

        status = uploads.run(folder / "in", url, replace=replace, killer=kill_later)
        faults.victim = 0
        tally.kills += os.WIFSIGNALED(status)
        assert os.WIFSIGNALED(status) or status == 0
        wanted = {f.path: f.crc32c for f in manifest.make_manifest(folder / "in", stage="x").files}
        there = {
            o.name.split("/", 1)[1]: o for o in server.objects.listing("test-bucket", {"prefix": f"{url[17:]}/"})[0]
        }
        right = {
            name: there[name].generation for name in wanted if name in there and there[name].body.crc32c == wanted[name]
        }
        tally.sent_again += len([1 for name in arrived if right.get(name) != arrived[name]])
        arrived = right
    assert uploads.run(folder / "in", url, replace=replace) == 0
    problems = manifest.verify(url)
    assert not problems, problems
    store.download_tree(url, folder / "out")
    for file in wanted:
        if not (folder / "out" / file).is_file():
            tally.lost += 1
        elif (folder / "out" / file).read_bytes() != (folder / "in" / file).read_bytes():
            tally.corrupt += 1
    tally.uploads += 1


def chaos(server, folder, monkeypatch, number, seed):
    """`number` uploads; returns the tally."""
    rng, tally = random.Random(seed), Tally()
    server.objects, server.faults = WatchedObjects(), Killer(seed)
    server.objects.create_bucket("test-bucket")
    add_faults(server.faults)
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_delay(initial=0.02, maximum=1.0, multiplier=2.0))
    uploads = Uploads()
    try:
        for i in range(number):
            one_upload(server, uploads, folder / str(i), f"gs://test-bucket/t{i}", rng, tally)
    finally:
        uploads.close()
    tally.faults = sum(rule.fired for rule in server.faults.rules)
    tally.half_visible = server.objects.half_visible
    return tally


def check(tally, number):
    print(tally)
    assert tally.uploads == number and tally.kills >= number // 3 and tally.faults >= number
    assert (tally.lost, tally.corrupt, tally.half_visible, tally.sent_again) == (0, 0, 0, 0), tally


def test_twenty_uploads(fake_gcs, tmp_path, monkeypatch):
    check(chaos(fake_gcs, tmp_path, monkeypatch, 20, seed=7), 20)


@pytest.mark.slow
def test_two_hundred_uploads(fake_gcs, tmp_path, monkeypatch):
    check(chaos(fake_gcs, tmp_path, monkeypatch, 200, seed=1), 200)


def test_downloads_that_are_killed_go_on(fake_gcs, tmp_path):
    """A killed download has no manifest; the next one fetches only what is missing."""
    fake_gcs.faults, rng = Killer(3), random.Random(3)
    for i in range(30):
        store.write_bytes(tmp_path / f"in/f{i}", rng.randbytes(20_000))
    store.upload_tree(tmp_path / "in", "gs://test-bucket/t")
    uploads, kills, whole = Uploads(), 0, 0
    try:
        for i in range(8):
            out = tmp_path / f"out{i}"

            def kill_later(pid):
                fake_gcs.faults.countdown, fake_gcs.faults.delay = rng.randint(4, 30), rng.uniform(0, 0.01)
                fake_gcs.faults.victim = pid

            kills += os.WIFSIGNALED(uploads.run(out, "gs://test-bucket/t", killer=kill_later, down=True))
            fake_gcs.faults.victim = 0
            marked = manifest.read_manifest(out) is not None
            assert not marked or not manifest.verify(out, deep=True)
            there = {file.url for file in store.list_files(out)} if out.exists() else set()
            whole += len(there)
            fake_gcs.requests.clear()
            assert uploads.run(out, "gs://test-bucket/t", down=True) == 0
            fetched = {path for _, path, _ in fake_gcs.requests if "alt=media" in path and "manifest" not in path}
            assert len(fetched) == 30 - len([name for name in there if not name.endswith(manifest.MANIFEST)])
            assert manifest.verify(out, deep=True) == []
    finally:
        uploads.close()
    assert kills >= 3 and whole


def test_the_watcher_sees_a_manifest_that_comes_too_early(fake_gcs, tmp_path, monkeypatch):
    """The guard itself: an uploader that writes the manifest first is found out."""
    fake_gcs.objects = WatchedObjects()
    fake_gcs.objects.create_bucket("test-bucket")
    store.write_text(tmp_path / "in/x", "1")
    manifest.write_manifest("gs://test-bucket/t", manifest.make_manifest(tmp_path / "in", stage="x"))
    assert fake_gcs.objects.half_visible == 1
    store.write_text("gs://test-bucket/t/x", "1")
    assert fake_gcs.objects.half_visible == 1
    store.write_text("gs://test-bucket/t/x", "2")
    assert fake_gcs.objects.half_visible == 2
