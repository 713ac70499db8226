"""A PEFT adapter is merged as W + scale * B @ A, in float32, or refused with all its problems."""

import json

import numpy as np
import pytest
from hf_folders import read_folder, tensors_of, write_folder

from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.types import UserError

NAME = "Qwen2.5-7B-Instruct"
KEEP = ConvertConfig(dtype="keep", proof=False)
TARGETS = ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj")


def write_adapter(folder, *, rank=4, targets=TARGETS, **config):
    from safetensors.numpy import save_file

    rng, tensors = np.random.default_rng(0), {}
    for target in targets:
        out, into = tensors_of(NAME)[f"{target}.weight"].shape
        prefix = f"base_model.model.{target}"
        tensors[f"{prefix}.lora_A.weight"] = rng.standard_normal((rank, into)).astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = rng.standard_normal((out, rank)).astype(np.float32)
    folder.mkdir()
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 8, "bias": "none", "target_modules": ["q_proj"], **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder, tensors


@pytest.mark.parametrize(("settings", "scale"), [({}, 2.0), ({"use_rslora": True}, 4.0)])
def test_merged_and_proved(tmp_path, settings, scale):
    source = write_folder(tmp_path / "hf")
    adapter, parts = write_adapter(tmp_path / "adapter", **settings)
    proved = ConvertConfig(dtype="keep", proof_prompts=1)
    report = convert.from_hf(source, tmp_path / "ckpt", proved, lora=adapter)
    assert report["logits"]["reference"].startswith("transformers") and report["source"]["adapter"] == str(adapter)
    convert.to_hf(tmp_path / "ckpt", tmp_path / "out", KEEP)
    out = read_folder(tmp_path / "out")
    for name, tensor in tensors_of(NAME).items():
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        wide = tensor.astype(np.float32)
        if f"{prefix}.lora_A.weight" in parts:
            wide = wide + np.float32(scale) * (parts[f"{prefix}.lora_B.weight"] @ parts[f"{prefix}.lora_A.weight"])
        assert out[name].tobytes() == wide.astype(tensor.dtype).tobytes(), name


def test_every_problem_at_once(tmp_path):
    source = write_folder(tmp_path / "hf")
    adapter, _ = write_adapter(tmp_path / "adapter", use_dora=True, modules_to_save=["lm_head"], r=5)
    with pytest.raises(UserError) as caught:
        convert.from_hf(source, tmp_path / "ckpt", KEEP, lora=adapter)
    for part in ("use_dora is True", "modules_to_save", "of rank 5", "(4 problems)"):
        assert part in str(caught.value)
    assert not (tmp_path / "ckpt").exists()
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="not an adapter folder"):
        convert.from_hf(source, tmp_path / "ckpt", KEEP, lora=adapter)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_lora_run_is_merged_as_the_trainer_does(tmp_path, dtype):
    import jax
    import jax.numpy as jnp
    from tiny_models import noisy_params, tiny_config

    from stratos_jax import checkpoint
    from stratos_jax.model.config import read_architecture
    from stratos_jax.train import lora
    from stratos_jax.train.config import LoraConfig

    config = tiny_config(NAME)
    arch, adapted = read_architecture(config), LoraConfig(rank=4, alpha=8.0, targets=("q", "o", "down"))
    base = lora.freeze(jax.tree.map(jnp.asarray, noisy_params(arch)), adapted, dtype)
    rng = np.random.default_rng(1)
    noise = lambda leaf: jnp.asarray(0.1 * rng.standard_normal(leaf.shape), leaf.dtype)
    adapters = jax.tree.map(noise, lora.init(arch, adapted, jax.random.key(0)))
    task = {"model": {"hf": config}, "train": {"lora": {"rank": 4, "alpha": 8.0}}}
    checkpoint.save(tmp_path / "ckpt", 7, {"params": adapters, "base": base}, {"task": task})
    report = convert.to_hf(tmp_path / "ckpt", tmp_path / "out", ConvertConfig(dtype=dtype, proof_prompts=1))
    assert report["round_trip"]["bitwise"] and report["logits"]["max_kl"] < 1e-6
    merged, out = lora.merge(base, adapters, adapted), read_folder(tmp_path / "out")
    bits = 2**-23 if dtype == "float32" else 2**-8
    for name, part in (("self_attn.q_proj", "q"), ("self_attn.o_proj", "o"), ("self_attn.k_proj", "k")):
        wanted = np.asarray(merged["layers"]["attention"][part][1], np.float32)
        wanted = wanted.reshape(-1, arch.hidden_size).T if part == "o" else wanted.reshape(arch.hidden_size, -1).T
        found = out[f"model.layers.1.{name}.weight"].astype(np.float32)
        assert np.allclose(found, wanted, rtol=2 * bits, atol=2 * bits), name
    quantized = {"params": adapters, "base": {**base, "head": {"packed": base["head"]}}}
    checkpoint.save(tmp_path / "q", 1, quantized, {"task": task})
    with pytest.raises(UserError, match="base/head: quantized; merge the exported adapter"):
        convert.to_hf(tmp_path / "q", tmp_path / "out2", KEEP)
