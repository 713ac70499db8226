"""Low-rank adapters: W + (alpha / rank) A B, merged a layer at a time where the layer's weights are used.

In: architecture, `LoraConfig`. Out: adapters (parameters, axes, random start), the frozen base in the wanted format,
the merge of both, and an adapter folder that PEFT reads. Merging costs 2 x rank FLOPs per weight and layer, nothing
beside the products with tokens, and leaves the network as it is.

Shapes: L layers, I and O the axes that a weight takes in and gives out, r rank.
"""

import json
import math
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.model import params as model_params
from stratos_jax.model.config import Architecture
from stratos_jax.train.config import LoraConfig
from stratos_jax.train.quantized import is_packed, quantize_tree, unpack
from stratos_jax.types import UserError

Tree = dict[str, Any]
# target -> (part of a layer, axes that the weight takes in, HF name)
TARGETS = {
    "q": ("attention", 1, "self_attn.q_proj"),
    "k": ("attention", 1, "self_attn.k_proj"),
    "v": ("attention", 1, "self_attn.v_proj"),
    "o": ("attention", 2, "self_attn.o_proj"),
    "gate": ("mlp", 1, "mlp.gate_proj"),
    "up": ("mlp", 1, "mlp.up_proj"),
    "down": ("mlp", 1, "mlp.down_proj"),
}


def check(config: LoraConfig) -> None:
    """Refuse targets that do not exist."""
    unknown = sorted(set(config.targets) - TARGETS.keys())
    if unknown or not config.targets or config.rank < 1:
        got = f"rank {config.rank}, targets {config.targets}"
        raise UserError("train.lora cannot be", got=got, wanted=f"a rank above 0, targets of {', '.join(TARGETS)}")


def axes(arch: Architecture, config: LoraConfig) -> Tree:
    """Logical axes of the adapters, with the structure of their parameters."""
    layer = model_params.logical_axes(arch)["layers"]
    tree: Tree = {}
    for target in config.targets:
        part, num_in, _ = TARGETS[target]
        _, *weight = layer[part][target]
        a, b = ("layers", *weight[:num_in], "rank"), ("layers", "rank", *weight[num_in:])
        tree.setdefault(part, {})[target] = {"a": a, "b": b}
    return {"layers": tree}


def init(arch: Architecture, config: LoraConfig, key: jax.Array) -> Tree:
    """A uniform up to 1 / sqrt(inputs), B zero: the merged network is the base."""
    layer = model_params.abstract_params(arch, "float32")["layers"]
    tree: Tree = {}
    for target, target_key in zip(config.targets, jax.random.split(key, len(config.targets)), strict=True):
        part, num_in, _ = TARGETS[target]
        num_layers, *shape = layer[part][target].shape
        bound = math.prod(shape[:num_in]) ** -0.5
        a_shape = (num_layers, *shape[:num_in], config.rank)
        a = jax.random.uniform(target_key, a_shape, jnp.float32, -bound, bound)
        tree.setdefault(part, {})[target] = {"a": a, "b": jnp.zeros((num_layers, config.rank, *shape[num_in:]))}
    return {"layers": tree}


def freeze(params: Tree, config: LoraConfig, dtype: Any) -> Tree:
    """The base as it is kept: in `dtype`, its adapted matrices quantized where the config says so."""
    base = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
    if config.quantize_base == "none":
        return base
    return quantize_tree(base, config.quantize_base, [(TARGETS[t][0], t) for t in TARGETS])


def merge_layer(base: Tree, adapters: Tree, config: LoraConfig) -> Tree:
    """One layer's weights with its adapters added; also of stacked layers."""
    merged = {part: dict(weights) for part, weights in base.items()}
    for part, targets in adapters.items():
        for target, pair in targets.items():
            weight = merged[part][target]
            delta = delta_of(pair["a"], pair["b"], stacked=weight.ndim - (pair["a"].ndim + pair["b"].ndim - 2))
            merged[part][target] = weight + (config.alpha / config.rank * delta).astype(weight.dtype)
    return merged


def delta_of(a: jax.Array, b: jax.Array, *, stacked: int = 0) -> jax.Array:
    """A B over the rank axis, in the adapters' format."""
    if stacked < 0:  # both carry the layer axis, which the weight has once
        return jax.vmap(delta_of)(a, b)
    return jnp.tensordot(a, b, axes=1, precision=jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None)


def merge(base: Tree, adapters: Tree, config: LoraConfig) -> Tree:
    """The whole network with its adapters in it, in the base's format: what is converted and sampled."""
    dtype = base["final_norm"]["scale"].dtype
    plain = jax.tree.map(lambda w: unpack(w, dtype) if is_packed(w) else w, base, is_leaf=is_packed)
    return {**plain, "layers": merge_layer(plain["layers"], adapters["layers"], config)}


def export_peft(
    adapters: Tree, arch: Architecture, config: LoraConfig, directory: pathlib.Path, base_name: str
) -> None:
    """An adapter folder as PEFT reads it: `adapter_config.json` and `adapter_model.safetensors`."""
    from safetensors.numpy import save_file

    tensors = {}
    for part, targets in adapters["layers"].items():
        for target, pair in targets.items():
            a, b = (np.asarray(pair[side], np.float32) for side in ("a", "b"))
            for layer in range(arch.num_layers):
                name = f"base_model.model.model.layers.{layer}.{TARGETS[target][2]}"
                tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a[layer].reshape(-1, config.rank).T)
                tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b[layer].reshape(config.rank, -1).T)
            assert part in ("attention", "mlp")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_name,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [TARGETS[target][2].split(".")[1] for target in config.targets],
        "inference_mode": True,
    }
    directory.mkdir(parents=True, exist_ok=True)
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_config.json").write_text(json.dumps(settings, indent=1) + "\n")
