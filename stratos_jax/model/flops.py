"""Floating-point operations that training needs, counted on paper: the numerator of MFU.

In: an `Architecture` and row lengths. Out: FLOPs. The convention: a multiplication and an addition are two; each
weight of a matrix product counts 2 per token forward and 4 backward (the embedding lookup is none; the head, tied or
not, is one); attention counts the score and value products of the causal half alone, 2 * T^2 * N * H per layer forward
for a row of one document, and twice that backward. Recomputation (remat) and the optimizer count nothing.
"""

from collections.abc import Sequence

from stratos_jax.model.config import Architecture

TRAIN = 3  # forward and backward, in units of forward


def matmul_params(arch: Architecture) -> int:
    """Weights that take part in a matrix product for each token."""
    D, H, F = arch.hidden_size, arch.head_dim, arch.mlp_size
    attention = D * H * (2 * arch.num_heads + 2 * arch.num_kv_heads)
    return arch.num_layers * (attention + 3 * D * F) + arch.vocab_size * D


def attention_flops(arch: Architecture, document_lengths: Sequence[int]) -> int:
    """Forward FLOPs of the score and value products for documents that see only themselves, causally."""
    pairs = sum(length * (length + 1) // 2 for length in document_lengths)
    return 4 * arch.num_layers * arch.num_heads * arch.head_dim * pairs


def forward_flops(arch: Architecture, document_lengths: Sequence[int]) -> int:
    """Forward FLOPs of one packed row, its padding left out."""
    return 2 * matmul_params(arch) * sum(document_lengths) + attention_flops(arch, document_lengths)


def train_flops(arch: Architecture, document_lengths: Sequence[int]) -> int:
    """FLOPs of forward and backward over one packed row."""
    return TRAIN * forward_flops(arch, document_lengths)


def train_flops_per_token(arch: Architecture, length: int) -> float:
    """FLOPs of forward and backward per token, for rows of one document of `length` tokens."""
    return train_flops(arch, [length]) / length
