"""How problems become a data set of verified traces. Imports no jax."""

import dataclasses
from typing import Literal

from stratos_jax.grading.config import GradingConfig
from stratos_jax.types import raise_all


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProceduralConfig:
    """Problems made from a seed: several kinds, each at several lengths."""

    problems: int  # for training
    held_out: int  # for evaluation; never among the others
    kinds: tuple[str, ...] = ("dial", "total", "machine")
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ProblemsConfig:
    """Where problems come from: JSONL files of `Problem`, or the procedural generator."""

    paths: tuple[str, ...] = ()  # local or gs://
    held_out_paths: tuple[str, ...] = ()  # what training data must not contain
    procedural: ProceduralConfig | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FaultsConfig:
    """What the embedded practice teacher does wrong, as shares of its answers."""

    wrong: float = 0.04
    truncated: float = 0.02  # finish_reason "length"
    rate_limited: float = 0.03  # HTTP 429 with Retry-After
    cut_off: float = 0.01  # the connection closes before the answer is complete
    empty: float = 0.01  # HTTP 200 with an empty message


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TeacherConfig:
    """A model behind an OpenAI-compatible endpoint, and how it is asked."""

    base_url: str = ""  # empty: the embedded practice teacher, on a free loopback port
    model: str = "practice-teacher"
    api_key_variable: str = "OPENAI_API_KEY"  # the environment variable with the credential; unused by the embedded one
    temperature: float | None = None  # None: not sent
    max_tokens: int = 32_768
    samples: int = 1  # answers asked of each problem
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    concurrency: int = 64  # at most; fewer while the endpoint says 429
    timeout_seconds: float = 1800.0
    max_retries: int = 8
    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_completion_tokens: float = 0.0
    budget_usd: float | None = None  # no request is sent that could pass it
    truncated: Literal["keep", "raise_cap"] = "keep"  # an answer cut at max_tokens: set aside, or asked once more
    raised_max_tokens: int | None = None  # the cap of the second try
    port: int = 0  # of the embedded teacher; 0: any free one
    faults: FaultsConfig = FaultsConfig()
    seed: int = 0  # of the embedded teacher's faults


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SelectConfig:
    """Which verified traces become rows."""

    keep: Literal["shortest", "first", "median"] = "shortest"  # of the right traces of one problem
    max_rows: int | None = None
    fuzzy_threshold: float | None = 0.9  # Jaccard similarity of question shingles above which two are duplicates
    fuzzy_shingle: int = 5  # words of a shingle
    contamination_ngram: int = 8  # words in a row shared with a held-out question that put a problem out; 0: exact only
    contamination_common: int = (
        10  # a run of words in more training questions than these is a template, and no evidence
    )
    by_source: tuple[tuple[str, int], ...] = ()  # (source, most rows)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CurateConfig:
    """Problems -> teacher -> verdicts -> selection -> data set."""

    problems: ProblemsConfig
    teacher: TeacherConfig = TeacherConfig()
    grading: GradingConfig = dataclasses.field(default_factory=GradingConfig)
    grading_workers: int = 1
    select: SelectConfig = SelectConfig()
    prompts: str = "stratos17k"  # a protocol of `stratos_jax.prompts`

    def __post_init__(self):
        teacher, problems = self.teacher, []
        if self.problems.procedural is None and not self.problems.paths:
            problems.append("problems: give paths or procedural")
        for name in ("wrong", "truncated", "rate_limited", "cut_off", "empty"):
            if not 0 <= getattr(teacher.faults, name) <= 1:
                problems.append(f"teacher.faults.{name}: wanted 0 to 1")
        if teacher.samples < 1 or teacher.concurrency < 1:
            problems.append("teacher: samples and concurrency must be at least 1")
        if teacher.truncated == "raise_cap" and (teacher.raised_max_tokens or 0) <= teacher.max_tokens:
            problems.append("teacher.raised_max_tokens: wanted more than max_tokens where truncated is 'raise_cap'")
        if teacher.budget_usd is not None and not teacher.usd_per_million_completion_tokens:
            problems.append("teacher.budget_usd: needs the prices, usd_per_million_completion_tokens is 0")
        raise_all(problems, what="not a valid curate config")
