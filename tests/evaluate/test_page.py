"""The page: what it says follows from the figures, and every plot has axes, units and a legend."""

import dataclasses
import html.parser
import re

import pytest

from stratos_jax import store
from stratos_jax.evaluate import compare, page, statistics, svg
from stratos_jax.evaluate.compare import Run
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.types import Sample, Verdict

CELLS = [(kind, level) for kind in ("dial", "total") for level in ("easy", "hard")]


def make_run(folder, name, right, parameters=1000, examples=100):
    """A run with 40 answers to 40 problems, `right` of them right."""
    folder.mkdir(parents=True)
    ids = [f"p{i}" for i in range(40)]
    outcomes = {p: ["right" if i < right else "wrong"] for i, p in enumerate(ids)}
    samples = [
        Sample(id=f"t/{p}/0", problem_id=p, sample_index=0, text="<b>&", tokens=(1,), finish_reason="stop") for p in ids
    ]
    store.jsonl.write_jsonl(folder / "samples.jsonl", samples)
    verdicts = [Verdict(id=f"t/{p}/0", outcome=outcomes[p][0], reason="math.exact") for p in ids]
    store.jsonl.write_jsonl(folder / "verdicts.jsonl", verdicts)
    score = dataclasses.asdict(statistics.score(outcomes, 0.95, 100, 0))
    cells = {f"{kind} {level}": score for kind, level in CELLS}
    return Run(
        name=name,
        report={"tasks": {"t": {"score": score, "by": {}, "cells": cells}}},
        folder=folder,
        losses=tuple((step, 3.0 / step) for step in range(1, 500)),
        training={},
        parameters=parameters,
        examples=examples,
        recipe={"name": "x"},
    )


def report_of(runs):
    config = EvaluateConfig(tasks=(dataclasses.replace(EvaluateConfig().tasks[0], name="t"),), bootstrap=500)
    return compare.make_report("quickstart", runs, config, None)


@pytest.mark.parametrize(
    "right, said", [((36, 8), "Yes"), ((20, 20), "This run cannot tell"), ((4, 36), "Not in this run")]
)
def test_the_first_screen_says_what_the_figures_say(tmp_path, right, said):
    runs = [make_run(tmp_path / n, n, r) for n, r in zip(("traces", "answers_only"), right)]
    report = report_of(runs)
    text = page.render(report, runs, tmp_path, {"traces/train": 61.0})
    assert f"<strong>{said}.</strong>" in text
    for count in right:
        assert f"{count} of 40 right" in text and f"<b>{count / 40:.0%}</b>" in text
    assert "61 s" in text


def test_every_plot_has_axes_units_and_a_legend(tmp_path):
    runs = [make_run(tmp_path / n, n, r) for n, r in (("traces", 30), ("answers_only", 10))]
    text = page.render(report_of(runs), runs, tmp_path, {})
    plots = re.findall(r"<svg.*?</svg>", text, re.S)
    assert len(plots) == 3  # two kinds, and the losses
    for plot in plots:
        assert plot.count('class="axis"') == 2 and 'aria-label="' in plot
    assert text.count('class="legend"') == 2 and "nats per learned token" in text and "100%" in text


def test_a_grid_of_students_is_a_plot_of_lines(tmp_path):
    grid = [(size, n) for size in (1000, 4000) for n in (100, 1000)]
    runs = [make_run(tmp_path / f"{s}_{n}", f"{s}_{n}", 10 + n // 50, s, n) for s, n in grid]
    text = page.render(report_of(runs), runs, tmp_path, {})
    assert "1,000 parameters" in text and "4,000 parameters" in text and "training examples" in text


def test_text_of_models_is_escaped_and_tags_are_closed(tmp_path):
    class Balance(html.parser.HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "rect", "line", "path", "polyline", "circle"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            if tag not in ("rect", "line", "path", "polyline", "circle"):
                assert self.open.pop() == tag

    runs = [make_run(tmp_path / n, n, r) for n, r in (("traces", 30), ("answers_only", 10))]
    held_out = [
        {
            "id": "p0",
            "source": "s",
            "kind": "math",
            "question": "<script>",
            "metadata": {"level": "hard", "kind": "dial"},
        }
    ]
    store.jsonl.write_jsonl(tmp_path / "held_out.jsonl", held_out)
    text = page.render(report_of(runs), runs, tmp_path, {})
    assert "<script>" not in text and "&lt;b&gt;&amp;" in text
    parser = Balance()
    parser.feed(text)
    assert parser.open == []


def test_bars_reach_their_values():
    plot = svg.bars(["a"], [("x", [svg.Point(x=0, y=0.5, low=0.4, high=0.6)])], "n", "plot")
    height = float(re.search(r'<rect[^>]*height="([\d.]+)"', plot).group(1))
    assert height == pytest.approx((220 - svg.TOP - svg.BOTTOM) / 2, abs=0.2)
