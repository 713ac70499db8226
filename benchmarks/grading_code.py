"""Verdicts per second: the code grader behind all its walls, against a bare `python -I` per program without any.

Both sides grade the same programs (each with its asserts) with the same number of workers, in turns, in one run:

    python benchmarks/grading_code.py --data ../shared/data --workers 2 --rounds 3
"""

import argparse
import concurrent.futures
import json
import pathlib
import resource
import statistics
import subprocess
import sys
import time

from stratos_jax.grading import code
from stratos_jax.grading.code_config import CodeConfig
from stratos_jax.grading.sandbox import probe_modes

TIME_LIMIT_S = 10  # the slowest reference takes 2.5 s


def humanevalpack(folder: pathlib.Path, which: str) -> list[dict]:
    """One record for each program; `which` names the field with its body."""
    rows = [json.loads(line) for line in (folder / "verifier_humanevalpack_python.jsonl").read_text().splitlines()]
    return [record(row["task_id"], row["prompt"] + row[which], row["test"]) for row in rows]


def mbpp(folder: pathlib.Path) -> list[dict]:
    """The reference solutions with all their asserts."""
    rows = [json.loads(line) for line in (folder / "mbpp.jsonl").read_text().splitlines()]
    checks = ["\n".join([row["test_setup_code"], *row["test_list"], *row["challenge_test_list"]]) for row in rows]
    return [record(row["task_id"], row["code"], check) for row, check in zip(rows, checks)]


def record(identity: str, program: str, tests: str) -> dict:
    return {
        "id": str(identity),
        "code": program,
        "tests": {"kind": "assert", "code": tests},
        "time_limit_s": TIME_LIMIT_S,
    }


def ours(records: list[dict], workers: int) -> list[bool]:
    return [v.outcome == "right" for v in code.grade(records, CodeConfig(), workers)]


def bare(records: list[dict], workers: int) -> list[bool]:
    """A fresh interpreter for each program with its tests below it; no isolation, no limits but the clock."""

    def one(item: dict) -> bool:
        text = item["code"] + "\n" + item["tests"]["code"]
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-c", text],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TIME_LIMIT_S,
            )
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0

    with concurrent.futures.ThreadPoolExecutor(workers) as threads:
        return list(threads.map(one, records))


def that_end(records: list[dict], workers: int) -> list[dict]:
    """Without the programs that run into the time limit, which says nothing of the grader's speed."""
    verdicts = code.grade(records, CodeConfig(), workers)
    return [item for item, verdict in zip(records, verdicts) if verdict.reason != "code.time_limit"]


def measure(side, records: list[dict], workers: int) -> tuple[list[bool], float, float]:
    """Verdicts, seconds by the clock, and processor seconds of this process and all its children."""
    used = lambda: sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    clock, processor = time.monotonic(), used()
    found = side(records, workers)
    return found, time.monotonic() - clock, used() - processor


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=pathlib.Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"isolation: {probe_modes()[0]}; {args.workers} workers; Python {sys.version.split()[0]}\n")
    sets = {
        "humanevalpack canonical": (humanevalpack(args.data, "canonical_solution"), 164),
        "humanevalpack buggy, those that end": (
            that_end(humanevalpack(args.data, "buggy_solution"), args.workers),
            0,
        ),
        "mbpp references": (mbpp(args.data), 974),
    }
    print("| programs | side | judged right | verdicts/s (median) | processor ms a verdict | ratio of verdicts/s |")
    print("|---|---|---|---|---|---|")
    for name, (records, wanted) in sets.items():
        sides = {"sandbox": ours, "bare `python -I`": bare}
        runs = {side: [] for side in sides}
        for _ in range(args.rounds):
            for side, function in sides.items():
                runs[side].append(measure(function, records, args.workers))
        speed = {side: statistics.median(len(records) / wall for _, wall, _ in runs[side]) for side in sides}
        ratios = [b[1] / a[1] for a, b in zip(*runs.values())]
        for side in sides:
            right = sorted({sum(found) for found, _, _ in runs[side]})
            processor = statistics.median(cpu for _, _, cpu in runs[side]) / len(records) * 1000
            last = (
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if side == "sandbox" else ""
            )
            print(f"| {name} | {side} | {right} of {len(records)} | {speed[side]:.1f} | {processor:.1f} | {last} |")
        assert {sum(found) for found, _, _ in runs["sandbox"]} == {wanted}, name


if __name__ == "__main__":
    main()
