"""What is asked of a student and how its answers are scored. Imports no jax."""

import dataclasses

from stratos_jax.engine.config import SamplingConfig
from stratos_jax.grading.config import GradingConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskConfig:
    """A set of problems with one protocol."""

    name: str = "held_out"  # as the report shows it
    path: str = "curate"  # JSONL of `Problem`; "curate": the held-out problems of the recipe's own curation
    protocol: str = "stratos17k"  # a protocol of `stratos_jax.prompts`
    max_problems: int | None = None
    sampling: SamplingConfig | None = None  # None: as the whole evaluation has it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateConfig:
    """Sampling, grading and statistics."""

    tasks: tuple[TaskConfig, ...] = (TaskConfig(),)
    sampling: SamplingConfig = SamplingConfig()
    grading: GradingConfig = dataclasses.field(default_factory=GradingConfig)
    grading_workers: int = 1
    confidence: float = 0.95
    bootstrap: int = 2_000  # resamples for the interval of a difference
    seed: int = 0  # of the bootstrap
