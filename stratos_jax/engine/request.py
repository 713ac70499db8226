"""What the engine is asked and what it gives back. Imports no jax.

In: token ids and sampling parameters. Out: token ids, in the order in which they are complete.
"""

import dataclasses
import hashlib
from typing import Literal

from stratos_jax.engine.config import SamplingConfig
from stratos_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One sequence to be continued; its noise depends on (sampling.seed, problem_key, sample_index, position) alone."""

    id: str
    tokens: tuple[int, ...]
    sampling: SamplingConfig
    problem_key: str = ""
    sample_index: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """The continuation, its end token included."""

    id: str
    tokens: tuple[int, ...]
    finish_reason: Literal["stop", "length"]


def noise_words(request: Request) -> tuple[int, int, int]:
    """(seed, problem, sample) as the three 32-bit words from which a sequence's noise is drawn."""
    digest = hashlib.sha256(request.problem_key.encode()).digest()
    return request.sampling.seed & 0xFFFFFFFF, int.from_bytes(digest[:4], "little"), request.sample_index


def check(request: Request, vocab_size: int, max_positions: int) -> list[str]:
    """What is wrong with a request."""
    problems = []
    if not request.tokens:
        problems.append(f"{request.id}: no tokens to continue")
    elif max(request.tokens) >= vocab_size or min(request.tokens) < 0:
        problems.append(f"{request.id}: token ids go up to {max(request.tokens)}, the model has {vocab_size}")
    if len(request.tokens) >= max_positions:
        problems.append(f"{request.id}: {len(request.tokens)} tokens, but the model has {max_positions} positions")
    return problems


def check_sampling(sampling: SamplingConfig) -> None:
    """Refuse settings that mean nothing."""
    wrong = [
        f"{name}: got {value}, wanted {wanted}"
        for name, value, wanted, good in (
            ("temperature", sampling.temperature, "0 or more", sampling.temperature >= 0),
            ("top_p", sampling.top_p, "above 0, up to 1", 0 < sampling.top_p <= 1),
            ("top_k", sampling.top_k, "0 (all) or more", sampling.top_k >= 0),
            ("max_tokens", sampling.max_tokens, "at least 1", sampling.max_tokens >= 1),
            ("samples", sampling.samples, "at least 1", sampling.samples >= 1),
        )
        if not good
    ]
    if wrong:
        raise UserError("not a way to sample", got="; ".join(wrong))
