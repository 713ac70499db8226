"""`stratos grade WHAT`: verdicts on a file of answers, an audit of a test set, or the grader's own scorecard."""

import argparse
import collections
import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

HELP = "grade math, code or choice answers; audit a test set; measure the grader itself"
EXAMPLE = "stratos grade code --in answers.jsonl --out verdicts.jsonl --workers 2"

KINDS = ("math", "code", "choice")
SAID_EVERY_S = 10.0
MOST_PROBLEMS = 50


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("what", choices=[*KINDS, "audit", "scorecard"], help="what to grade, or audit, or scorecard")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="settings, e.g. code.time_limit_s=3")
    parser.add_argument("--in", dest="source", metavar="X.jsonl", help="records, local or gs://")
    parser.add_argument("--out", dest="target", metavar="Y.jsonl", help="one line for each record, in the same order")
    parser.add_argument("--workers", type=int, default=1, help="processes (per node with ray) that grade at once")
    parser.add_argument("--backend", choices=["local", "ray"], default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="ray://host:port or auto; without it Ray starts here")
    parser.add_argument("--data", metavar="FOLDER", help="scorecard: the folder with labelled sets")
    parser.add_argument("--json", action="store_true", help="one JSON object with the figures")


def run(args: argparse.Namespace) -> int:
    """Grade, audit or measure; the figures go to stdout."""
    from stratos_jax.config import override
    from stratos_jax.grading.config import GradingConfig
    from stratos_jax.types import raise_all

    config = override(GradingConfig(), args.overrides)
    if args.what == "scorecard":
        return scorecard(args, config)
    needed = [f"--{name}" for name, value in (("in", args.source), ("out", args.target)) if not value]
    problems = [f"{name} is missing" for name in needed]
    if args.workers < 1:
        problems.append(f"--workers: got {args.workers}, wanted at least 1")
    if args.ray_address and args.backend != "ray":
        problems.append("--ray-address belongs to --backend ray")
    if args.what == "audit" and args.backend == "ray":
        problems.append("an audit runs on this machine: --backend local")
    raise_all(problems, what=f"cannot grade {args.what}", do=f"see `{EXAMPLE}`")
    ids = check(args.source, "code" if args.what == "audit" else args.what, config)
    figures = audit(args, config, ids) if args.what == "audit" else grade(args, config, ids)
    print(json.dumps(figures) if args.json else "\n".join(render(figures)))
    return 0


def check(source: str, kind: str, config: Any) -> list[Any]:
    """Read the whole file once; the ids, or one UserError that lists every bad line by its number."""
    from stratos_jax import store
    from stratos_jax.types import raise_all

    ids: list[Any] = []
    problems: list[str] = []
    with store.open_read(source) as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                problem = problem_of(record, kind, config)
            except ValueError as error:
                problem = f"not JSON: {error}"
            else:
                ids.append(record.get("id") if isinstance(record, dict) else None)
            if problem:
                problems.append(f"line {number}: {problem}")
    more = len(problems) - MOST_PROBLEMS
    listed = problems[:MOST_PROBLEMS] + ([f"... and {more} more"] if more > 0 else [])
    raise_all(listed, what="nothing was graded, for these lines cannot be", where=source)
    return ids


def problem_of(record: Any, kind: str, config: Any) -> str:
    """What is wrong with one record; empty where nothing is."""
    from stratos_jax.grading import code_task

    if not isinstance(record, Mapping):
        return "not a JSON object"
    if kind == "code":
        try:
            code_task.read(record, config.code)
        except ValueError as error:
            return str(error)
        return ""
    wrong = [f"`{name}` is missing" for name in ("id", "gold") if record.get(name) is None]
    if ("answer" in record) == ("response" in record):
        wrong.append("wanted one of `answer` and `response`")
    if kind == "choice":
        count = record.get("num_choices")
        if count is not None and not (isinstance(count, int) and 2 <= count <= 26):
            wrong.append(f"`num_choices`: got {count!r}, wanted 2 to 26")
    return "; ".join(wrong)


def grade(args: argparse.Namespace, config: Any, ids: list[Any]) -> dict[str, Any]:
    """Grade the file; each line carries the id as it came."""
    from stratos_jax import grading, store
    from stratos_jax.types import to_json

    records = (record for _, record in store.jsonl.read_jsonl(args.source))
    if args.backend == "ray":
        from stratos_jax.grading import ray_backend

        verdicts = ray_backend.grade(args.what, records, config, args.workers, address=args.ray_address)
    else:
        verdicts = grading.grade(args.what, records, config, args.workers)
    outcomes: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()

    def lines() -> Iterator[dict[str, Any]]:
        for given, verdict in zip(ids, progress(verdicts, len(ids)), strict=True):
            outcomes[verdict.outcome] += 1
            reasons[verdict.reason] += 1
            yield {**to_json(verdict), "id": given}

    started = time.monotonic()
    store.jsonl.write_jsonl(args.target, lines())
    return summary(args, len(ids), time.monotonic() - started, outcomes, reasons)


def audit(args: argparse.Namespace, config: Any, ids: list[Any]) -> dict[str, Any]:
    """Audit the file; each line says whether a problem can be kept."""
    from stratos_jax import store
    from stratos_jax.grading import audit as auditor
    from stratos_jax.types import to_json

    records = (record for _, record in store.jsonl.read_jsonl(args.source))
    outcomes: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()

    def lines() -> Iterator[dict[str, Any]]:
        findings = auditor.audit(records, config.code, args.workers)
        for given, finding in zip(ids, progress(findings, len(ids)), strict=True):
            outcomes["kept" if finding.keep else "excluded"] += 1
            reasons[finding.reason] += 1
            yield {**to_json(finding), "id": given}

    started = time.monotonic()
    store.jsonl.write_jsonl(args.target, lines())
    return summary(args, len(ids), time.monotonic() - started, outcomes, reasons)


def summary(
    args: argparse.Namespace, count: int, seconds: float, outcomes: Mapping, reasons: Mapping
) -> dict[str, Any]:
    """The figures of one run."""
    return {
        "what": args.what,
        "in": args.source,
        "out": args.target,
        "records": count,
        "outcomes": dict(outcomes),
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        "seconds": round(seconds, 3),
        "per_second": round(count / seconds, 2) if seconds else None,
    }


def render(figures: Mapping[str, Any]) -> list[str]:
    """The figures as a person reads them."""
    outcomes = ", ".join(f"{count} {name}" for name, count in figures["outcomes"].items()) or "no records"
    lines = [f"{figures['what']}: {outcomes} ({figures['seconds']} s, {figures['per_second']}/s) -> {figures['out']}"]
    return lines + [f"  {count:>7}  {reason}" for reason, count in figures["reasons"].items()]


def progress(items: Iterable[Any], total: int) -> Iterator[Any]:
    """Pass items on; a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import track

        yield from track(items, "grading", total=total, console=Console(stderr=True), transient=True)
        return
    started = said = time.monotonic()
    for done, item in enumerate(items, start=1):
        yield item
        now = time.monotonic()
        if now - said > SAID_EVERY_S:
            said, rate = now, done / (now - started)
            left = (total - done) / rate
            print(f"graded {done} of {total}, {rate:.1f}/s, {left:.0f} s left", file=sys.stderr, flush=True)


def scorecard(args: argparse.Namespace, config: Any) -> int:
    """Measure the grader on every labelled set that is there."""
    from stratos_jax.grading import scorecard as card

    figures = card.run(args.data, config, args.workers)
    print(json.dumps(figures) if args.json else card.render(figures))
    return 0
