"""A build to gs:// that is killed again and again, with faults in the bucket, ends in the same bytes."""

import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import pytest
import shards_data

from stratos_jax import store
from stratos_jax.shards import build, loader, verify
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.store import gcs
from stratos_jax.types import UserError

URL = "gs://test-bucket/run/shards"
BUILD = """
import json, sys, time
import grain, tensorflow_datasets, transformers
from stratos_jax.shards import build, features, tokenize
from stratos_jax.shards.config import ShardsConfig, SourceConfig
tokenize.CHUNK_ROWS = 16
job = json.loads(sys.argv[1])
settings = ShardsConfig(sources=(SourceConfig(path=job["source"]),), row_tokens=512, num_shards=6)
features.prepare(512)
tokenize.open_tokenizer(job["tokenizer"])
print("ready", flush=True)
sys.stdin.readline()
start = time.monotonic()
build.run(settings, job["url"], tokenizer_dir=job["tokenizer"], workers=1, scratch_dir=job["scratch"])
print(time.monotonic() - start, flush=True)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gcs")
    shards_data.write(folder / "dataset.jsonl", shards_data.rows(300))
    shards_data.tiny_tokenizer(folder / "tokenizer")
    return folder


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    """The client's own retries, sooner."""
    monkeypatch.setattr(gcs, "RETRY", gcs.RETRY.with_delay(initial=0.02, maximum=0.5, multiplier=2.0))


def settings(data) -> ShardsConfig:
    return ShardsConfig(sources=(SourceConfig(path=str(data / "dataset.jsonl")),), row_tokens=512, num_shards=6)


def local_bytes(folder: pathlib.Path) -> dict[str, bytes]:
    names = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return {name: same_code(name, (folder / name).read_bytes()) for name in (str(p.relative_to(folder)) for p in names)}


def bucket_bytes(url: str) -> dict[str, bytes]:
    names = [file.url.removeprefix(f"{url}/") for file in store.list_files(url)]
    return {name: same_code(name, store.read_bytes(f"{url}/{name}")) for name in names}


def same_code(name: str, data: bytes) -> bytes:
    """The bytes; of the manifest without the version of the code, which a commit during the test changes."""
    return re.sub(rb'"code_version": "[^"]*"', b"", data) if name == "manifest.json" else data


@pytest.fixture(scope="module")
def undisturbed(data):
    build.run(settings(data), data / "plain", tokenizer_dir=data / "tokenizer", workers=1)
    return local_bytes(data / "plain")


def to_bucket(data, scratch):
    return build.run(settings(data), URL, tokenizer_dir=data / "tokenizer", workers=1, scratch_dir=scratch)


def test_a_data_set_in_a_bucket_is_the_local_one_and_is_read_from_there(data, undisturbed, fake_gcs, tmp_path):
    to_bucket(data, tmp_path / "scratch")
    assert bucket_bytes(URL) == undisturbed
    to_bucket(data, tmp_path / "scratch")  # complete: nothing is done
    assert verify.verify(URL, deep=True) == []
    there = loader.Loader(URL, rows_per_step=8, seed=1, epochs=1, cache_dir=tmp_path / "cache")
    here = loader.Loader(data / "plain", rows_per_step=8, seed=1, epochs=1)
    assert (there.batch(0)["tokens_BT"] == here.batch(0)["tokens_BT"]).all()


def test_faults_of_the_bucket_heal_and_another_data_set_is_not_overwritten(data, undisturbed, fake_gcs, tmp_path):
    for kind, chance in (("status", 0.1), ("reset", 0.05), ("drop_reply", 0.05), ("truncate", 0.05)):
        fake_gcs.faults.add(kind, times=None, chance=chance)
    to_bucket(data, tmp_path / "scratch")
    fake_gcs.faults.clear()
    assert bucket_bytes(URL) == undisturbed
    other = ShardsConfig(sources=settings(data).sources, row_tokens=512, num_shards=6, seed=1)
    with pytest.raises(UserError):
        build.run(other, URL, tokenizer_dir=data / "tokenizer", workers=1, scratch_dir=tmp_path / "scratch")
    assert bucket_bytes(URL) == undisturbed


@pytest.mark.slow
def test_twenty_kills_leave_no_trace(data, undisturbed, fake_gcs, tmp_path):
    """Killed with -9 at random moments of the work, the bucket failing now and then; the last run is left alone."""
    for kind, chance in (("status", 0.05), ("reset", 0.03), ("drop_reply", 0.03)):
        fake_gcs.faults.add(kind, times=None, chance=chance)
    names = {"url": URL, "source": str(data / "dataset.jsonl"), "tokenizer": str(data / "tokenizer")}
    job = json.dumps({**names, "scratch": str(tmp_path / "scratch")})
    whole = start(json.dumps({**json.loads(job), "url": "gs://test-bucket/other", "scratch": str(tmp_path / "other")}))
    seconds = float(whole.stdout.readline())
    whole.communicate(timeout=300)
    num_requests = len(fake_gcs.requests)
    chance, kills, moments = random.Random(4), 0, set()
    while kills < 20:
        process = start(job)
        if kills % 2:  # in the middle of the talk with the bucket
            last = len(fake_gcs.requests) + chance.randrange(num_requests)
            while process.poll() is None and len(fake_gcs.requests) < last:
                time.sleep(0.001)
        else:  # while the rows are made
            time.sleep(chance.uniform(0.0, 0.7 * seconds))
        ended = process.poll()
        process.kill()
        _, error = process.communicate(timeout=300)
        assert ended in (None, 0), error[-2000:]
        kills += ended is None
        sent = [o.name for o in fake_gcs.objects.listing("test-bucket", {"prefix": "run/"})[0]]
        work = [p.name for p in (tmp_path / "scratch").rglob("*")]
        moments.add((len(sent), len(work)))
        if ended == 0:  # it was through: begin anew, with the local folder gone too
            store.delete_tree(URL)
            shutil.rmtree(tmp_path / "scratch")
    assert len(moments) > 5, "kills came at different moments"
    to_bucket(data, tmp_path / "scratch")
    fake_gcs.faults.clear()
    assert bucket_bytes(URL) == undisturbed


def start(job: str) -> subprocess.Popen:
    """A process that has everything loaded and begins to build."""
    process = subprocess.Popen(
        [sys.executable, "-c", BUILD, job], env=os.environ.copy(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    return process
