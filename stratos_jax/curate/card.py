"""The data set's card: what went in, what came out, and why the rest did not; written from the run itself.

In: everything the stage has. Out: Markdown.
"""

import collections
from collections.abc import Sequence

import numpy as np

from stratos_jax.curate.config import CurateConfig
from stratos_jax.curate.select import Selection
from stratos_jax.types import Problem, Trace, Verdict

SHOWN_HITS = 5


def card(
    config: CurateConfig,
    problems: Sequence[Problem],
    held_out: Sequence[Problem],
    traces: Sequence[Trace],
    verdicts: Sequence[Verdict],
    selection: Selection,
) -> str:
    """The card as Markdown."""
    teacher = config.teacher
    lengths = [t.completion_tokens for _, t in selection.chosen]
    quartiles = ", ".join(f"{q:.0f}" for q in np.percentile(lengths, [0, 25, 50, 75, 100]))
    cost, kept_cost = sum(t.cost_usd for t in traces), sum(t.cost_usd for _, t in selection.chosen)
    reasons = collections.Counter(verdict.reason for verdict in verdicts)
    sources = collections.Counter(problem.source for problem in problems)
    kept = collections.Counter(problem.source for problem, _ in selection.chosen)
    parts = [
        "# Data set\n",
        f"{len(selection.chosen):,} verified reasoning traces of {teacher.model}, rows as in Bespoke-Stratos-17k:"
        ' `{"id", "source", "system", "conversations"}`.\n',
        "## From problems to rows\n",
        _table(("", "count"), [(name.replace("_", " "), value) for name, value in selection.funnel.items()]),
        "## Sources\n",
        _table(("source", "problems", "rows"), [(s, n, kept[s]) for s, n in sorted(sources.items())]),
        "## Verdicts\n",
        _table(("reason", "answers"), reasons.most_common()),
        "## Length and cost\n",
        f"Tokens of a kept answer by the teacher's count: {quartiles} (least, quartiles, most).",
        f"Cost: ${cost:.2f} in all, of which ${cost - kept_cost:.2f} for answers that were not kept.\n",
        "## Held-out problems\n",
        _contamination(config, held_out, selection),
    ]
    return "\n".join(parts)


def _contamination(config: CurateConfig, held_out: Sequence[Problem], selection: Selection) -> str:
    runs = config.select.contamination_ngram
    rule = f" or shares {runs} words in a row with one" if runs else ""
    lines = [
        f"{len(held_out):,} problems are held out. A training problem goes where it equals one of them{rule}"
        f" (runs that more than {config.select.contamination_common} training problems have are templates).",
        f"{len(selection.hits):,} training problems went for that; none is left.",
    ]
    lines += [f"- `{h.problem_id}` and `{h.other_id}` ({h.how}): {h.shared}" for h in selection.hits[:SHOWN_HITS]]
    return "\n".join(lines) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    show = lambda cells: "| " + " | ".join(f"{c:,}" if isinstance(c, int) else str(c) for c in cells) + " |"
    return "\n".join([show(head), "|" + "---|" * len(head), *map(show, rows), ""])
