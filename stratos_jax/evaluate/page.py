"""The report as one HTML file that needs nothing else: what was found, plots with error bars, samples, how it was made.

In: `report.json` as a dict, the runs behind it, the data set's folder, seconds of each stage. Out: the page.
"""

import html
import json
import os
import pathlib
import string
from collections.abc import Mapping, Sequence
from typing import Any

from stratos_jax import store
from stratos_jax.curate.procedural import LEVELS as STEPS
from stratos_jax.evaluate import page_data, stage, svg
from stratos_jax.evaluate.compare import Run
from stratos_jax.types import Problem, from_json

TEMPLATE = pathlib.Path(__file__).with_name("page.html")
SHOWN_NAMES = {"traces": "taught with traces", "answers_only": "taught with answers only"}
LEVELS = ("easy", "medium", "hard")
MAX_POINTS = 240  # of a loss curve


def render(
    report: Mapping[str, Any], runs: Sequence[Run], curate: str | os.PathLike[str], times: Mapping[str, float]
) -> str:
    """The whole page."""
    many = len(runs) > 2
    grid = many and len({(run.parameters, run.examples) for run in runs}) == len(runs)
    if grid:
        first = [
            _grid_head(report, runs),
            _frontier(report, runs),
            _losses(_most_examples(runs), SAME_DATA, by_size=True),
        ]
    elif many:
        first = [_sweep(report, runs), _losses(runs[: svg.NUM_COLOURS], "")]
    else:
        first = [_head(report, runs, curate), _by_kind(report, runs), _losses(runs, TWO_TARGETS)]
    parts = [
        *first,
        "" if many else _samples(report, runs, curate),
        page_data.funnel(report["curation"], curate),
        _made(report, runs, times),
    ]
    body = "\n".join(part for part in parts if part)
    return string.Template(TEMPLATE.read_text()).substitute(title=html.escape(f"stratos: {report['name']}"), body=body)


def shown(name: str) -> str:
    """An arm's name for people."""
    return SHOWN_NAMES.get(name, name.replace("_", " "))


def _head(report: Mapping[str, Any], runs: Sequence[Run], curate: str | os.PathLike[str]) -> str:
    """The first screen: the question, the two numbers, and how sure they are."""
    cards = "".join(_card(report, run.name, i) for i, run in enumerate(runs))
    title, text, shown_row = "How many held-out problems does the student solve?", "", ""
    if {run.name for run in runs} == set(SHOWN_NAMES):
        title = "Does a small model learn to reason from a teacher's traces?"
        gap = report["differences"]["traces - answers_only"]
        verdict = "Yes" if gap["low"] > 0 else "Not in this run" if gap["high"] < 0 else "This run cannot tell"
        text = (
            "<p>Two students of the same size start from random weights. They take the same number of training steps"
            " on the same problems, each at a learning rate found for it by trial. One reads the teacher&rsquo;s"
            " reasoning before each answer, the other the answer alone. Both are then asked problems that neither has"
            " seen.</p>"
        )
        cards += (
            f'<div class="card"><span>difference</span><b>{100 * gap["value"]:+.1f}<small> points</small></b>'
            f'<span class="soft">{report["confidence"]:.0%} interval {100 * gap["low"]:+.1f} to'
            f" {100 * gap['high']:+.1f}, problem by problem</span></div>"
        )
        text += f"<p><strong>{verdict}.</strong></p>"
        shown_row = page_data.example(curate)
    return f'<h1>{title}</h1>\n{text}\n<div class="cards">{cards}</div>{shown_row}'


def _card(report: Mapping[str, Any], arm: str, index: int, name: str = "") -> str:
    (low, high), counts = report["intervals"][arm], report["counts"][arm]
    unknown = f", {counts['unknown']} could not be graded" if counts["unknown"] else ""
    return (
        f'<div class="card" style="--c: var(--c{index})"><span>{html.escape(name or shown(arm))}</span>'
        f"<b>{report['accuracy'][arm]:.1%}</b>"
        f'<span class="soft">{counts["right"]} of {counts["samples"]} right{unknown};'
        f" {report['confidence']:.0%} interval {low:.1%} to {high:.1%}</span></div>"
    )


def _by_kind(report: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """A plot for each kind of problem, its levels side by side."""
    cells = {run.name: report["tasks"][run.name][report["task"]]["cells"] for run in runs}
    names = [tuple(cell.split(" ", 1)) for cell in cells[runs[0].name]]
    kinds = sorted({kind for kind, _ in names})
    if not kinds:
        return ""
    plots = []
    for kind in kinds:
        levels = [level for level in LEVELS if (kind, level) in names]
        rows = [(shown(r.name), [_point(cells[r.name][f"{kind} {level}"]) for level in levels]) for r in runs]
        plot = svg.bars(levels, rows, "difficulty", f"right answers to {kind} problems by difficulty")
        plots.append(f"<figure>{plot}<figcaption>{html.escape(_what_is(kind))}</figcaption></figure>")
    count = cells[runs[0].name][f"{kinds[0]} {names[0][1]}"]["problems"]
    return (
        f"<h2>By kind and difficulty</h2><p>{_steps(kinds, names)}About {count} problems for each bar; the"
        f" thin lines are {report['confidence']:.0%} intervals.</p>"
        f'{svg.legend([shown(run.name) for run in runs])}<div class="plots">{"".join(plots)}</div>'
    )


def _steps(kinds: Sequence[str], names: Sequence[tuple[str, ...]]) -> str:
    """How many steps each level of our own problems needs."""
    if not set(kinds) <= set(KINDS):
        return ""
    levels = [level for level in LEVELS if any(level == name[-1] for name in names)]
    spans = ", ".join("{} {} to {}".format(level, *STEPS[level]) for level in levels)
    return f"Harder problems need more steps, each of which depends on the one before: {spans}. "


def _what_is(kind: str) -> str:
    return f"{kind}: {KINDS[kind]}" if kind in KINDS else kind


KINDS = {
    "dial": "turn a dial of ten digits again and again",
    "total": "keep a running total",
    "machine": "add or multiply, and keep the last digit",
    "doors": "follow numbered doors from room to room",
}


def _point(score: Mapping[str, Any], x: float = 0.0) -> svg.Point:
    return svg.Point(x=x, y=score["value"], low=score["low"], high=score["high"])


def _losses(runs: Sequence[Run], note: str, *, by_size: bool = False) -> str:
    """Loss curves, thinned by means so that the picture stays small."""
    rows = []
    for index, run in enumerate(runs):
        size = max(1, len(run.losses) // MAX_POINTS)
        chunks = [run.losses[i : i + size] for i in range(0, len(run.losses), size)]
        points = [svg.Point(x=c[-1][0], y=sum(loss for _, loss in c) / len(c)) for c in chunks]
        name = f"{run.parameters:,} parameters" if by_size else shown(run.name)
        rows.append(svg.Line(name=name, points=points, colour=index))
    if not any(row.points for row in rows):
        return ""
    plot = svg.lines(rows, "optimizer step", "loss (nats per learned token)", "training loss of each student by step")
    return (
        f"<h2>Training loss</h2>{svg.legend([row.name for row in rows])}"
        f'<figure class="wide">{plot}<figcaption>The mean over the tokens that the student learns to write.'
        f" {note}</figcaption></figure>"
    )


SAME_DATA = "The students with the most examples."
TWO_TARGETS = (
    "A student of traces writes many tokens that are easy to foresee, one of answers few that are hard: compare shapes,"
    " not heights. The answers&rsquo; curve shows how far guessing goes."
)


def _samples(report: Mapping[str, Any], runs: Sequence[Run], curate: str | os.PathLike[str]) -> str:
    """What each student wrote to the same hard problem of each kind."""
    path = pathlib.Path(curate) / "held_out.jsonl"
    if not path.exists():
        return ""
    problems = [from_json(Problem, record) for _, record in store.jsonl.read_jsonl(path)]
    chosen: dict[str, Problem] = {}
    for problem in problems:
        if problem.metadata.get("level") == LEVELS[-1]:
            chosen.setdefault(str(problem.metadata.get("kind")), problem)
    answers = {run.name: _answers(run, report["task"]) for run in runs}
    blocks = []
    for problem in chosen.values():
        lines = [f"<p><strong>{html.escape(problem.question)}</strong></p>"]
        lines += [f'<p class="soft">right answer: {html.escape(problem.gold)}</p>']
        for index, run in enumerate(runs):
            text, outcome = answers[run.name].get(problem.id, ("", "unknown"))
            text = html.escape("\n".join(line for line in text.splitlines() if line.strip()))
            lines.append(
                f'<div class="answer" style="--c: var(--c{index})"><p>{html.escape(shown(run.name))}:'
                f' <span class="{outcome}">{outcome}</span></p><pre>{text}</pre></div>'
            )
        blocks.append(f'<div class="sample">{"".join(lines)}</div>')
    if not blocks:
        return ""
    intro = "<p>The first hard held-out problem of each kind, and all that each student wrote.</p>"
    return f"<h2>Answers, side by side</h2>{intro}{''.join(blocks)}"


def _answers(run: Run, task: str) -> dict[str, tuple[str, str]]:
    """Problem -> (text, outcome) of its first sample."""
    pairs = zip(stage.read_samples(run.folder), stage.read_verdicts(run.folder), strict=True)
    mine = ((s, v) for s, v in pairs if s.id.split("/", 1)[0] == task and s.sample_index == 0)
    return {s.problem_id: (s.text, v.outcome) for s, v in mine}


def _made(report: Mapping[str, Any], runs: Sequence[Run], times: Mapping[str, float]) -> str:
    """Sizes, steps and seconds."""
    head = "".join(f"<th>{name}</th>" for name in ("student", "parameters", "steps", "last loss", "trained in"))
    rows = []
    for run in runs:
        training = report["training"][run.name]
        seconds = times.get(f"{run.name}/train", times.get("train"))
        cells = (
            shown(run.name),
            f"{training['parameters']:,}",
            f"{training['steps']:,}",
            f"{training['last_loss']:.3f}" if training["last_loss"] is not None else "",
            f"{seconds:.0f} s" if seconds is not None else "",
        )
        rows.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    settings = html.escape(json.dumps(runs[0].recipe, indent=1))
    return (
        f'<h2>How it was made</h2><div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
        f'<p class="soft">All stages: {sum(times.values()) / 60:.1f} minutes. To do it again: <code>stratos run'
        f" configs/{html.escape(report['name'])}.py</code></p>"
        f"<details><summary>All settings of {html.escape(shown(runs[0].name))}</summary><pre>{settings}</pre></details>"
    )


def _grid_head(report: Mapping[str, Any], runs: Sequence[Run]) -> str:
    best = max(runs, key=lambda run: report["accuracy"][run.name])
    name = f"best: {best.parameters:,} parameters, {best.examples:,} examples"
    return (
        "<h1>How much data and how large a student does reasoning need?</h1>"
        f"<p>{len(runs)} students of several sizes, each trained from random weights for the same number of steps on a"
        " different number of verified traces, and asked the same held-out problems.</p>"
        f'<div class="cards">{_card(report, best.name, _sizes(runs).index(best.parameters), name)}</div>'
    )


def _sizes(runs: Sequence[Run]) -> list[int]:
    return sorted({run.parameters for run in runs})


def _most_examples(runs: Sequence[Run]) -> list[Run]:
    """Of each size the student with the most examples."""
    most = max(run.examples for run in runs)
    return sorted((run for run in runs if run.examples == most), key=lambda run: run.parameters)


def _frontier(report: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Accuracy over the number of examples, a line for each size, and the same as a table."""
    score = lambda run: report["tasks"][run.name][report["task"]]["score"]
    rows, cells = [], []
    for index, size in enumerate(_sizes(runs)):
        mine = sorted((run for run in runs if run.parameters == size), key=lambda run: run.examples)
        points = [_point(score(run), run.examples) for run in mine]
        rows.append(svg.Line(name=f"{size:,} parameters", points=points, colour=index))
        cells += [(f"{size:,}", f"{int(p.x):,}", f"{p.y:.1%}", f"{p.low:.1%} to {p.high:.1%}") for p in points]
    plot = svg.lines(rows, "training examples", "right answers", "accuracy by examples", log_x=True, share=True)
    head = "".join(f'<th class="n">{name}</th>' for name in ("parameters", "examples", "right", "interval"))
    body = "".join("<tr>" + "".join(f'<td class="n">{cell}</td>' for cell in row) + "</tr>" for row in cells)
    return (
        f"<h2>Accuracy by size and data</h2>{svg.legend([row.name for row in rows])}"
        f'<figure class="wide">{plot}<figcaption>Thin lines: {report["confidence"]:.0%} intervals. The number of'
        " examples is on a logarithmic axis.</figcaption></figure>"
        f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
    )


def _sweep(report: Mapping[str, Any], runs: Sequence[Run]) -> str:
    """Students that differ in their settings: a table, the best first."""
    rows = []
    for run in sorted(runs, key=lambda run: -report["accuracy"][run.name]):
        low, high = report["intervals"][run.name]
        loss = report["training"][run.name]["last_loss"]
        cells = (
            f"{report['accuracy'][run.name]:.1%}",
            f"{low:.1%} to {high:.1%}",
            "" if loss is None else f"{loss:.4f}",
        )
        numbers = "".join(f'<td class="n">{cell}</td>' for cell in cells)
        rows.append(f"<tr><td>{html.escape(shown(run.name))}</td>{numbers}</tr>")
    head = "".join(f'<th class="n">{name}</th>' for name in ("right", "interval", "last loss"))
    return (
        "<h1>Which settings suit this student best?</h1>"
        f"<p>{len(runs)} students that differ in the settings of their names alone, asked the same held-out problems;"
        f" intervals hold {report['confidence']:.0%}.</p>"
        f'<div class="scroll"><table><tr><th>student</th>{head}</tr>{"".join(rows)}</table></div>'
    )
