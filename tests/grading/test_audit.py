"""Which statements ask for a special judge, and references that do not always pass."""

import pytest
from helpers import test_data_dir

from stratos_jax.grading import audit, code_task
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.sandbox import Sandbox


@pytest.mark.parametrize(
    "statement",
    [
        "If there are multiple solutions, print any.",
        "If there are several possible answers, you may output any of them.",
        "You can return the answer in any order.",
        "Your answer is accepted if its absolute or relative error does not exceed 10^{-6}.",
        "Answers within 10^-5 of the actual value will be accepted.",
        "Print any valid sequence.",
    ],
)
def test_statements_with_several_right_answers(statement):
    assert audit.SPECIAL_JUDGE.search(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "Print the number of ways. There are many people in any town.",
        "Print YES if any of the strings is a palindrome.",
        "It can be shown that the answer is unique.",
        "You can output the answer in any case (upper or lower).",
        "Return the maximum sum of any subarray.",
    ],
)
def test_statements_with_one_right_answer(statement):
    assert not audit.SPECIAL_JUDGE.search(statement)


def test_a_reference_that_passes_now_and_then_is_flaky(monkeypatch):
    outcomes = iter(["right", "wrong"])
    real = audit.code.grade_one

    def grade_one(sandbox, task, config):
        code = "print(1)" if next(outcomes) == "right" else "print(2)"
        changed = {"id": task.id, "code": code, "tests": {"kind": task.kind, "cases": [*task.cases]}}
        return real(sandbox, code_task.read(changed, config), config)

    monkeypatch.setattr(audit.code, "grade_one", grade_one)
    record = {"id": "p", "code": "x", "tests": {"kind": "stdin", "cases": [{"input": "", "output": "1"}]}}
    with Sandbox(packages=(), stack_mb=64) as sandbox:
        found = audit.audit_one(sandbox, record, CodeConfig(packages=()))
    assert (found.keep, found.reason) == (False, "audit.reference_flaky")


def test_statements_of_a_public_benchmark():
    """About one in ten LiveCodeBench statements allows several answers or an error, none of most easy ones."""
    folder = test_data_dir()
    if folder is None:
        return
    import json

    rows = [json.loads(line) for line in (folder / "livecodebench_v5_o1mini.jsonl").read_text().splitlines()]
    share = sum(bool(audit.SPECIAL_JUDGE.search(row["question_content"])) for row in rows) / len(rows)
    assert 0.03 < share < 0.2
