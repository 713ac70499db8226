"""A second forward pass, in NumPy, that shares no code with `model`: what a converted folder is held against.

In: a raw config.json, a function that reads a tensor by its HF name, token ids. Out: the last hidden states and runs of
logits. One layer's weights are in memory at a time. Float32 throughout.

Shapes: T tokens, D hidden, N query heads, K key/value heads, H head size, F MLP width, V vocabulary.
"""

import math
from collections.abc import Callable, Mapping

import numpy as np

from stratos_jax.types import Json

Read = Callable[[str], np.ndarray]


def version() -> str:
    """For a report."""
    return "numpy"


def last_hidden(config: Mapping[str, Json], read: Read, embedded_TD: np.ndarray) -> np.ndarray:
    """Hidden states after the last norm, float32[T, D], for one sequence of embedded tokens."""
    eps = config.get("rms_norm_eps") or 1e-6
    cos_TH, sin_TH = rotary_tables(config, len(embedded_TD))
    x_TD = embedded_TD.astype(np.float32)
    for layer in range(config["num_hidden_layers"]):
        weight = lambda name, layer=layer: read(f"model.layers.{layer}.{name}").astype(np.float32)
        x_TD = x_TD + _attention(config, weight, _norm(x_TD, weight("input_layernorm.weight"), eps), cos_TH, sin_TH)
        normed_TD = _norm(x_TD, weight("post_attention_layernorm.weight"), eps)
        gate_TF = normed_TD @ weight("mlp.gate_proj.weight").T
        gate_TF *= 1 / (1 + np.exp(-gate_TF))
        gate_TF *= normed_TD @ weight("mlp.up_proj.weight").T
        x_TD = x_TD + gate_TF @ weight("mlp.down_proj.weight").T
    return _norm(x_TD, read("model.norm.weight").astype(np.float32), eps)


def head_size(config: Mapping[str, Json]) -> int:
    """The size of one head."""
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rotary_tables(config: Mapping[str, Json], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, each [T, H], the half-size tables written twice."""
    half = head_size(config) // 2
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = rope.get("rope_theta") or config.get("rope_theta") or 10_000.0
    rate_h = theta ** (-np.arange(half, dtype=np.float64) / half)
    if rope.get("rope_type", rope.get("type")) == "llama3":
        rate_h = np.array([_stretched(rate, rope) for rate in rate_h])
    angle_Th = np.arange(length, dtype=np.float64)[:, None] * rate_h
    angle_TH = np.concatenate([angle_Th, angle_Th], axis=1)
    return np.cos(angle_TH).astype(np.float32), np.sin(angle_TH).astype(np.float32)


def _stretched(rate: float, rope: Mapping[str, Json]) -> float:
    """Llama 3: short wavelengths stay, long ones are divided by the factor, those between are blended."""
    wavelength, context = 2 * math.pi / rate, rope["original_max_position_embeddings"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    if wavelength < context / high:
        return rate
    if wavelength > context / low:
        return rate / rope["factor"]
    share = (context / wavelength - low) / (high - low)
    return (1 - share) * rate / rope["factor"] + share * rate


def _norm(x_TD: np.ndarray, scale_D: np.ndarray, eps: float) -> np.ndarray:
    return scale_D * (x_TD / np.sqrt(np.mean(np.square(x_TD), axis=1, keepdims=True) + np.float32(eps)))


def _attention(config: Mapping[str, Json], weight: Read, x_TD: np.ndarray, cos_TH, sin_TH) -> np.ndarray:
    num_heads, size = config["num_attention_heads"], head_size(config)
    num_kv = config.get("num_key_value_heads") or num_heads
    heads = {}
    for name, count in (("q", num_heads), ("k", num_kv), ("v", num_kv)):
        flat = x_TD @ weight(f"self_attn.{name}_proj.weight").T
        if config["model_type"] == "qwen2":
            flat += weight(f"self_attn.{name}_proj.bias")
        heads[name] = flat.reshape(len(x_TD), count, size).transpose(1, 0, 2)
    q_NTH, k_KTH = (_rotate(heads[name], cos_TH, sin_TH) for name in "qk")
    causal_TS = np.tril(np.ones((len(x_TD), len(x_TD)), bool))
    out_TNH = np.empty((len(x_TD), num_heads, size), np.float32)
    for n in range(num_heads):
        group = n // (num_heads // num_kv)
        score_TS = np.where(causal_TS, q_NTH[n] @ k_KTH[group].T / np.float32(math.sqrt(size)), -np.inf)
        weight_TS = np.exp(score_TS - score_TS.max(axis=1, keepdims=True))
        out_TNH[:, n] = (weight_TS / weight_TS.sum(axis=1, keepdims=True)) @ heads["v"][group]
    return out_TNH.reshape(len(x_TD), -1) @ weight("self_attn.o_proj.weight").T


def _rotate(x_NTH: np.ndarray, cos_TH: np.ndarray, sin_TH: np.ndarray) -> np.ndarray:
    left, right = np.split(x_NTH, 2, axis=-1)
    return x_NTH * cos_TH + np.concatenate([-right, left], axis=-1) * sin_TH
