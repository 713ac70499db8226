"""What the page says of the training data: an example, the way from problems to rows, the decontamination.

In: the data set's folder and its counts. Out: HTML.
"""

import html
import os
from collections.abc import Mapping
from typing import Any

from stratos_jax import store
from stratos_jax.types import UserError

Path = str | os.PathLike[str]
EXAMPLE_STEPS = "c:"  # an example has three steps or more
SHOWN_HITS = 3
HOW = {"exact": "the same question", "ngram": "a long run of the same words", "near": "nearly the same words"}


def example(curate: Path) -> str:
    """One training row, as each of the two students reads it."""
    rows = store.join(curate, "dataset.jsonl")
    if not store.exists(rows):
        return ""
    texts = ([turn["value"] for turn in record["conversations"]] for _, record in store.jsonl.read_jsonl(rows))
    found = next(((q, a) for q, a in texts if EXAMPLE_STEPS in _parts(a)[0]), None)
    if found is None:
        return ""
    question, (thought, solution) = found[0], _parts(found[1])
    return (
        '<div class="sample"><p class="soft">A problem from the training data, and what each student learns from it</p>'
        f"<p><strong>{html.escape(question)}</strong></p>"
        f'<div class="answer" style="--c: var(--c0)"><p>taught with traces:</p>'
        f"<pre>{html.escape(thought)} {html.escape(solution)}</pre></div>"
        f'<div class="answer" style="--c: var(--c1)"><p>taught with answers only:</p>'
        f"<pre>{html.escape(solution)}</pre></div>"
        '<p class="soft">A trace has one step for each letter of the question, repeats the last one as a check, and'
        " puts the answer into a box.</p></div>"
    )


def _parts(text: str) -> tuple[str, str]:
    """(thought, solution) without their marks."""
    thought, _, solution = text.partition("<|end_of_thought|>")
    clean = lambda part: " ".join(word for word in part.split() if not word.startswith("<|"))
    return clean(thought), clean(solution)


def funnel(counts: Mapping[str, Any] | None, curate: Path) -> str:
    """From problems to rows, and how held-out problems were kept out."""
    if not counts:
        return ""
    rows = "".join(
        f'<tr><td>{html.escape(name.replace("_", " "))}</td><td class="n">{value:,}</td></tr>'
        for name, value in counts.items()
        if isinstance(value, int)
    )
    return (
        "<h2>Where the data came from</h2><p>A program plays the teacher behind a real HTTP endpoint; it is sometimes"
        " wrong, cut short, or refuses. Every answer was graded against the exact solution, and only right ones became"
        " training rows.</p>"
        '<div class="scroll"><table><tr><th>from problems to rows</th><th class="n">count</th></tr>'
        f"{rows}</table></div>{_kept_out(counts, curate)}"
    )


def _kept_out(counts: Mapping[str, Any], curate: Path) -> str:
    """The decontamination report, and a second look at the finished rows."""
    removed = counts.get("problems_like_a_held_out_one", 0)
    text = (
        "<h2>No held-out problem in the training data</h2><p>Training problems that repeat a held-out one, or share a"
        f" long run of words with one, were taken out before any row was written: <strong>{removed:,} went</strong>."
    )
    if store.exists(store.join(curate, "dataset.jsonl")) and store.exists(store.join(curate, "held_out.jsonl")):
        text += f" Compared once more for this page: <strong>{_compared(curate)}</strong>."
    hits = store.join(curate, "overlap.jsonl")
    records = [r for _, r in store.jsonl.read_jsonl(hits)][:SHOWN_HITS] if store.exists(hits) else []
    if not records:
        return f"{text}</p>"
    names = ("problem_id", "other_id", "how", "shared")
    cells = [[HOW.get(str(r[name]), str(r[name])) for name in names] for r in records]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in cells)
    head = "".join(f"<th>{name}</th>" for name in ("went", "is like", "how", "what they share"))
    return f'{text}</p><div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _compared(curate: Path) -> str:
    """How many rows have the question of a held-out problem."""
    held_out = [r["question"] for _, r in store.jsonl.read_jsonl(store.join(curate, "held_out.jsonl"))]
    rows = store.jsonl.read_jsonl(store.join(curate, "dataset.jsonl"))
    asked = [record["conversations"][0]["value"] for _, record in rows]
    both = sorted({_plain(q) for q in held_out} & {_plain(q) for q in asked})
    if both:
        raise UserError(
            f"{len(both)} held-out problems are in the training data",
            where=curate,
            got=both[0][:200],
            wanted="none",
            do="run with --from curate; if it happens again it is a bug",
        )
    return f"none of the {len(asked):,} rows asks one of the {len(held_out):,} held-out questions"


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
