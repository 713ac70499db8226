"""Tiny models made from real config.json files: only sizes shrink, every other key stays as published."""

import json
from typing import Any

import jax
import numpy as np
from helpers import ROOT

from stratos_jax.model.config import Architecture, read_architecture
from stratos_jax.model.names import hf_entries
from stratos_jax.model.params import abstract_params

CONFIGS = ROOT / "tests" / "golden" / "configs"
FAMILIES = (  # one per size or per difference of the network; the other files differ in sizes or end tokens only
    "Qwen2.5-0.5B-Instruct",
    "Qwen2.5-3B",
    "Qwen2.5-7B-Instruct",
    "Qwen2.5-32B",
    "Qwen2.5-Math-7B",
    "DeepSeek-R1-Distill-Qwen-1.5B",
    "Llama-3.1-8B",
    "Llama-3.3-70B-Instruct",
)


def real_config(name: str) -> dict[str, Any]:
    """A published config.json."""
    return json.loads((CONFIGS / f"{name}.json").read_text())


def tiny_config(name: str, *, layers: int = 2, head_dim: int = 8, vocab: int = 160) -> dict[str, Any]:
    """The same with fewer layers, smaller heads, MLP and vocabulary; queries per KV head stay."""
    config = real_config(name)
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    config.update(num_key_value_heads=2, num_attention_heads=2 * group, hidden_size=2 * group * head_dim)
    config.update(num_hidden_layers=layers, intermediate_size=88, vocab_size=vocab)
    config.update(bos_token_id=1, eos_token_id=2)
    if "head_dim" in config:
        config["head_dim"] = 2 * head_dim  # not hidden_size / num_attention_heads: the key must be read
    return config


def noisy_params(arch: Architecture, seed: int = 0) -> dict[str, Any]:
    """Float32 parameters whose biases and norms are as noisy as the rest: a forgotten one shows."""
    rng = np.random.default_rng(seed)

    def draw(path: tuple, leaf: Any) -> np.ndarray:
        name = path[-1].key
        noise = rng.standard_normal(leaf.shape, dtype=np.float32)
        if name == "scale":
            return 1 + 0.3 * noise
        if name == "embed":
            return 0.15 * noise
        if name.endswith("_bias"):
            return 0.5 * noise
        fan_in = {"o": np.prod(leaf.shape[1:3]), "down": leaf.shape[1]}.get(name, arch.hidden_size)
        return noise * np.float32(fan_in**-0.5)

    return jax.tree_util.tree_map_with_path(draw, abstract_params(arch, "float32"))


def to_hf_tensors(arch: Architecture, params: dict[str, Any]) -> dict[str, np.ndarray]:
    """The same numbers under their Hugging Face names."""
    tensors = {}
    for entry in hf_entries(arch):
        leaf = params
        for key in entry.path:
            leaf = leaf[key]
        tensors[entry.hf_name] = np.ascontiguousarray(entry.to_hf(leaf if entry.layer is None else leaf[entry.layer]))
    return tensors


def torch_model(config: dict[str, Any], params: dict[str, Any]) -> Any:
    """The transformers model of a config, in float32, eager attention, with these parameters."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    kwargs = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    hf_config = AutoConfig.for_model(config["model_type"], **kwargs)
    model = AutoModelForCausalLM.from_config(hf_config, dtype=torch.float32, attn_implementation="eager")
    tensors = to_hf_tensors(read_architecture(config), params)
    missing, unexpected = model.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()}, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    return model.eval()
