"""Grade math answers: extract, compare cheaply, and send what is left to killable workers.

In: records `{"id", "gold", "response"}` (full text) or `{"id", "gold", "answer"}`; optional `"problem"`, and optional
`"precision"` (absolute tolerance, or one for each value of a list). Out: one `Verdict` for each record, in input order.
Reasons: `math.exact`, `math.number`, `math.<path>` for the comparison that said right; `math.different`,
`math.no_answer.<why>` for wrong; `unknown.<why>` where the grader could not tell.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from stratos_jax.grading.config import MathConfig
from stratos_jax.grading.extract import BOX, extract_answer
from stratos_jax.grading.math_worker import Job, WorkerPool
from stratos_jax.types import UserError, Verdict

PLAIN_NUMBER = re.compile(r"[-+]?(?:\d{1,30}(?:\.\d{1,30})?|\.\d{1,30})")


def grade(records: Iterable[Mapping[str, Any]], config: MathConfig, workers: int = 1) -> Iterator[Verdict]:
    """Verdicts in input order; records are read as they are needed."""
    with WorkerPool(config, workers) as pool:
        for job in pool.in_order(_prepare(record, config) for record in records):
            assert job.decision is not None
            identity, extracted = job.tag  # type: ignore[misc]
            outcome, reason = job.decision
            yield Verdict(id=identity, outcome=outcome, reason=reason, extracted=extracted, seconds=job.seconds)  # type: ignore[arg-type]


def _prepare(record: Mapping[str, Any], config: MathConfig) -> Job:
    """Extract, and decide what needs no reading."""
    identity = str(record["id"]) if "id" in record else ""
    if "gold" not in record or ("answer" in record) == ("response" in record):
        raise UserError(
            "a math record cannot be graded",
            where=f"id {identity!r}",
            got=f"fields {', '.join(record)}",
            wanted='"id", "gold" and one of "response" or "answer"',
        )
    gold, answer, why = str(record["gold"]), None, ""
    if "answer" in record:
        answer = str(record["answer"])
        if BOX.search(answer):
            found = extract_answer(answer, ())
            answer, why = found.answer, found.rule
    else:
        found = extract_answer(str(record["response"]), config.fallbacks)
        answer, why = found.answer, found.rule
    if answer is None or not answer.strip():
        return Job(tag=(identity, ""), request=None, decision=("wrong", f"math.no_answer.{why or 'empty'}"))
    if BOX.search(gold):
        gold = extract_answer(gold, ()).answer or ""
    tag = (identity, answer)
    decision = _at_once(gold, answer, config)
    if decision:
        return Job(tag=tag, request=None, decision=decision)
    request = {
        "gold": gold,
        "answer": answer,
        "problem": str(record.get("problem") or ""),
        "precision": record.get("precision"),
    }
    return Job(tag=tag, request=request)


def _at_once(gold: str, answer: str, config: MathConfig) -> tuple[str, str] | None:
    """Same spelling, or two plain integers or decimals of equal value; None where more must be read."""
    if not gold.strip():
        return "unknown", "unknown.gold_empty"
    if _spelling(gold) == _spelling(answer):
        return "right", "math.exact"
    if max(len(gold), len(answer)) > config.max_answer_chars:
        return "unknown", "unknown.too_long"
    left, right = gold.strip(" $"), answer.strip(" $")
    if PLAIN_NUMBER.fullmatch(left) and PLAIN_NUMBER.fullmatch(right):
        if Fraction(left) == Fraction(right):
            return "right", "math.number"
        if "." not in left and "." not in right:
            return "wrong", "math.different"
    return None


def _spelling(text: str) -> str:
    return re.sub(r"\s+", " ", text.strip().strip("$").strip()).removesuffix(".")
