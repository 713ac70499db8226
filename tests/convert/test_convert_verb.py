"""`stratos convert` and `stratos verify` as a person types them."""

import json

import numpy as np
from hf_folders import tensors_of, write_folder

from stratos_jax import store
from stratos_jax.cli import main

NAME = "Qwen2.5-7B-Instruct"


def run(capsys, *words, code=0):
    assert main([str(word) for word in words]) == code
    printed = capsys.readouterr()
    return printed.out if code == 0 else printed.err


def test_there_and_back_and_compared(tmp_path, capsys):
    source, ckpt, out = write_folder(tmp_path / "hf"), tmp_path / "ckpt", tmp_path / "out"
    report = json.loads(run(capsys, "convert", "from-hf", source, ckpt, "--no-proof", "--json"))
    assert report["tensors"] == 27 and report["proof"] == "not asked for"
    assert "no proof was asked for" in run(capsys, "convert", "to-hf", ckpt, out, "--no-proof", "--dtype", "float32")
    figures = json.loads(run(capsys, "convert", "diff", source, ckpt, "--json"))
    assert figures == {"a": str(source), "b": str(ckpt), "tensors": 27, "different": 0, "differences": []}
    figures = json.loads(run(capsys, "convert", "diff", source, out, "--json"))
    assert figures["different"] == 27 and all(row["max_abs"] == 0 for row in figures["differences"])
    assert "27 bitwise equal" not in run(capsys, "convert", "diff", source, out)
    for place in (ckpt, ckpt / "0", out, source):
        assert "ok" in run(capsys, "verify", place, "--deep")
        assert json.loads(run(capsys, "verify", place, "--json"))["ok"]
    assert "there already" in run(capsys, "convert", "to-hf", ckpt, out, code=2)
    stage = tmp_path / "stage"
    stage.mkdir()
    out.rename(stage / "hf")  # as the stage `convert` of a run leaves it, with a manifest above
    store.manifest.write_manifest(stage, store.manifest.make_manifest(stage, stage="convert"))
    assert "ok, stage convert" in run(capsys, "verify", stage, "--deep")


def test_differences_are_named(tmp_path, capsys):
    tensors = dict(tensors_of(NAME))
    tensors["model.norm.weight"] = (tensors["model.norm.weight"].astype(np.float32) * 1.5).astype(
        tensors["model.norm.weight"].dtype
    )
    a, b = write_folder(tmp_path / "a"), write_folder(tmp_path / "b", tensors=tensors)
    said = run(capsys, "convert", "diff", a, b)
    assert "model.norm.weight: largest" in said and "1 different" in said
    row = json.loads(run(capsys, "convert", "diff", a, b, "--json"))["differences"][0]
    assert abs(row["relative"] - 0.5) < 0.01


def test_two_checkpoints_are_compared_by_leaf(tmp_path, capsys):
    from stratos_jax import checkpoint

    for name, value in (("a", 1.0), ("b", 2.0)):
        tree = {"params": {"w": np.full((4, 2), value, np.float32)}, "same": np.arange(3), name: np.zeros(1)}
        checkpoint.save(tmp_path / name, 5, tree)
    figures = json.loads(run(capsys, "convert", "diff", tmp_path / "a", tmp_path / "b", "--json"))
    found = {row["name"]: row["note"] or row["max_abs"] for row in figures["differences"]}
    assert found == {"a": "only in A", "b": "only in B", "params/w": 1.0} and figures["tensors"] == 4


def test_verify_names_what_is_wrong(tmp_path, capsys):
    source, ckpt, out = write_folder(tmp_path / "hf"), tmp_path / "ckpt", tmp_path / "out"
    run(capsys, "convert", "from-hf", source, ckpt, "--no-proof")
    run(capsys, "convert", "to-hf", ckpt, out, "--no-proof")
    weights = out / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    assert "ok" in run(capsys, "verify", out)
    assert "model.safetensors: not the bytes that SHA256SUMS states" in run(capsys, "verify", out, "--deep", code=2)
    weights.write_bytes(bytes(data[:-5]))
    assert "truncated" in run(capsys, "verify", out, code=2)
    assert "neither a folder nor a model that the hub gives" in run(
        capsys, "convert", "from-hf", "no/such", "x", code=2
    )
