"""Audit of test sets: which coding problems can be graded at all, found by running their own reference solutions.

In: records of the code grader whose `code` (or `response`) is the reference; `problem`, the statement, if there is one.
Out: a `Finding` for each, in input order: keep it, or exclude it and why:

    audit.reference_fails      the reference does not pass its own tests (`detail` has the grader's reason)
    audit.reference_flaky      it passes once and fails once
    audit.needs_checker        it passes under a more tolerant checker only, which the record should declare
    audit.special_judge        the statement allows several answers, but no checker for that is declared
    audit.cannot_run           the grader could not tell (tests broken, machine too busy)
"""

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stratos_jax.grading import code, code_task, pool
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.sandbox import Sandbox
from stratos_jax.types import UserError

RUNS = 2
TOLERANT = ("tokens", "floats", "unordered")  # tried in this order where the declared checker says wrong
SPECIAL_JUDGE = re.compile(
    r"if there (?:are|is) (?:several|multiple|many|more than one)[^.]{0,80}"
    r"(?:print|output|return|find|choose)?[^.]{0,40}\bany\b"
    r"|\b(?:print|output|return)\b[^.]{0,60}\bany (?:one )?of (?:them|these)"
    r"|\bany (?:valid|correct|suitable|possible|such)\b[^.]{0,30}(?:answer|solution|order|output|sequence|permutation)"
    r"|\bin any order\b"
    r"|\b(?:absolute|relative) (?:or (?:absolute|relative) )?error\b"
    r"|answers? within 10\s*\^?\s*\{?-\d",
    re.IGNORECASE,
)
ANSWERED_BY = {"floats", "unordered", "custom"}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """Whether one problem's tests can be trusted."""

    id: str
    keep: bool
    reason: str  # "audit.ok" or one of the above
    detail: str = ""
    seconds: float = 0.0


def audit(
    records: Iterable[Mapping[str, Any]], config: CodeConfig | None = None, workers: int = 1
) -> Iterator[Finding]:
    """Run each reference `RUNS` times and say what became of it."""
    config = config or CodeConfig()
    code.require_isolation(config)
    make = lambda: Sandbox(packages=config.packages, stack_mb=config.stack_mb)
    return pool.ordered(lambda sandbox, record: audit_one(sandbox, record, config), records, make, workers)


def audit_one(sandbox: Sandbox, record: Mapping[str, Any], config: CodeConfig) -> Finding:
    """One problem: its tests against its reference, then its statement against its checker."""
    task = read_reference(record, config)
    verdicts = [code.grade_one(sandbox, task, config) for _ in range(RUNS)]
    outcomes = {verdict.outcome for verdict in verdicts}
    seconds = sum(verdict.seconds for verdict in verdicts)
    make = lambda keep, reason, detail: Finding(
        id=task.id, keep=keep, reason=f"audit.{reason}", detail=detail, seconds=round(seconds, 4)
    )
    failing = next((v for v in verdicts if v.outcome != "right"), None)
    if failing and "unknown" in outcomes:
        return make(False, "cannot_run", failing.reason)
    if failing and "right" in outcomes:
        return make(False, "reference_flaky", failing.reason)
    if failing:
        helps = failing.reason == "code.wrong_answer" and _helpful_checker(sandbox, task, config)
        if helps:
            return make(False, "needs_checker", helps)
        return make(False, "reference_fails", f"{failing.reason} {failing.extracted.splitlines()[-1:]}")
    phrase = SPECIAL_JUDGE.search(str(record.get("problem") or ""))
    if phrase and task.kind != "assert" and task.checker.kind not in ANSWERED_BY:
        return make(False, "special_judge", " ".join(phrase[0].split()))
    return make(True, "ok", "")


def read_reference(record: Mapping[str, Any], config: CodeConfig) -> code_task.Task:
    """The reference as a task; a UserError where the record has none."""
    task = code.read_task(record, config, f"id {record.get('id')!r}")
    if task.code is None:
        raise UserError("no program in the reference", where=f"id {task.id!r}", wanted="`code`, or a fenced block")
    return task


def _helpful_checker(sandbox: Sandbox, task: code_task.Task, config: CodeConfig) -> str:
    """The first more tolerant checker under which the reference passes; empty where none helps."""
    if task.kind == "assert":
        return ""
    for kind in TOLERANT:
        checker = dataclasses.replace(task.checker, kind=kind, code="")
        if code.grade_one(sandbox, dataclasses.replace(task, checker=checker), config).outcome == "right":
            return kind
    return ""
