"""The page: what it says follows from the figures, and every plot has axes, units and a legend."""

import dataclasses
import html.parser
import re

import pytest

from stratos_jax import store
from stratos_jax.evaluate import compare, page, page_data, statistics, svg
from stratos_jax.evaluate.compare import Run
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.types import Sample, UserError, Verdict

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
        assert f"{count} of 40 right" in text and f"<b>{count / 40:.1%}</b>" in text
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


@pytest.mark.parametrize("most, top", [(6.1, "8"), (0.9, "1"), (40.0, "40")])
def test_a_loss_plot_ends_little_above_its_highest_point(most, top):
    row = svg.Line(name="x", points=[svg.Point(x=1, y=most), svg.Point(x=90, y=0.1)], colour=0)
    plot = svg.lines([row], "step", "loss", "plot")
    ticks = re.findall(r'class="end"[^>]*>([^<]*)<', plot)
    assert ticks[0] == "0" and ticks[-1] == top and ">0<" in plot


def curated(folder, question):
    """A data set of one row, a held-out problem, and one problem that was taken out."""
    thought = "<|begin_of_thought|>\n\na:1+2=3 b:3+4=7 c:7+1=8 check c:7+1=8 ok\n\n<|end_of_thought|>\n\n"
    solution = "<|begin_of_solution|>\n\n\\boxed{8}\n\n<|end_of_solution|>"
    turns = [{"from": "user", "value": "Add a+2 b+4 c+1."}, {"from": "assistant", "value": thought + solution}]
    store.jsonl.write_jsonl(folder / "dataset.jsonl", [{"id": "r", "conversations": turns}])
    store.jsonl.write_jsonl(
        folder / "held_out.jsonl", [{"id": "h0", "source": "s", "kind": "math", "question": question}]
    )
    hit = {"problem_id": "t7", "other_id": "h0", "how": "ngram", "shared": "the same <words>"}
    store.jsonl.write_jsonl(folder / "overlap.jsonl", [hit])
    return folder


def test_the_page_shows_an_example_and_what_was_kept_out(tmp_path):
    folder = curated(tmp_path, "Add a+9 b+9.")
    text = page_data.example(folder)
    assert "Add a+2 b+4 c+1." in text and text.count("\\boxed{8}") == 2 and "<|" not in text
    text = page_data.funnel({"problems": 9, "problems_like_a_held_out_one": 1}, folder)
    assert "<strong>1 went</strong>" in text and "the same &lt;words&gt;" in text
    assert "none of the 1 rows asks one of the 1 held-out questions" in text


def test_a_held_out_problem_in_the_training_data_is_no_page(tmp_path):
    with pytest.raises(UserError, match="(?s)1 held-out problems are in the training data.*--from curate"):
        page_data.funnel({"problems": 9}, curated(tmp_path, "add a+2  b+4 c+1."))


def test_a_grid_draws_losses_of_one_student_of_each_size(tmp_path):
    grid = [(size, n) for size in (1000, 4000, 9000) for n in (100, 1000, 5000)]
    runs = [make_run(tmp_path / f"{s}_{n}", f"{s}_{n}", 10 + n // 500, s, n) for s, n in grid]
    text = page.render(report_of(runs), runs, tmp_path, {})
    assert text.count("<polyline") == 6  # three sizes in each of two plots: colours do not repeat
    assert "best: 1,000 parameters, 5,000 examples" in text and text.count("<tr><td") >= 9


def test_students_of_one_size_and_one_data_set_are_a_table(tmp_path):
    runs = [make_run(tmp_path / n, n, right) for n, right in (("lr_1", 8), ("lr_3", 20), ("lr_10", 12))]
    text = page.render(report_of(runs), runs, tmp_path, {})
    assert "Which settings suit this student best?" in text
    assert text.index("50.0%") < text.index("30.0%") < text.index("20.0%")  # the best first
    assert text.count("<polyline") == 3 and "parameters</span>" not in text
