"""How a checkpoint becomes an HF folder. Imports no jax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConvertConfig:
    """Export and its proof."""

    dtype: Literal["bfloat16", "float32", "float16", "keep"] = "bfloat16"
    max_shard_gib: float = 4.0
    vocab_rows: int | None = None  # rows of embedding and head to write; None: as trained
    proof: bool = True  # bitwise round trip, then logits against an independent forward pass
    proof_tokens: int = 512
    proof_prompts: int = 2
    proof_max_kl: float = 1e-4  # nats, worst position, both sides in float32
    proof_max_diff: float = 1e-3  # largest difference of two logits, as a share of the largest logit
