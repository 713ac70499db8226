"""Each fault of a folder gives one error that lists every problem at once, and leaves nothing behind."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from helpers import ROOT
from hf_folders import tensors_of, write_folder

from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.types import UserError

NAME = "Qwen2.5-7B-Instruct"
KEEP = ConvertConfig(dtype="keep", proof=False)
Q0, K1 = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.k_proj.weight"


def refused(folder, tmp_path, *parts):
    with pytest.raises(UserError) as caught:
        convert.from_hf(folder, tmp_path / "ckpt", KEEP)
    for part in parts:
        assert part in str(caught.value), str(caught.value)
    left = {path.name for path in tmp_path.iterdir()}
    assert left <= {"hf", "file"}, left
    return str(caught.value)


def changed(tmp_path, **config):
    tensors = dict(tensors_of(NAME))
    return tensors, lambda: write_folder(tmp_path / "hf", NAME, tensors=tensors, **config)


def test_all_name_and_shape_problems_at_once(tmp_path):
    tensors, write = changed(tmp_path)
    del tensors[Q0]
    tensors[K1] = tensors[K1][:-1].copy()
    tensors["model.layers.7.mlp.up_proj.weight"] = tensors[K1]
    tensors["model.norm.weight"] = tensors["model.norm.weight"].astype(np.int8)
    said = refused(
        write(),
        tmp_path,
        f"{Q0}: missing",
        f"{K1}: has shape [15, 112], wanted [16, 112]",
        "model.layers.7.mlp.up_proj.weight: not a tensor of this architecture",
        "model.norm.weight: number format I8",
        "(4 problems)",
    )
    assert len(said.splitlines()) < 12


@pytest.mark.parametrize("dtype", ["float64", "int32", "float16"])
def test_wrong_number_format(tmp_path, dtype):
    tensors, write = changed(tmp_path)
    tensors[K1] = tensors[K1].astype(dtype)
    refused(write(), tmp_path, K1, {"float64": "F64", "int32": "I32", "float16": "F16"}[dtype])


def test_missing_shard(tmp_path):
    folder = write_folder(tmp_path / "hf", NAME, shards=3)
    (folder / "model-00002-of-00003.safetensors").unlink()
    refused(folder, tmp_path, "model-00002-of-00003.safetensors: missing")


@pytest.mark.parametrize("keep", [0.5, 0.001, 0.0])
def test_truncated_file(tmp_path, keep):
    folder = write_folder(tmp_path / "hf", NAME, shards=2)
    path = folder / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    refused(folder, tmp_path, path.name, "trunca" if keep else "too short")


def test_header_that_is_no_header(tmp_path):
    folder = write_folder(tmp_path / "hf", NAME)
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[8:12] = b"\xff\xff\xff\xff"
    path.write_bytes(bytes(data))
    refused(folder, tmp_path, "header that cannot be read")


def test_index_that_names_what_is_not_there(tmp_path):
    folder = write_folder(tmp_path / "hf", NAME, shards=2)
    where = folder / "model.safetensors.index.json"
    index = json.loads(where.read_text())
    index["weight_map"]["model.layers.9.mlp.up_proj.weight"] = "model-00001-of-00002.safetensors"
    del index["weight_map"][Q0]
    where.write_text(json.dumps(index))
    refused(folder, tmp_path, "model.layers.9.mlp.up_proj.weight: the index puts it", f"{Q0}: in model-0000")
    where.write_text("{")
    refused(folder, tmp_path, "model.safetensors.index.json: cannot be read")


def test_unknown_architecture(tmp_path):
    folder = write_folder(tmp_path / "hf", NAME, model_type="mamba", novel_key=1)
    refused(folder, tmp_path, "model_type is 'mamba'", "novel_key")


def test_config_that_is_missing_or_no_json(tmp_path):
    folder = write_folder(tmp_path / "hf", NAME)
    (folder / "config.json").write_text("{,")
    refused(folder, tmp_path, "config.json is not JSON")
    (folder / "config.json").unlink()
    refused(folder, tmp_path, "no config.json")


def test_no_permission(tmp_path, monkeypatch):
    folder = write_folder(tmp_path / "hf", NAME)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="a file, not a folder"):
        convert.from_hf(folder, tmp_path / "file" / "ckpt", KEEP)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    refused(folder, tmp_path, "no permission")


def test_no_room_is_known_beforehand(tmp_path, monkeypatch):
    from stratos_jax.convert import sink

    monkeypatch.setattr(sink, "free_bytes", lambda target: 1000)
    refused(write_folder(tmp_path / "hf", NAME), tmp_path, "no space left on the disk")


FULL = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.types import UserError
verb, source, target = sys.argv[1:]
try:
    getattr(convert, verb)(source, target, ConvertConfig(dtype="keep", proof=False))
except UserError as error:
    print(error); sys.exit(2)
"""


@pytest.mark.parametrize("verb", ["from_hf", "to_hf"])
def test_disk_that_fills_up_on_the_way(tmp_path, verb):
    source = write_folder(tmp_path / "hf", NAME)
    if verb == "to_hf":
        convert.from_hf(source, tmp_path / "ckpt", KEEP)
        source = tmp_path / "ckpt"
    before = sorted(os.listdir(tmp_path))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-c", FULL, verb, str(source), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert done.returncode == 2, done.stderr[-2000:]
    assert "larger than" in done.stdout
    assert sorted(os.listdir(tmp_path)) == before
