"""Conversion between buckets, with faults on the way; half a conversion never loads."""

import pytest
from hf_folders import read_folder, same_tensors, tensors_of, write_folder

from stratos_jax import checkpoint, convert, store
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.verify import verify
from stratos_jax.types import UserError

NAME = "Qwen2.5-3B"
BUCKET = "gs://test-bucket"
KEEP = ConvertConfig(dtype="keep", proof=False)


def upload(folder, url):
    for path in folder.iterdir():
        store.write_bytes(store.join(url, path.name), path.read_bytes())


def names(url):
    try:
        return {file.url.removeprefix(f"{url}/") for file in store.list_files(url)}
    except store.Missing:
        return set()


def test_bucket_to_bucket_with_faults(tmp_path, fake_gcs):
    upload(write_folder(tmp_path / "hf", NAME, shards=2), f"{BUCKET}/hf")
    fake_gcs.faults.add("status", r"GET .*safetensors.*alt=media", status=503, times=2)
    fake_gcs.faults.add("status", r"POST .*ocdbt", status=429, times=2)
    fake_gcs.faults.add("reset_reply", r"GET .*config\.json.*alt=media", times=1)
    convert.from_hf(f"{BUCKET}/hf", f"{BUCKET}/ckpt", KEEP)
    assert checkpoint.steps(f"{BUCKET}/ckpt") == [0] and verify(f"{BUCKET}/ckpt") == []
    fake_gcs.faults.add("status", r"POST .*/upload/", status=500, times=2)
    convert.to_hf(f"{BUCKET}/ckpt", f"{BUCKET}/out", KEEP)
    assert verify(f"{BUCKET}/out") == []
    for name in names(f"{BUCKET}/out"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(store.read_bytes(f"{BUCKET}/out/{name}"))
    assert same_tensors(read_folder(tmp_path / "out"), tensors_of(NAME))
    last = max(store.list_files(f"{BUCKET}/out"), key=lambda file: file.generation)
    assert last.url.endswith("/config.json")  # the file without which nothing loads
    with pytest.raises(UserError, match="there already"):
        convert.to_hf(f"{BUCKET}/ckpt", f"{BUCKET}/out", KEEP)


def test_a_bucket_that_refuses_on_the_way(tmp_path, fake_gcs, monkeypatch):
    source = write_folder(tmp_path / "hf", NAME)
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    upload = store.upload_file

    def refused_from_the_sums_on(path, url):
        if url.endswith("SHA256SUMS"):
            fake_gcs.faults.add("status", r"POST .*/upload/", status=403, times=None)
        upload(path, url)

    monkeypatch.setattr(store, "upload_file", refused_from_the_sums_on)
    with pytest.raises(UserError):
        convert.to_hf(tmp_path / "ckpt", f"{BUCKET}/out", KEEP)
    assert "model.safetensors" in names(f"{BUCKET}/out") and "config.json" not in names(f"{BUCKET}/out")
    fake_gcs.faults.clear()
    monkeypatch.setattr(store, "upload_file", upload)
    convert.to_hf(tmp_path / "ckpt", f"{BUCKET}/out", KEEP)  # what the first one left is cleared away
    assert verify(f"{BUCKET}/out") == []


def test_damage_in_a_bucket_is_seen(tmp_path, fake_gcs):
    source = write_folder(tmp_path / "hf", NAME)
    convert.from_hf(source, f"{BUCKET}/ckpt", KEEP)
    biggest = max(store.list_files(f"{BUCKET}/ckpt"), key=lambda file: file.bytes)
    data = bytearray(store.read_bytes(biggest.url))
    data[len(data) // 2] ^= 4
    store.write_bytes(biggest.url, bytes(data))
    assert any("crc32c" in problem for problem in verify(f"{BUCKET}/ckpt", deep=False))
