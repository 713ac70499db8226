"""How the student is trained; the defaults are the published Bespoke-Stratos run's. Imports no jax."""

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW and its schedule."""

    peak_lr: float = 1e-5
    warmup_ratio: float = 0.1  # of all steps
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    final_lr_ratio: float = 0.0  # of the peak
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay_norms_and_biases: bool = False
    clip_norm: float = 1.0
    moments: Literal["float32", "bfloat16", "int8"] = "float32"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LoraConfig:
    """Low-rank adapters instead of all weights."""

    rank: int = 64
    alpha: float = 128.0
    targets: tuple[str, ...] = ("q", "k", "v", "o", "gate", "up", "down")
    quantize_base: Literal["none", "int8", "nf4"] = "none"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LossConfig:
    """How token losses become one number."""

    reduction: Literal["global_token", "per_rank_token", "sequence_mean"] = "global_token"
    ranks: int = 8  # of the original run; per_rank_token only
    accumulation: int = 12  # of the original run; per_rank_token only
    chunk_tokens: int = 1024  # logits exist for this many tokens of a row at a time


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointConfig:
    """When state is saved and what is kept."""

    every_steps: int = 100
    keep_last: int = 2
    keep_every_steps: int | None = None
    grace_seconds: float = 30.0  # how long a preempted host may live; a slower save is warned of


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One training run."""

    rows_per_step: int  # global rows of an optimizer step, whatever the number of chips
    epochs: float = 3.0
    max_steps: int | None = None  # stop earlier, for trials
    seed: int = 42
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    lora: LoraConfig | None = None
    remat: str = "auto"  # a policy's name, or auto
    rows_per_device: int | None = None  # micro-batch; chosen from the mesh when None
    checkpoint: CheckpointConfig = CheckpointConfig()
    log_every_steps: int = 1
    sinks: tuple[Literal["tensorboard", "wandb"], ...] = ()  # besides metrics.jsonl, which is always written
    held_out_fraction: float = 0.0
    eval_every_steps: int | None = None
    sample_every_steps: int | None = None  # the student answers held-out problems of the recipe's first task
    sample_problems: int = 32
    sample_max_tokens: int = 1024
    profile_steps: tuple[int, ...] = ()
    on_bad_step: Literal["stop", "skip"] = "stop"  # a loss or gradient that is not finite, or a spike
    spike_factor: float | None = None  # a loss this many times its running mean is a spike
    watchdog_seconds: float = 1800.0  # without a finished step: stacks are dumped, exit code 42
