"""Verifiers: was an answer right, wrong, or can we not tell? One grader for curation and for evaluation.

In: records as JSON objects, one kind at a time (see `math`, `choice`, `code`).
Out: a `Verdict` for each, in input order.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from stratos_jax.grading.config import ChoiceConfig, CodeConfig, GradingConfig, JudgeConfig, MathConfig
from stratos_jax.types import UserError, Verdict

if TYPE_CHECKING:
    from stratos_jax.grading.judge import JudgeReport

__all__ = ["ChoiceConfig", "CodeConfig", "GradingConfig", "JudgeConfig", "MathConfig", "grade"]

KINDS = ("math", "choice", "code")


def grade(
    kind: str,
    records: Iterable[Mapping[str, Any]],
    config: GradingConfig | None = None,
    workers: int = 1,
    judge_report: "JudgeReport | None" = None,
) -> Iterator[Verdict]:
    """Grade records of one kind; with `config.judge` set, it is asked about the math that the rules leave open."""
    config = config or GradingConfig()
    if kind == "math":
        from stratos_jax.grading import math

        if config.judge is None:
            return math.grade(records, config.math, workers)
        from stratos_jax.grading import judge

        rules = functools.partial(math.grade, config=config.math, workers=workers)
        return judge.review(records, rules, config.judge, judge_report)
    if kind == "choice":
        from stratos_jax.grading import choice

        return choice.grade(records, config.choice)
    if kind == "code":
        from stratos_jax.grading import code

        return code.grade(records, config.code, workers)
    raise UserError("no such kind of problem", got=kind, wanted=" | ".join(KINDS))
