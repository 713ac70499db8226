"""`stratos grade WHAT`: verdicts on a file of answers, an audit of a test set, or the grader's own scorecard."""

import argparse
import collections
import dataclasses
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
WIDTH = 80  # columns of a terminal


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("what", choices=[*KINDS, "audit", "scorecard"], help="what to grade, or audit, or scorecard")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="settings, e.g. code.time_limit_s=3")
    parser.add_argument("--in", dest="source", metavar="X.jsonl", help="records, local or gs://")
    parser.add_argument("--out", dest="target", metavar="Y.jsonl", help="one line for each record, in the same order")
    parser.add_argument("--workers", type=int, default=1, help="processes (per node with ray) that grade at once")
    parser.add_argument("--backend", choices=["local", "ray"], default="local", help="this machine, or a Ray cluster")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="ray://host:port or auto; without it Ray starts here")
    parser.add_argument("--judge-url", metavar="URL", help="math: an OpenAI-compatible endpoint to ask about `unknown`")
    parser.add_argument("--judge-model", metavar="NAME", help="its model; settings: judge.spot_check=0.1")
    parser.add_argument("--data", metavar="FOLDER", help="scorecard: the folder with labelled sets")
    parser.add_argument("--json", action="store_true", help="one JSON object with the figures")


def run(args: argparse.Namespace) -> int:
    """Grade, audit or measure; the figures go to stdout."""
    from stratos_jax.config import override
    from stratos_jax.grading.config import GradingConfig, JudgeConfig
    from stratos_jax.types import raise_all

    if bool(args.judge_url) != bool(args.judge_model):
        raise_all(["--judge-url and --judge-model belong together"], what="no judge", do="give both, or neither")
    judge = JudgeConfig(base_url=args.judge_url, model=args.judge_model) if args.judge_url else None
    config = override(GradingConfig(judge=judge), args.overrides)
    if args.what == "scorecard":
        return scorecard(args, config)
    needed = [f"--{name}" for name, value in (("in", args.source), ("out", args.target)) if not value]
    problems = [f"{name} is missing" for name in needed]
    if args.workers < 1:
        problems.append(f"--workers: got {args.workers}, wanted at least 1")
    if args.ray_address and args.backend != "ray":
        problems.append("--ray-address belongs to --backend ray")
    if args.judge_url and args.what != "math":
        problems.append("--judge-url belongs to math")
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
    report = None
    if args.what == "math" and config.judge is not None:
        from stratos_jax.grading.judge import JudgeReport

        report = JudgeReport()
    if args.backend == "ray":
        verdicts = on_ray(args, records, config, report)
    else:
        verdicts = grading.grade(args.what, records, config, args.workers, judge_report=report)
    outcomes: collections.Counter[str] = collections.Counter()
    reasons: collections.Counter[str] = collections.Counter()

    def lines() -> Iterator[dict[str, Any]]:
        for given, verdict in zip(ids, progress(verdicts, len(ids)), strict=True):
            outcomes[verdict.outcome] += 1
            reasons[verdict.reason] += 1
            yield {**to_json(verdict), "id": given}

    started = time.monotonic()
    store.jsonl.write_jsonl(args.target, lines())
    figures = summary(args, len(ids), time.monotonic() - started, outcomes, reasons)
    return figures if report is None else {**figures, "judge": to_json(report)}


def on_ray(args: argparse.Namespace, records: Iterable[Mapping[str, Any]], config: Any, report: Any) -> Iterator[Any]:
    """The rules on the cluster; the judge, if there is one, is asked from here, so that its report is whole."""
    from stratos_jax.grading import ray_backend

    bare = dataclasses.replace(config, judge=None)
    rules = lambda found: ray_backend.grade(args.what, found, bare, args.workers, address=args.ray_address)
    if report is None:
        return rules(records)
    from stratos_jax.grading import judge

    return judge.review(records, rules, config.judge, report)


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
    lines += [f"  {count:>7}  {reason}" for reason, count in figures["reasons"].items()]
    return lines + (render_judge(figures["judge"]) if "judge" in figures else [])


def render_judge(report: Mapping[str, Any]) -> list[str]:
    """What the judge was asked, what it said, and the pairs that a person should look at."""
    tokens = f"{report['prompt_tokens']} + {report['completion_tokens']} tokens"
    lines = [f"judge {report['model']}: {report['considered']} considered, {report['asked']} asked, {tokens}"]
    lines += [f"  {count:>7}  {reason}" for reason, count in sorted(report["outcomes"].items())]
    if report["spot_checks"]:
        lines.append(f"  {len(report['spot_checks'])} to read for yourself:")
    for check in report["spot_checks"]:
        lines.append(f"  {check['id']}: {check['outcome']} ({check['reason']})")
        lines += [f"      {name:<6} {clip(check[name])}" for name in ("gold", "answer")]
        lines += [f"      vote   {clip(reply)}" for reply in check["replies"]]
    return lines


def clip(text: str) -> str:
    """One line of a terminal."""
    text = " ".join(text.split())
    return text if len(text) <= WIDTH - 13 else text[: WIDTH - 16] + "..."


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

    say = lambda name, count: print(f"measuring {name}: {count} pairs", file=sys.stderr, flush=True)
    figures = card.run(args.data, config, args.workers, say)
    print(json.dumps(figures) if args.json else "\n".join(render_card(figures)))
    return 0


def render_card(figures: Mapping[str, Any]) -> list[str]:
    """The scorecard in a terminal: one block for each set, one line for each grader."""
    lines = []
    for row in figures["sets"]:
        lines += ["", f"{row['set']}: {row['right']} right, {row['wrong']} wrong"]
        lines.append(f"  {'grader':<12} {'pairs':>6} {'recall':>8} {'false accepts':>16} {'unknown':>8} {'pairs/s':>9}")
        for name, score in row["graders"].items():
            recall = "-" if score["recall"] is None else f"{100 * score['recall']:.1f} %"
            rate = "" if score["false_accept_rate"] is None else f" ({100 * score['false_accept_rate']:.1f} %)"
            lines.append(
                f"  {name:<12} {score['pairs']:>6} {recall:>8} {str(score['false_accepts']) + rate:>16} "
                f"{score['unknown']:>8} {score['pairs_per_second']:>9}"
            )
    return lines[1:]
