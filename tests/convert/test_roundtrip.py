"""HF -> checkpoint -> HF is bitwise for every family, and what comes out loads in transformers."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from hf_folders import read_folder, same_tensors, tensors_of, write_folder
from tiny_models import FAMILIES, tiny_config

from stratos_jax import checkpoint, convert
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.verify import verify
from stratos_jax.model.config import read_architecture
from stratos_jax.model.params import abstract_params
from stratos_jax.types import UserError

KEEP = ConvertConfig(dtype="keep", proof=False)


@pytest.mark.parametrize("name", FAMILIES)
def test_bitwise_and_loadable(name, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM, utils

    source = write_folder(tmp_path / "hf", name, shards=3)
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    report = convert.to_hf(tmp_path / "ckpt", tmp_path / "out", dataclasses.replace(KEEP, max_shard_gib=6e-5))
    assert same_tensors(read_folder(tmp_path / "out"), tensors_of(name))
    assert report["tensors"] == len(tensors_of(name)) and len(list((tmp_path / "out").glob("*.safetensors"))) > 1
    assert verify(tmp_path / "out") == [] and verify(tmp_path / "ckpt") == []
    config = tiny_config(name)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {**config, "torch_dtype": "bfloat16"}
    assert AutoConfig.from_pretrained(tmp_path / "out").vocab_size == config["vocab_size"]
    utils.logging.disable_progress_bar()
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    weight = loaded.model.layers[1].self_attn.k_proj.weight.detach().float().numpy()
    assert np.array_equal(weight, tensors_of(name)["model.layers.1.self_attn.k_proj.weight"].astype(np.float32))


def test_what_travels_with_the_weights(tmp_path):
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    convert.to_hf(tmp_path / "ckpt", tmp_path / "out", KEEP, eos_ids=[7, 2])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *("config.json", "generation_config.json", "chat_template.jinja", "model.safetensors"),
        *("SHA256SUMS", "conversion_report.json"),
    }
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [7, 2, 3], "temperature": 0.7}
    report = json.loads((tmp_path / "out" / "conversion_report.json").read_text())
    assert report["end_tokens"]["generation"] == [7, 2, 3] and report["proof"] == "not asked for"


def test_number_formats(tmp_path):
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", ConvertConfig(dtype="float32", proof=False))
    for dtype, kind in (("bfloat16", ml_dtypes.bfloat16), ("float32", np.float32), ("float16", np.float16)):
        convert.to_hf(tmp_path / "ckpt", tmp_path / dtype, ConvertConfig(dtype=dtype, proof=False))
        wanted = {name: tensor.astype(kind) for name, tensor in tensors_of("Qwen2.5-7B-Instruct").items()}
        assert same_tensors(read_folder(tmp_path / dtype), wanted)
        assert json.loads((tmp_path / dtype / "config.json").read_text())["torch_dtype"] == dtype


def test_from_a_training_state(tmp_path):
    """Weights beside optimizer state, sharded, in float32; the config from the trainer's settings."""
    config = tiny_config("Qwen2.5-3B")
    rng = np.random.default_rng(0)
    draw = lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32)
    params = jax.tree.map(draw, abstract_params(read_architecture(config), "float32"))
    state = {"params": params, "optimizer": jax.tree.map(np.zeros_like, params), "step": np.int32(4)}
    checkpoint.save(tmp_path / "ckpt", 3, state, {"task": {"model": {"hf": {**config, "vocab_size": 9}}}})
    checkpoint.save(tmp_path / "ckpt", 4, state, {"task": {"model": {"hf": config}}})
    convert.to_hf(tmp_path / "ckpt", tmp_path / "out", ConvertConfig(dtype="float32", proof=False))
    out = read_folder(tmp_path / "out")
    q_DNH = params["layers"]["attention"]["q"][1]
    assert np.array_equal(out["model.layers.1.self_attn.q_proj.weight"], q_DNH.reshape(len(q_DNH), -1).T)
    assert "lm_head.weight" not in out  # tied
    with pytest.raises(UserError, match="another model"):
        convert.to_hf(tmp_path / "ckpt", tmp_path / "other", KEEP, step=3)


def test_padded_vocabulary_rows_can_be_left_out(tmp_path):
    source = write_folder(tmp_path / "hf")
    convert.from_hf(source, tmp_path / "ckpt", KEEP)
    cut = dataclasses.replace(KEEP, vocab_rows=100)
    convert.to_hf(tmp_path / "ckpt", tmp_path / "out", cut)
    out, whole = read_folder(tmp_path / "out"), tensors_of("Qwen2.5-7B-Instruct")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert np.array_equal(out[name], whole[name][:100])
    assert json.loads((tmp_path / "out" / "config.json").read_text())["vocab_size"] == 100
    with pytest.raises(UserError, match="larger than the model"):
        convert.to_hf(tmp_path / "ckpt", tmp_path / "more", dataclasses.replace(KEEP, vocab_rows=200))


def test_a_tied_head_stored_twice_is_read_once(tmp_path):
    tensors = dict(tensors_of("Qwen2.5-3B"))
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    convert.from_hf(write_folder(tmp_path / "hf", "Qwen2.5-3B", tensors=tensors), tmp_path / "ckpt", KEEP)
    tensors["lm_head.weight"] = tensors["lm_head.weight"] * 2
    other = write_folder(tmp_path / "other", "Qwen2.5-3B", tensors=tensors)
    with pytest.raises(UserError, match="differs from the embedding"):
        convert.from_hf(other, tmp_path / "ckpt2", KEEP)


def test_a_folder_that_is_there_is_not_touched(tmp_path):
    source = write_folder(tmp_path / "hf")
    with pytest.raises(UserError, match="there already"):
        convert.from_hf(source, source, KEEP)
    assert same_tensors(read_folder(source), tensors_of("Qwen2.5-7B-Instruct"))
