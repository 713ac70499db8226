"""`stratos view`: read what a teacher or a student wrote, with the verdict on it."""

import argparse
import json
import pathlib
from collections.abc import Iterator
from typing import Any

HELP = "read the answers in a folder of curate or evaluate, with their verdicts"
EXAMPLE = "stratos view runs/quickstart/traces/evaluate --outcome wrong --limit 3"
OUTCOMES = ("right", "wrong", "unknown")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("directory", help="an output folder of curate or of evaluate")
    parser.add_argument("--outcome", choices=OUTCOMES, help="only answers with this verdict")
    parser.add_argument("--problem", help="only answers to this problem, by its id")
    parser.add_argument("--limit", type=int, default=5, help="how many at most")
    parser.add_argument("--problems", help="JSONL of the problems, where the folder has none, to show questions")
    parser.add_argument("--json", action="store_true", help="one JSON object an answer")


def run(args: argparse.Namespace) -> None:
    """Print answers one after the other."""
    folder = pathlib.Path(args.directory)
    questions = _questions(folder, args.problems)
    shown = 0
    for record in _answers(folder):
        wanted = args.outcome in (None, record["outcome"]) and args.problem in (None, record["problem_id"])
        if not wanted or shown >= args.limit:
            continue
        shown += 1
        record["question"], record["gold"] = questions.get(record["problem_id"], ("", ""))
        print(json.dumps(record) if args.json else _text(record))
    if not shown and not args.json:
        print("no such answer")


def _answers(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Samples or traces with their verdicts, in the order of the files."""
    from stratos_jax import store
    from stratos_jax.types import UserError

    name = next((n for n in ("samples.jsonl", "traces.jsonl") if (folder / n).exists()), None)
    if name is None or not (folder / "verdicts.jsonl").exists():
        raise UserError(
            "no graded answers here", where=folder, wanted="samples.jsonl or traces.jsonl, beside verdicts.jsonl"
        )
    verdicts = {record["id"]: record for _, record in store.jsonl.read_jsonl(folder / "verdicts.jsonl")}
    for _, record in store.jsonl.read_jsonl(folder / name):
        verdict = verdicts[record["id"]]
        parts = [record[key] for key in ("reasoning", "solution", "text") if record.get(key)]
        yield {
            "id": record["id"],
            "problem_id": record["problem_id"],
            "text": "\n".join(parts),
            "finish_reason": record["finish_reason"],
            "outcome": verdict["outcome"],
            "reason": verdict["reason"],
        }


def _questions(folder: pathlib.Path, given: str | None) -> dict[str, tuple[str, str]]:
    from stratos_jax import store

    beside = folder / "problems.jsonl"
    path = given or (str(beside) if beside.exists() else None)
    records = (record for _, record in store.jsonl.read_jsonl(path)) if path else ()
    return {record["id"]: (record["question"], record.get("gold", "")) for record in records}


def _text(record: dict[str, Any]) -> str:
    head = f"--- {record['id']}: {record['outcome']} ({record['reason']}; {record['finish_reason']})"
    asked = [f"{record['question']}  [{record['gold']}]"] if record["question"] else []
    return "\n".join([head, *asked, record["text"]])
