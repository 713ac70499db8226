"""The two-way table between Hugging Face tensors and our parameters.

In: an `Architecture`. Out: one `Entry` per HF tensor; import and export are the same rows read both ways, and both
only move numbers (reshape and transpose), so that a round trip is bitwise.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from stratos_jax.model.config import Architecture

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Entry:
    """One HF tensor and the parameter (or the layer of a stacked parameter) that holds the same numbers."""

    hf_name: str
    path: Path  # into the parameter tree
    layer: int | None  # index on axis 0 of the stacked parameter; None: the parameter is not stacked
    hf_shape: tuple[int, ...]
    split: tuple[int, ...]  # the HF tensor's shape with heads on axes of their own
    order: tuple[int, ...]  # which axis of `split` each of our axes is

    @property
    def our_shape(self) -> tuple[int, ...]:
        """The parameter's shape, without the layer axis."""
        return tuple(self.split[i] for i in self.order)

    def to_ours(self, tensor: Any) -> Any:
        """An HF tensor (NumPy or JAX) in our shape."""
        assert tensor.shape == self.hf_shape, (self.hf_name, tensor.shape, self.hf_shape)
        return tensor.reshape(self.split).transpose(self.order)

    def to_hf(self, tensor: Any) -> Any:
        """A parameter (one layer of it, if stacked) in the HF shape."""
        assert tensor.shape == self.our_shape, (self.hf_name, tensor.shape, self.our_shape)
        return tensor.transpose(tuple(int(i) for i in np.argsort(self.order))).reshape(self.hf_shape)


def hf_entries(arch: Architecture) -> list[Entry]:
    """All tensors of an HF checkpoint of this architecture, in the order in which transformers writes them."""
    entries = [_entry("model.embed_tokens.weight", ("embed",), None, (arch.vocab_size, arch.hidden_size), (0, 1))]
    for layer in range(arch.num_layers):
        for hf_name, path, split, order in _layer_rows(arch):
            entries.append(_entry(f"model.layers.{layer}.{hf_name}", ("layers", *path), layer, split, order))
    entries.append(_entry("model.norm.weight", ("final_norm", "scale"), None, (arch.hidden_size,), (0,)))
    if not arch.tied_head:
        entries.append(_entry("lm_head.weight", ("head",), None, (arch.vocab_size, arch.hidden_size), (0, 1)))
    return entries


def _layer_rows(arch: Architecture) -> list[tuple[str, Path, tuple[int, ...], tuple[int, ...]]]:
    """(HF name, path, HF shape with heads apart, order of our axes) for the tensors of one layer."""
    D, N, K, H, F = arch.hidden_size, arch.num_heads, arch.num_kv_heads, arch.head_dim, arch.mlp_size
    rows: list[tuple[str, Path, tuple[int, ...], tuple[int, ...]]] = [
        ("self_attn.q_proj.weight", ("attention", "q"), (N, H, D), (2, 0, 1)),
        ("self_attn.k_proj.weight", ("attention", "k"), (K, H, D), (2, 0, 1)),
        ("self_attn.v_proj.weight", ("attention", "v"), (K, H, D), (2, 0, 1)),
        ("self_attn.o_proj.weight", ("attention", "o"), (D, N, H), (1, 2, 0)),
        ("mlp.gate_proj.weight", ("mlp", "gate"), (F, D), (1, 0)),
        ("mlp.up_proj.weight", ("mlp", "up"), (F, D), (1, 0)),
        ("mlp.down_proj.weight", ("mlp", "down"), (D, F), (1, 0)),
        ("input_layernorm.weight", ("attention_norm", "scale"), (D,), (0,)),
        ("post_attention_layernorm.weight", ("mlp_norm", "scale"), (D,), (0,)),
    ]
    if arch.qkv_bias:
        rows += [
            ("self_attn.q_proj.bias", ("attention", "q_bias"), (N, H), (0, 1)),
            ("self_attn.k_proj.bias", ("attention", "k_bias"), (K, H), (0, 1)),
            ("self_attn.v_proj.bias", ("attention", "v_bias"), (K, H), (0, 1)),
        ]
    return rows


def _entry(hf_name: str, path: Path, layer: int | None, split: tuple[int, ...], order: tuple[int, ...]) -> Entry:
    return Entry(hf_name, path, layer, _hf_shape(path, split), split, order)


def _hf_shape(path: Path, split: tuple[int, ...]) -> tuple[int, ...]:
    """The HF file has the head axes of a projection in one."""
    match path[-2:]:
        case ("attention", "o"):
            return (split[0], math.prod(split[1:]))
        case ("attention", "q" | "k" | "v"):
            return (math.prod(split[:2]), split[2])
        case ("attention", _):
            return (math.prod(split),)
    return split
