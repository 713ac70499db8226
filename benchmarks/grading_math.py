"""Scorecard and speed of the graders; writes the dated page in docs/benchmarks.

python benchmarks/grading_math.py [--data FOLDER] [--workers N] [--out docs/benchmarks/2026-11-21-scorecard.md]
"""

import argparse
import importlib.metadata
import json
import platform
import time
from pathlib import Path

from stratos_jax.grading import GradingConfig, MathConfig, grade, scorecard

FIRST_SIGHT = (
    "The hard pairs are our own, so their figures after tuning flatter. What counts is each batch at first sight, "
    "before its failures were looked at; then they were mended by rule, and it became a regression test:\n\n"
    "| batch, in order | right / wrong | recall | false accepts | math-verify alone: recall | false accepts |\n"
    "|---|---|---|---|---|---|\n"
    "| all families, no tuning at all | 344 / 359 | 89.2 % | 1.1 % | 69.0 % (sample) | 5.0 % (sample) |\n"
    "| style of benchmark golds | 541 in all | 93.0 % | 1.2 % | | |\n"
    "| more of it | 269 in all | 86.3 % | 1.6 % | | |\n"
    "| 36 families, half of it near-misses | 600 / 709 | 85.5 % | 14 (2.0 %) | 51.3 % | 45 (6.3 %) |\n"
    "| rewritten benchmark golds | 346 / 411 | 87.9 % | 3 (0.7 %) | 51.2 % | 16 (3.9 %) |\n"
    "| prose, lists, systems, words | 218 / 251 | 84.4 % | 3 (1.2 %) | 54.6 % | 17 (6.8 %) |\n"
    "| the last: golds, units, words, sets | 231 / 269 | 92.2 % | 1 (0.4 %) | 59.7 % | 21 (7.8 %) |\n\n"
    "Together, the four batches of 2026-11-21 (the lower half of the table): 1395 right, 1640 wrong, 87.0 % recall "
    "and 1.3 % false accepts at first sight. A batch has 250 to 700 wrong pairs, so a rate of 1 % on pairs that nobody "
    "here has seen is likely, not sure. A few labels are debatable (`42\\%` for 42, `204` for `204_5`, `3.141` for "
    "3.14, a number in another base): they count above as they were labelled, and are left out of the regression test."
)
POISON = {
    "tower of powers": (r"10^{10^{10^{10}}}", r"9^{9^{9^{9^{9}}}}"),
    "huge factorials": (r"(10^{9})!", r"((10!)!)!"),
    "tower against a number": ("7", r"9^{9^{9^{9}}}"),
    "factorial against a number": ("42", r"(10^{9})!"),
    "tower over itself": ("1", r"\frac{9^{9^{9^{9}}}}{9^{9^{9^{9}}}+1}"),
    "1 MB of LaTeX": ("5", r"\frac{" * 170_000 + "1"),
    "long series": (r"\sum_{n=1}^{10^{9}} n^{n}", "7"),
    "infinite product": ("3", r"\prod_{k=1}^{\infty} k"),
}


def easy_pairs_per_second(count: int) -> float:
    """Pairs that go through the tree reader (nothing that the parent decides at once), on one worker."""
    pairs = [
        {"id": i, "gold": rf"\frac{{{i}}}{{7}}", "answer": rf"\dfrac{{{2 * i}}}{{14}}" if i % 2 else f"{i}/7"}
        for i in range(1, count + 1)
    ]
    list(grade("math", pairs[:5]))
    started = time.monotonic()
    verdicts = list(grade("math", pairs))
    assert all(v.outcome == "right" for v in verdicts)
    return count / (time.monotonic() - started)


def poison_lines(limit: float) -> list[str]:
    """What each poison pair costs, and that the pairs around it are judged as if it were not there."""
    lines = ["| pair | outcome | reason | seconds |", "|---|---|---|---|"]
    config = GradingConfig(math=MathConfig(wall_seconds=limit))
    for name, (gold, answer) in POISON.items():
        records = [{"id": "before", "gold": "1/2", "answer": "0.5"}, {"id": name, "gold": gold, "answer": answer},
                   {"id": "after", "gold": "1/2", "answer": "0.5"}]  # fmt: skip
        before, poison, after = grade("math", records, config)
        assert before.outcome == after.outcome == "right" and poison.outcome != "right"
        lines.append(f"| {name} | {poison.outcome} | {poison.reason} | {poison.seconds:.2f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--out")
    args = parser.parse_args()
    result = scorecard.run(args.data, workers=args.workers)
    speed = easy_pairs_per_second(3000)
    versions = ", ".join(f"{n} {importlib.metadata.version(n)}" for n in ("math-verify", "sympy", "mpmath"))
    page = [
        "# Scorecard of the graders, 2026-11-21",
        "",
        f"Command: `python benchmarks/grading_math.py --workers {args.workers}`. "
        "Hardware: 2 cores AMD EPYC, 24 GiB, "
        f"shared with other work. Python {platform.python_version()}, {versions}.",
        "Recall: right pairs accepted. False accepts: wrong pairs accepted. Baselines run on an even sample of the "
        "large sets, in the same killable workers with the same limits, in the same run.",
        "",
        FIRST_SIGHT,
        "",
        scorecard.render(result),
        "",
        f"Easy pairs (fractions in two spellings, all through the tree reader): {speed:.0f} pairs/s with one worker.",
        "",
        "Poison pairs, limit 2 s; the pair before and the pair after each are judged right:",
        "",
        *poison_lines(2.0),
        "",
        "Every difference between our grader and the labels (first 60 of a set):",
        "",
    ]
    for row in result["sets"]:
        for d in row["graders"]["stratos"].get("differences", []):
            page.append(f"- {row['set']} {d['id']}: wanted {d['wanted']}, got {d['outcome']} (`{d['reason']}`): "
                        f"gold `{d['gold'][:120]}`, answer `{d['answer'][:120]}`")  # fmt: skip
    text = "\n".join(page) + "\n"
    if args.out:
        Path(args.out).write_text(text, encoding="utf-8")
    print(text)
    print(json.dumps({row["set"]: row["graders"]["stratos"]["recall"] for row in result["sets"]}))


if __name__ == "__main__":
    main()
