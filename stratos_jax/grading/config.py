"""Settings of every grader: frozen dataclasses that import nothing heavy.

In: nothing. Out: `GradingConfig` and the parts it is made of; a default stands here and nowhere else.
"""

import dataclasses

from stratos_jax.grading.code_config import CodeConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MathConfig:
    """How a math answer is found in a text and compared with the gold."""

    # Where an answer may stand when there is no box at all, tried in this order; () accepts boxed answers only.
    fallbacks: tuple[str, ...] = ("hashes", "phrase", "last_math", "last_number")
    wall_seconds: float = 5.0  # per pair; the worker is killed when it passes
    start_seconds: float = 120.0  # for a worker to start or to load sympy
    memory_mb: int = 1500  # address space of one worker
    max_answer_chars: int = 8_000  # a longer gold or answer is compared by spelling alone
    use_math_verify: bool = True  # ask math-verify where our own reader cannot read an answer
    gold_digits: int = 3  # a decimal gold with so many significant digits accepts a value that rounds to it
    answer_digits: int = 6  # a decimal answer with so many significant digits stands for an exact irrational gold


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChoiceConfig:
    """How the letter of a multiple-choice answer is found."""

    fallbacks: tuple[str, ...] = ("phrase", "last_line")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class JudgeConfig:
    """An LLM behind an OpenAI-compatible endpoint, asked where the rules could not tell."""

    base_url: str
    model: str
    api_key_variable: str = "OPENAI_API_KEY"  # the environment variable with the credential; unset: "none" is sent
    judge_wrong: bool = False  # ask about `wrong` too, not only about `unknown`
    swap_votes: bool = True  # a second vote with gold and answer swapped; both must agree
    spot_check: float = 0.02  # share of judged pairs listed in the report for a person to read
    max_answer_chars: int = 2_000
    max_problem_chars: int = 8_000
    max_tokens: int = 512
    temperature: float = 0.0
    timeout_seconds: float = 60.0
    max_retries: int = 4
    concurrency: int = 16


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GradingConfig:
    """One setting for each kind of problem."""

    math: MathConfig = dataclasses.field(default_factory=MathConfig)
    code: CodeConfig = dataclasses.field(default_factory=CodeConfig)
    choice: ChoiceConfig = dataclasses.field(default_factory=ChoiceConfig)
    judge: JudgeConfig | None = None
