"""Checkpoints in a bucket: faults on the way, steps of other processes, damage."""

import jax
import pytest
from checkpoint_trees import abstract, mesh, same, state

from stratos_jax import checkpoint, store
from stratos_jax.types import UserError

URL = "gs://test-bucket/run/checkpoints"


def test_saved_and_restored_through_faults(fake_gcs):
    fake_gcs.faults.add("status", r"POST .*/upload/", status=503, times=2)
    fake_gcs.faults.add("status", r"POST .*/upload/", status=429, times=1)
    fake_gcs.faults.add("drop_reply", r"POST .*uploadType=media", times=1)
    fake_gcs.faults.add("status", r"GET .*alt=media", status=503, times=2)
    fake_gcs.faults.add("status", r"GET .*/o\?", status=429, times=2)
    with checkpoint.Checkpointer(URL, keep_last=2) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, state(step), {"n": step})
    assert checkpoint.steps(URL) == [2, 3]
    restored, metadata = checkpoint.restore(URL, abstract(state(), mesh((2, 2))))
    assert same(restored, state(3)) and metadata["n"] == 3
    assert checkpoint.verify(URL, deep=True) == []


def test_steps_of_another_process_are_seen_at_once(fake_gcs):
    """A client whose listing cache is on never sees them (its cache does not expire)."""
    import fsspec.config

    fsspec.config.conf.pop("gcs", None)
    checkpoint.save(URL, 1, state(1))
    wanted = abstract(state(), mesh((1, 2)))
    assert checkpoint.restore(URL, wanted)[1]["step"] == 1
    for file in store.list_files(f"{URL}/1"):  # as another writer would: not through this process's file system object
        store.write_bytes(file.url.replace("/checkpoints/1/", "/checkpoints/5/"), store.read_bytes(file.url))
    record = store.read_text(f"{URL}/5/integrity.json")
    assert checkpoint.steps(URL) == [1, 5]
    import json

    from stratos_jax.types import json_hash

    changed = json.loads(record)
    changed.pop("sha256")
    changed["step"] = 5
    store.write_text(f"{URL}/5/integrity.json", json.dumps({**changed, "sha256": json_hash(changed)}))
    assert checkpoint.restore(URL, wanted)[1]["step"] == 5
    assert fsspec.config.conf["gcs"]["use_listings_cache"] is False


def test_damage_is_seen_in_the_listing_alone(fake_gcs):
    for step in (1, 2):
        checkpoint.save(URL, step, state(step))
    biggest = max(store.list_files(f"{URL}/2"), key=lambda file: file.bytes)
    data = bytearray(store.read_bytes(biggest.url))
    data[len(data) // 2] ^= 1
    store.write_bytes(biggest.url, bytes(data))
    restored, metadata = checkpoint.restore(URL, abstract(state(), mesh((1, 2))), warn=lambda line: None)
    assert metadata["step"] == 1 and "crc32c" in metadata["passed_over"]["2"]
    assert same(restored, state(1))


def test_a_bucket_that_refuses_is_an_error_and_no_reason_to_go_back(fake_gcs):
    checkpoint.save(URL, 1, {"w": jax.numpy.ones(4)})
    fake_gcs.faults.add("status", r"GET .*integrity", status=403, times=None)
    with pytest.raises(UserError, match="ermission|refuse|403"):
        checkpoint.restore(URL, {"w": jax.ShapeDtypeStruct((4,), "float32")})
    fake_gcs.faults.clear()
    fake_gcs.faults.add("status", r"POST .*/upload/", status=403, times=None)
    with pytest.raises(UserError, match="ermission"):
        checkpoint.save(URL, 2, {"w": jax.numpy.ones(4)})
    fake_gcs.faults.clear()
    assert checkpoint.steps(URL) == [1]
