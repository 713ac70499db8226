"""What becomes of conversations on their way to packed rows. Imports no jax."""

import dataclasses
from typing import Literal

from stratos_jax.types import raise_all


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SourceConfig:
    """One set of conversations in the mix.

    A source offers `min(samples, max_samples) * epochs` draws. Its share of the mix is proportional to
    `weight * offered ** (1 / temperature)`; the mix is as large as the shares allow without any source giving
    more than it offers. With the defaults every sample of every source is taken once.
    """

    path: str  # JSONL, parquet or a folder of them, local or gs://; a hub id; "curate" for the recipe's own data set
    name: str = ""  # shown in statistics; the path's last part when empty
    weight: float = 1.0  # beside the other sources
    epochs: float = 1.0  # how often its samples are offered; 0.5 offers half of them
    max_samples: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TokenizerConfig:
    """Where the tokenizer comes from; a small one can be trained on the data."""

    source: str = ""  # an HF folder or hub id; empty: the recipe's model source
    train_vocab_size: int | None = None  # train a SentencePiece model of this size instead


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardsConfig:
    """Tokenize, mask, mix, pack and write."""

    sources: tuple[SourceConfig, ...]
    tokenizer: TokenizerConfig = TokenizerConfig()
    policy: Literal["clean", "stratos17k"] = "clean"
    target: Literal["trace", "answer"] = "trace"  # what the student learns to write: all, or the solution alone
    row_tokens: int = 16_384
    packing: bool | None = None  # None: as the policy has it; "clean" packs, "stratos17k" gives each sample a row
    too_long: Literal["drop", "keep_head"] = "drop"  # policy "clean" only; counted either way
    bad_rows: Literal["stop", "skip"] = "stop"  # malformed input; "skip" counts them
    balance_rows: int | None = None  # compose this many rows (= rows per step) of like attention work into a step
    curriculum_stages: int = 1  # each epoch goes from short samples to long ones in so many groups of like size
    prefix_fraction: float = 1.0  # train on the first part of each trace
    temperature: float = 1.0  # above 1 evens out the sources' shares
    seed: int = 42
    num_shards: int | None = None  # chosen from the size when None

    def __post_init__(self):
        problems = [
            f"shards.{name}: got {value}, wanted {wanted}"
            for name, value, wanted, good in (
                ("row_tokens", self.row_tokens, "at least 2", self.row_tokens >= 2),
                ("prefix_fraction", self.prefix_fraction, "above 0, up to 1", 0 < self.prefix_fraction <= 1),
                ("temperature", self.temperature, "above 0", self.temperature > 0),
                ("curriculum_stages", self.curriculum_stages, "at least 1", self.curriculum_stages >= 1),
                ("balance_rows", self.balance_rows, "at least 1", self.balance_rows is None or self.balance_rows > 0),
                ("num_shards", self.num_shards, "at least 1", self.num_shards is None or self.num_shards > 0),
                ("sources", self.sources, "at least one", len(self.sources) > 0),
            )
            if not good
        ]
        for index, source in enumerate(self.sources):
            if source.weight <= 0 or source.epochs <= 0:
                problems.append(
                    f"shards.sources[{index}]: weight and epochs must be above 0; leave a source out instead"
                )
        if self.policy == "stratos17k" and self.too_long != "drop":
            problems.append("shards.too_long: policy 'stratos17k' has its own rule; leave too_long at its default")
        if self.curriculum_stages > 1 and self.balance_rows:
            problems.append("shards.balance_rows and shards.curriculum_stages both decide which rows meet: choose one")
        raise_all(problems, what="not a valid shards config")

    @property
    def packed(self) -> bool:
        """Whether samples share rows."""
        return self.policy == "clean" if self.packing is None else self.packing
