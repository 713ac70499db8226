"""Verdicts on programs: each test of each program in its own confined process.

In: records (see `code_task`), in any number. Out: a `Verdict` for each, in input order:

    right    code.passed
    wrong    code.wrong_answer, code.runtime_error, code.time_limit, code.memory_limit, code.output_limit,
             code.compile_error, code.no_code
    unknown  unknown.timeout (the machine was too busy to tell), unknown.infra (the sandbox failed),
             unknown.bad_tests (the test code or the checker itself is broken)

`extracted` is the program; where a test failed, its last line is a comment that says which.
"""

import itertools
import re
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from stratos_jax.grading import checkers, code_task, pool
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.code_task import Task
from stratos_jax.grading.sandbox import MODES, Limits, Run, Sandbox, SandboxError, probe_modes
from stratos_jax.types import Outcome, UserError, Verdict

ATTEMPTS = 2  # of a sandbox that fails, before the verdict is unknown
CHECK_CALL = "def run(input, output, expected):\n    return bool(check(input, output, expected))\n"


def grade(
    records: Iterable[Mapping[str, Any]], config: CodeConfig | None = None, workers: int = 1
) -> Iterator[Verdict]:
    """Grade programs with `workers` sandboxes; a malformed record is a UserError."""
    config = config or CodeConfig()
    require_isolation(config)
    tasks = (read_task(record, config, f"record {place}") for place, record in enumerate(records, start=1))
    make = lambda: Sandbox(packages=config.packages, stack_mb=config.stack_mb)
    return pool.ordered(lambda sandbox, task: grade_one(sandbox, task, config), tasks, make, workers)


def require_isolation(config: CodeConfig) -> None:
    """Refuse to run programs behind weaker walls than the config asks for."""
    mode, problems = probe_modes()
    if MODES.index(mode) > MODES.index(config.weakest_isolation):
        raise UserError(
            "this machine isolates programs less than the config demands",
            got=f"{mode} ({'; '.join(f'no {m}: {p}' for m, p in problems.items())})",
            wanted=config.weakest_isolation,
            do="allow unprivileged user namespaces, or lower `weakest_isolation` for programs that you trust",
        )


def read_task(record: Mapping[str, Any], config: CodeConfig, where: str) -> Task:
    """A record as a task; `where` names it in the error."""
    try:
        return code_task.read(record, config)
    except ValueError as error:
        raise UserError("not a record of the code grader", where=where, got=str(error)) from None


def grade_one(sandbox: Sandbox, task: Task, config: CodeConfig) -> Verdict:
    """The verdict on one program; a broken sandbox is replaced and asked once more."""
    if task.code is None:
        return Verdict(id=task.id, outcome="wrong", reason="code.no_code")
    seconds = 0.0

    def count(run: Run) -> Run:
        nonlocal seconds
        seconds += run.wall_s
        return run

    for attempt in range(ATTEMPTS):
        try:
            reason, note = GRADERS[task.kind](sandbox, task, config, count)
            break
        except SandboxError as error:
            reason, note = "unknown.infra", str(error)
            if attempt + 1 < ATTEMPTS:
                sandbox.restart()
    outcome: Outcome = "right" if reason == "code.passed" else "unknown" if reason.startswith("unknown") else "wrong"
    extracted = task.code if not note else f"{task.code.rstrip()}\n# {note}\n"
    return Verdict(id=task.id, outcome=outcome, reason=reason, extracted=extracted, seconds=round(seconds, 4))


Count = Callable[[Run], Run]
Ending = tuple[str, str]  # reason, note


def _grade_stdin(sandbox: Sandbox, task: Task, config: CodeConfig, count: Count) -> Ending:
    assert task.code is not None
    preload = _preload(task.code, config)
    for place, case in enumerate(task.cases):
        limits = _limits(task, config, len(case["output"]))
        run = count(sandbox.script(task.code, case["input"].encode("utf-8", "surrogatepass"), limits, preload))
        reason = _failure(run, limits)
        if not reason:
            output = run.output.decode("utf-8", "replace")
            if task.checker.kind == "custom":
                reason = _custom(sandbox, task, limits, [case["input"], output, case["output"]])
            elif not checkers.same_text(task.checker, output, case["output"]):
                reason = "code.wrong_answer"
        if reason:
            return reason, _note(place, task, run)
    return "code.passed", ""


def _grade_call(sandbox: Sandbox, task: Task, config: CodeConfig, count: Count) -> Ending:
    assert task.code is not None
    preload, limits = _preload(task.code, config), _limits(task, config, 0)
    for place, case in enumerate(task.cases):
        job = {
            "code": task.code,
            "function": task.function,
            "args": case["args"],
            "kwargs": case.get("kwargs", {}),
            "recursion_limit": config.recursion_limit,
        }
        run = count(sandbox.call(job, limits, preload))
        reason = _failure(run, limits)
        if not reason and "value" not in run.claim:
            reason = "code.runtime_error"  # it ended the process on its own before the call came back
        if not reason:
            value = run.claim["value"]
            if task.checker.kind == "custom":
                reason = _custom(sandbox, task, limits, [case["args"], value, case["expected"]])
            elif not _same_value(task.checker, value, case["expected"]):
                reason = "code.wrong_answer"
        if reason:
            return reason, _note(place, task, run)
    return "code.passed", ""


def _same_value(checker: checkers.Checker, value: Any, expected: Any) -> bool:
    try:
        return checkers.same_value(checker, value, expected)
    except RecursionError:
        return False  # nested deeper than any expected value


def _grade_assert(sandbox: Sandbox, task: Task, config: CodeConfig, count: Count) -> Ending:
    assert task.code is not None
    tests = task.test_code
    if task.function:
        tests += f"\n\ncheck({task.function})\n"
    limits = _limits(task, config, 0)
    run = count(
        sandbox.exam(
            {"code": tests, "starter_code": task.starter_code},
            {"code": task.code, "recursion_limit": config.recursion_limit},
            limits,
        )
    )
    reason = _failure(run, limits)
    if run.claim.get("error") == "bad_tests":
        reason = "unknown.bad_tests"
    elif run.claim.get("error") == "AssertionError":
        reason = "code.wrong_answer"
    elif not reason and run.claim.get("passed") is not True:
        reason = "unknown.infra"
    return (reason, _note(0, task, run)) if reason else ("code.passed", "")


GRADERS = {"stdin": _grade_stdin, "call": _grade_call, "assert": _grade_assert}


def _custom(sandbox: Sandbox, task: Task, limits: Limits, args: list) -> str:
    """Ask the problem's own checker, in a process that the program never touched."""
    job = {"code": task.checker.code + "\n\n" + CHECK_CALL, "function": "run", "args": args, "kwargs": {}}
    run = sandbox.call({**job, "recursion_limit": 10_000}, limits)
    answer = run.claim.get("value")
    if run.status or run.killed or not isinstance(answer, bool):
        return "unknown.bad_tests"
    return "" if answer else "code.wrong_answer"


def _limits(task: Task, config: CodeConfig, expected_chars: int) -> Limits:
    seconds = task.time_limit_s
    return Limits(
        cpu_s=seconds,
        wall_s=seconds * config.wall_factor + 1,
        patience_s=seconds * config.patience_factor + 10,
        memory_mb=task.memory_limit_mb,
        address_slack_mb=config.stack_mb + 512,
        output_mb=max(config.output_mb, (4 * expected_chars >> 20) + 1),
        scratch_mb=config.scratch_mb,
        threads=config.threads,
    )


def _failure(run: Run, limits: Limits) -> str:
    """Why a run fails whatever it printed or returned; empty where it ended as it should."""
    if run.killed == "starved":
        return "unknown.timeout"
    if run.killed or run.status == -signal.SIGXCPU or run.cpu_s > limits.cpu_s:
        return "code.time_limit"
    error = run.claim.get("error")
    if run.rss_mb > limits.memory_mb or (run.status and error == "MemoryError"):
        return "code.memory_limit"
    if len(run.output) >= limits.output_mb << 20:
        return "code.output_limit"
    if run.status:
        return "code.compile_error" if error == "compile" else "code.runtime_error"
    return ""


def _preload(code: str, config: CodeConfig) -> list[str]:
    """Packages that the program imports and the fork server may import once for all programs."""
    return [name for name in config.packages if re.search(rf"^\s*(import|from)\s+{re.escape(name)}\b", code, re.M)]


def _note(place: int, task: Task, run: Run) -> str:
    """For people: which test failed, and how."""
    claim = " ".join(itertools.islice((str(run.claim[k]) for k in ("error", "text") if run.claim.get(k)), 2))
    ended = f"killed: {run.killed}" if run.killed else f"status {run.status}"
    which = f"test {place} of {len(task.cases)}" if task.cases else "tests"
    return f"failed {which} ({ended}) {claim}".replace("\n", " ").strip()[:300]
