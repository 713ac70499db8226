"""How often is the grader wrong? Measured on every labelled set in a folder, beside the graders that others use.

In: a folder with public data sets (any part of them) and a `GradingConfig`. Out: a dictionary of figures, and a table
of it in markdown. Each set has pairs labelled right and wrong: recall is the share of right ones that are accepted, a
false accept is a wrong one that is accepted. A benchmark without labels gives each gold against itself, and against the
gold of another problem, shuffled, of another value.
"""

import collections
import dataclasses
import json
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stratos_jax.grading import code, math
from stratos_jax.grading.config import GradingConfig
from stratos_jax.grading.extract import BOX, extract_answer
from stratos_jax.grading.math_baselines import NAMES
from stratos_jax.grading.math_worker import Job, WorkerPool
from stratos_jax.types import UserError

BASELINE_PAIRS = 120  # of each set, evenly spread: two of the baselines are slow
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True, slots=True)
class Labelled:
    """One record for the grader, and what it should say."""

    record: Mapping[str, Any]
    right: bool


def run(
    data_dir: str | Path | None = None,
    config: GradingConfig | None = None,
    workers: int = 1,
    say: Callable[[str, int], None] = lambda name, count: None,
) -> dict[str, Any]:
    """Figures for every labelled set that is found; `say` hears of each before it is measured."""
    config = config or GradingConfig()
    folder = find_folder(data_dir)
    rows = []
    for name, load in MATH_SETS.items():
        pairs = load(folder)
        if pairs:
            say(name, len(pairs))
            rows.append(measure_math(name, pairs, config, workers))
    for name, load in CODE_SETS.items():
        pairs = load(folder)
        if pairs:
            say(name, len(pairs))
            rows.append(
                {
                    "set": name,
                    "kind": "code",
                    **_counts(pairs),
                    "graders": {"stratos": _measure_code(pairs, config, workers)},
                }
            )
    if not rows:
        raise UserError("no labelled set was found", where=folder, wanted=", ".join([*MATH_SETS, *CODE_SETS]))
    return {"data": str(folder), "workers": workers, "sets": rows}


def find_folder(data_dir: str | Path | None) -> Path:
    """The folder that was named, or the one beside the repository."""
    folder = Path(data_dir) if data_dir else REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        raise UserError("no folder with labelled sets", where=folder, do="name it with --data")
    return folder


# --- measuring ------------------------------------------------------------------------------------------------------


def measure_math(name: str, pairs: list[Labelled], config: GradingConfig, workers: int) -> dict[str, Any]:
    """Our grader on all pairs; the baselines on an even sample of them."""
    started = time.monotonic()
    verdicts = list(math.grade((p.record for p in pairs), config.math, workers))
    seconds = time.monotonic() - started
    graders = {"stratos": _score(pairs, [v.outcome for v in verdicts], seconds)}
    graders["stratos"]["reasons"] = dict(collections.Counter(v.reason for v in verdicts).most_common())
    graders["stratos"]["differences"] = [
        {"id": v.id, "gold": p.record["gold"], "answer": v.extracted, "wanted": "right" if p.right else "wrong",
         "outcome": v.outcome, "reason": v.reason}
        for p, v in zip(pairs, verdicts) if v.outcome != ("right" if p.right else "wrong")
    ][:60]  # fmt: skip
    sample = _even_sample(pairs)
    for baseline in NAMES:
        started = time.monotonic()
        outcomes = list(_baseline(baseline, sample, config, workers))
        graders[baseline] = _score(sample, outcomes, time.monotonic() - started)
    return {"set": name, "kind": "math", **_counts(pairs), "graders": graders}


def _even_sample(pairs: list[Labelled]) -> list[Labelled]:
    step = max(1, -(-len(pairs) // BASELINE_PAIRS))
    rights, wrongs = ([p for p in pairs if p.right is label] for label in (True, False))
    return rights[::step] + wrongs[::step]


def _baseline(name: str, pairs: list[Labelled], config: GradingConfig, workers: int) -> Iterator[str]:
    jobs = (
        Job(tag=None, request={"baseline": name, "gold": p.record["gold"],
                               "text": str(p.record.get("response") or p.record.get("answer"))})
        for p in pairs
    )  # fmt: skip
    with WorkerPool(config.math, workers) as pool:
        for job in pool.in_order(jobs):
            assert job.decision
            yield job.decision[0]


def _counts(pairs: list[Labelled]) -> dict[str, int]:
    rights = sum(p.right for p in pairs)
    return {"right": rights, "wrong": len(pairs) - rights}


def _score(pairs: list[Labelled], outcomes: list[str], seconds: float) -> dict[str, Any]:
    counts = collections.Counter((p.right, outcome) for p, outcome in zip(pairs, outcomes, strict=True))
    rights = sum(p.right for p in pairs)
    return {
        "pairs": len(pairs),
        "recall": counts[True, "right"] / rights if rights else None,
        "accepted_right": counts[True, "right"],
        "false_accepts": counts[False, "right"],
        "false_accept_rate": counts[False, "right"] / (len(pairs) - rights) if rights < len(pairs) else None,
        "unknown": counts[True, "unknown"] + counts[False, "unknown"],
        "seconds": round(seconds, 3),
        "pairs_per_second": round(len(pairs) / seconds, 1) if seconds else None,
    }


def _measure_code(pairs: list[Labelled], config: GradingConfig, workers: int) -> dict[str, Any]:
    started = time.monotonic()
    outcomes = [v.outcome for v in code.grade((p.record for p in pairs), config.code, workers)]
    return _score(pairs, outcomes, time.monotonic() - started)


# --- the sets -------------------------------------------------------------------------------------------------------


def _rows(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / name
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def _cot(folder: Path) -> list[Labelled]:
    return [
        Labelled(
            {"id": f"{row['idx']}-{i}", "gold": row["gt"], "problem": row["question"], "response": response}, score
        )
        for row in _rows(folder, "verifier_math_cot_100.jsonl")
        for i, (response, score) in enumerate(zip(row["code"], row["score"]))
    ]


def _olympiad_pairs(folder: Path) -> list[Labelled]:
    path = folder / "verifier_olympiadbench.json"
    found = []
    for i, row in enumerate(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []):
        for j, answer in enumerate(row["Ans"]):
            record = {"id": f"{i}-{j}", "gold": row["GT"], "answer": answer["answer"]}
            if "precision" in answer:
                given = answer["precision"]
                record["precision"] = [float(x) for x in given] if isinstance(given, list) else float(given)
            found.append(Labelled(record, answer["equal"]))
    return found


def _hard(half: str) -> Callable[[Path], list[Labelled]]:
    def load(folder: Path) -> list[Labelled]:
        rows = _rows(folder, "hard_pairs.jsonl") or _rows(REPOSITORY / "tests" / "grading", "hard_pairs.jsonl")
        return [
            Labelled({k: row[k] for k in ("id", "gold", "answer", "problem") if k in row}, row["label"] == "right")
            for row in rows
            if row["half"] == half
        ]

    return load


def _golds(name: str, problem: str, gold: Callable[[dict[str, Any]], str]) -> Callable[[Path], list[Labelled]]:
    def load(folder: Path) -> list[Labelled]:
        pairs = [(str(row[problem]), gold(row)) for row in _rows(folder, f"{name}.jsonl")]
        return list(against_themselves(pairs)) + list(against_others(pairs))

    return load


def against_themselves(pairs: Iterable[tuple[str, str]]) -> Iterator[Labelled]:
    """Each gold as the answer, in a box at the end of a sentence."""
    for i, (problem, gold) in enumerate(pairs):
        response = rf"So the answer is $\boxed{{{gold}}}$."
        yield Labelled({"id": f"self-{i}", "gold": gold, "problem": problem, "response": response}, True)


def against_others(pairs: list[tuple[str, str]]) -> Iterator[Labelled]:
    """Each gold with that of another problem whose value is another."""
    order = list(range(len(pairs)))
    random.Random(0).shuffle(order)
    for i, j in enumerate(order):
        (problem, gold), (_, other) = pairs[i], pairs[j]
        if value_key(gold) != value_key(other):
            yield Labelled({"id": f"other-{i}", "gold": gold, "problem": problem, "answer": other}, False)


def value_key(gold: str) -> str:
    """Digits, letters and signs alone: 120 and 120^\\circ, 2 and +2 are no other value."""
    return re.sub(r"\\circ|\\text\{[^}]*\}|\\mbox\{[^}]*\}|\\frac|[^\w./-]|(?<=\d)\.$", "", gold)


def _minerva_gold(row: Mapping[str, Any]) -> str:
    return (
        extract_answer(row["solution"], ()).answer or row["solution"]
        if BOX.search(row["solution"])
        else row["solution"]
    )


def _gsm8k_gold(row: Mapping[str, Any]) -> str:
    return row["answer"].rpartition("####")[2].strip()


MATH_SETS: dict[str, Callable[[Path], list[Labelled]]] = {
    "verifier_math_cot_100": _cot,
    "verifier_olympiadbench": _olympiad_pairs,
    "hard_pairs (tuned on)": _hard("tune"),
    "hard_pairs (held back at first)": _hard("held"),
    "hard_pairs (benchmark style)": _hard("late"),
    "hard_pairs (four later batches)": _hard("fresh"),
    "math500": _golds("math500", "problem", lambda row: row["answer"]),
    "aime24": _golds("aime24", "problem", lambda row: row["expected_answer"]),
    "aime25": _golds("aime25", "problem", lambda row: str(row["answer"])),
    "amc23": _golds("amc23", "question", lambda row: str(row["answer"])),
    "olympiadbench": _golds("olympiadbench", "question", lambda row: ", ".join(row["final_answer"])),
    "minerva": _golds("minerva", "problem", _minerva_gold),
    "gsm8k_test": _golds("gsm8k_test", "question", _gsm8k_gold),
    "gsm8k_train": _golds("gsm8k_train", "question", _gsm8k_gold),
}


def _humanevalpack(folder: Path) -> list[Labelled]:
    found = []
    for row in _rows(folder, "verifier_humanevalpack_python.jsonl"):
        tests = {"kind": "assert", "code": row["test"]}
        for field, right in (("canonical_solution", True), ("buggy_solution", False)):
            record = {"id": f"{row['task_id']}-{field}", "code": row["prompt"] + row[field], "tests": tests}
            found.append(Labelled(record, right))
    return found


CODE_SETS: dict[str, Callable[[Path], list[Labelled]]] = {"verifier_humanevalpack_python": _humanevalpack}


# --- the table ------------------------------------------------------------------------------------------------------


def render(result: Mapping[str, Any]) -> str:
    """The figures as a markdown table, one line for each set and grader."""
    lines = [
        "| set | right / wrong | grader | pairs | recall | false accepts | unknown | pairs/s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in result["sets"]:
        for grader, score in row["graders"].items():
            recall = "-" if score["recall"] is None else f"{100 * score['recall']:.1f} %"
            rate = "" if score["false_accept_rate"] is None else f" ({100 * score['false_accept_rate']:.1f} %)"
            lines.append(
                f"| {row['set']} | {row['right']} / {row['wrong']} | {grader} | {score['pairs']} | {recall} "
                f"| {score['false_accepts']}{rate} | {score['unknown']} | {score['pairs_per_second']} |"
            )
    return "\n".join(lines)
