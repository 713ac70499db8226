"""The proof agrees with transformers and with NumPy, and refuses what is not the same model."""

import dataclasses
import json

import numpy as np
import pytest
from hf_folders import write_folder
from tiny_models import FAMILIES, tiny_config

from stratos_jax import checkpoint, convert
from stratos_jax.checkpoint import orbax
from stratos_jax.convert import export, numpy_forward, proof, torch_forward
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.types import UserError

KEEP = ConvertConfig(dtype="keep", proof=False)
PROVED = dataclasses.replace(KEEP, proof=True, proof_prompts=1)


@pytest.mark.parametrize("name", FAMILIES)
def test_numpy_forward_is_transformers(name):
    import torch
    from tiny_models import noisy_params, torch_model

    from stratos_jax.model.config import read_architecture

    config = tiny_config(name)
    model = torch_model(config, noisy_params(read_architecture(config)))
    tensors = {key: value.numpy() for key, value in model.state_dict().items()}
    tokens_T = np.random.default_rng(0).integers(0, config["vocab_size"], 700)
    embedded_TD = tensors["model.embed_tokens.weight"][tokens_T]
    ours_TV = numpy_forward.last_hidden(config, tensors.__getitem__, embedded_TD) @ tensors["lm_head.weight"].T
    with torch.no_grad():
        theirs_TV = model(torch.from_numpy(tokens_T)[None]).logits[0].numpy()
    assert np.abs(ours_TV - theirs_TV).max() <= 2e-5 * np.abs(theirs_TV).max()


@pytest.mark.parametrize("reference", ["transformers", "numpy"])
def test_both_directions_with_proof(tmp_path, monkeypatch, reference):
    monkeypatch.setattr(torch_forward, "installed", lambda: reference == "transformers")
    monkeypatch.setattr(proof, "HEAD_BYTES", 4 * 112 * 50)  # several runs of the head's rows
    source = write_folder(tmp_path / "hf")
    there = convert.from_hf(source, tmp_path / "ckpt", PROVED)
    back = convert.to_hf(tmp_path / "ckpt", tmp_path / "out", PROVED)
    for report in (there, back):
        assert report["round_trip"] == {"bitwise": True, "tensors": 27}
        logits = report["logits"]
        assert logits["reference"].startswith(reference) and logits["tokens"] == 512
        assert 0 < logits["max_abs_diff"] < 1e-4 * logits["scale"] and logits["max_kl"] < 1e-8
        assert logits["first_divergence"] is None
    assert json.loads((tmp_path / "out" / "conversion_report.json").read_text())["logits"] == back["logits"]


def wrong_head_order(monkeypatch):
    """The usual bug of conversions: pairs of rotary dimensions in the other order."""
    rotary = numpy_forward._rotate
    swap = lambda x, *tables: rotary(x[..., np.arange(x.shape[-1]).reshape(2, -1).T.ravel()], *tables)
    monkeypatch.setattr(numpy_forward, "_rotate", swap)


def wrong_theta(monkeypatch):
    """Shows on long prompts only."""
    tables = numpy_forward.rotary_tables
    monkeypatch.setattr(numpy_forward, "rotary_tables", lambda c, n: tables({**c, "rope_theta": 900_000.0}, n))


def forgotten_bias(monkeypatch):
    attention = numpy_forward._attention
    without = lambda config, *rest: attention({**config, "model_type": "llama"}, *rest)
    monkeypatch.setattr(numpy_forward, "_attention", without)


@pytest.mark.parametrize("bug", [wrong_head_order, wrong_theta, forgotten_bias])
def test_another_computation_is_refused_and_nothing_is_written(tmp_path, monkeypatch, bug):
    monkeypatch.setattr(torch_forward, "installed", lambda: False)
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    bug(monkeypatch)
    for run in (
        lambda: convert.to_hf(tmp_path / "ckpt", tmp_path / "out", PROVED),
        lambda: convert.from_hf(source, tmp_path / "ckpt2", PROVED),
    ):
        with pytest.raises(UserError, match="computes something else"):
            run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "hf"]


def test_bytes_that_change_on_the_way_are_refused(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    write = export.write_tensor

    def damaged(file, tensor, array):
        array = array.copy()
        if tensor.name == "model.norm.weight":
            array[3] *= -1
        write(file, tensor, array)

    monkeypatch.setattr(export, "write_tensor", damaged)
    with pytest.raises(UserError, match="model.norm.weight: comes back with other bytes"):
        convert.to_hf(tmp_path / "ckpt", tmp_path / "out", PROVED)
    write_part = checkpoint.StepWriter.write
    negated = lambda self, path, part, index=None: write_part(self, path, -part, index)
    monkeypatch.setattr(checkpoint.StepWriter, "write", negated)
    with pytest.raises(UserError, match="comes back with other bytes"):
        convert.from_hf(source, tmp_path / "ckpt2", PROVED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt", "hf"]


def test_a_damaged_checkpoint_is_not_exported(tmp_path):
    """A leaf that was changed on disk together with its file's checksum: only the digest of the array can tell."""
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    import tensorstore

    storage = orbax._storage(str(tmp_path / "ckpt" / "0"), "params/embed")
    opened = tensorstore.open({"driver": "zarr3", "kvstore": storage}, open=True).result()
    opened[5, 5].write(np.asarray(opened[5, 5]) * 2).result()
    with pytest.raises(UserError, match="params/embed: digest differs"):
        convert.to_hf(tmp_path / "ckpt", tmp_path / "out", KEEP)
    assert not (tmp_path / "out").exists()


def test_kl_and_divergence_are_what_they_are_called():
    rng = np.random.default_rng(0)
    a_TV, b_TV = rng.standard_normal((2, 7, 50)) * 3
    meter = proof.Meter(7)
    for first in (0, 13, 20):
        end = {0: 13, 13: 20, 20: 50}[first]
        meter.add(a_TV[:, first:end], b_TV[:, first:end], first)
    found = meter.result()
    log_a, log_b = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (a_TV, b_TV))
    kl_T = (np.exp(log_b) * (log_b - log_a)).sum(1)
    assert np.isclose(found.max_kl, kl_T.max()) and np.isclose(found.mean_kl, kl_T.mean())
    assert found.max_abs_diff == np.abs(a_TV - b_TV).max() and found.scale == np.abs(b_TV).max()
    assert found.first_divergence == np.flatnonzero(a_TV.argmax(1) != b_TV.argmax(1))[0]


def test_tokenizer_larger_than_the_model_is_refused(tmp_path):
    from stratos_jax.model.tokenizer import train_tokenizer

    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    train_tokenizer(["the cat sat on the mat and that was that"] * 50, 285, tmp_path / "tokenizer")
    with pytest.raises(UserError, match="more tokens than the model"):
        convert.to_hf(tmp_path / "ckpt", tmp_path / "out", KEEP, tokenizer_dir=tmp_path / "tokenizer")
    assert not (tmp_path / "out").exists()
