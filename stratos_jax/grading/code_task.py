"""A record of the code grader, read and checked.

In: a JSON object with `id`, `response` or `code`, `tests` and, if it likes, `time_limit_s`, `memory_limit_mb`,
`checker` and `starter_code`; tests are one of

    {"kind": "stdin", "cases": [{"input": text, "output": text}]}
    {"kind": "call", "fn_name": name, "cases": [{"args": [...], "expected": value}]}
    {"kind": "assert", "code": text, "entry_point"?: name}

Out: a `Task`, or ValueError with all that is wrong.
"""

import dataclasses
import re
from collections.abc import Mapping

from stratos_jax.grading import checkers
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.types import Json

KINDS = ("stdin", "call", "assert")
FIELDS = {
    "stdin": {"kind", "cases"},
    "call": {"kind", "fn_name", "cases"},
    "assert": {"kind", "code", "entry_point"},
}
CASE_FIELDS = {"stdin": ({"input", "output"}, set()), "call": ({"args", "expected"}, {"kwargs"})}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One program with its tests and limits."""

    id: str
    code: str | None  # None: the response has none
    kind: str
    cases: tuple[Mapping[str, Json], ...]
    function: str  # call: the name; assert: the entry point, if the tests only define `check`
    test_code: str
    starter_code: str
    checker: checkers.Checker
    time_limit_s: float
    memory_limit_mb: int


def read(record: Mapping[str, Json], config: CodeConfig) -> Task:
    """The task that a record describes."""
    problems: list[str] = []
    if not isinstance(record.get("id"), (str, int)):
        problems.append("`id`: wanted a string")
    given = [name for name in ("code", "response") if isinstance(record.get(name), str)]
    if len(given) != 1:
        problems.append(f"wanted one of `code` and `response` as text, got {' and '.join(given) or 'none'}")
    tests = record.get("tests")
    problems += _check_tests(tests)
    checker = checkers.Checker()
    try:
        checker = checkers.parse(record.get("checker"))
    except (ValueError, TypeError) as error:
        problems.append(str(error))
    time_limit_s = _positive(record, "time_limit_s", config.time_limit_s, problems)
    memory_limit_mb = _positive(record, "memory_limit_mb", config.memory_limit_mb, problems)
    if problems:
        raise ValueError("; ".join(problems))
    assert isinstance(tests, Mapping)
    return Task(
        id=str(record["id"]),
        code=record["code"] if given == ["code"] else extract_code(record["response"]),
        kind=tests["kind"],
        cases=tuple(tests.get("cases", ())),
        function=tests.get("fn_name") or tests.get("entry_point") or "",
        test_code=tests.get("code", ""),
        starter_code=record.get("starter_code") or "",
        checker=checker,
        time_limit_s=float(time_limit_s),
        memory_limit_mb=int(memory_limit_mb),
    )


def _check_tests(tests: Json) -> list[str]:
    if not isinstance(tests, Mapping) or tests.get("kind") not in KINDS:
        return [f"`tests`: wanted an object whose `kind` is one of {', '.join(KINDS)}"]
    kind = tests["kind"]
    problems = [f"`tests`: unknown {name!r} in kind {kind}" for name in sorted(set(tests) - FIELDS[kind])]
    if kind == "assert":
        return problems + ([] if isinstance(tests.get("code"), str) else ["`tests.code`: wanted text"])
    if kind == "call" and not (isinstance(tests.get("fn_name"), str) and tests["fn_name"].isidentifier()):
        problems.append("`tests.fn_name`: wanted the name of a function or a method of `class Solution`")
    cases = tests.get("cases")
    if not isinstance(cases, list) or not cases:
        return [*problems, "`tests.cases`: wanted a list with at least one case"]
    needed, optional = CASE_FIELDS[kind]
    for i, case in enumerate(cases):
        if not isinstance(case, Mapping) or not needed <= set(case) <= needed | optional:
            problems.append(f"`tests.cases[{i}]`: wanted an object with {' and '.join(sorted(needed))}")
        elif kind == "stdin" and not all(isinstance(case[name], str) for name in needed):
            problems.append(f"`tests.cases[{i}]`: wanted texts")
        elif kind == "call" and not isinstance(case["args"], list):
            problems.append(f"`tests.cases[{i}].args`: wanted a list")
    return problems


def _positive(record: Mapping[str, Json], name: str, default: float, problems: list[str]) -> float:
    value = record.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        problems.append(f"`{name}`: got {value!r}, wanted a positive number")
        return default
    return value


FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([\w+#.-]*)[^\n`]*$", re.MULTILINE)
THOUGHT_ENDS = ("</think>", "<|end_of_thought|>")
BARE = re.compile(r"^(?:def \w+\(|class \w+[:(]|import \w|from [\w.]+ import |print\(|\w+ = )", re.MULTILINE)
PYTHON = ("python", "python3", "py", "py3")


def extract_code(response: str) -> str | None:
    """The last complete block in the final answer that is marked as Python, else the last unmarked one.

    A response that was cut off inside its last Python block has no code: an earlier block is a draft. One without any
    fence, but with lines that begin like a program's, is the program.
    """
    for mark in THOUGHT_ENDS:
        response = response.rpartition(mark)[2]
    if not FENCE.search(response):
        return response if BARE.search(response) else None
    marked, unmarked, opened = None, None, None
    for fence in FENCE.finditer(response):
        ticks, language = fence[1], fence[2].lower()
        if opened is None:
            opened = (ticks, language, fence.end() + 1)
        elif ticks.startswith(opened[0]) and not language:
            block = response[opened[2] : fence.start()]
            if opened[1] in PYTHON:
                marked = block
            elif not opened[1]:
                unmarked = block
            opened = None
    if opened is not None and opened[1] in PYTHON:
        return None
    return marked if marked is not None else unmarked
