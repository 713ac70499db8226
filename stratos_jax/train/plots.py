"""Curves of a run as one picture.

In: the run folder's `metrics.jsonl`. Out: `curves.png` beside it.
"""

import pathlib
from typing import Any

from stratos_jax import store

PANELS = (
    ("loss", ("loss", "held_out_loss")),
    ("loss by span", ("loss_thought", "loss_solution", "loss_format")),
    ("gradient norm", ("grad_norm",)),
    ("learning rate", ("learning_rate",)),
    ("tokens per second", ("tokens_per_second",)),
    ("probability of the end token", ("end_probability",)),
)


def plot_run(directory: pathlib.Path) -> pathlib.Path | None:
    """Draw the curves of a run; None where it has no step yet."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [record for _, record in store.jsonl.read_jsonl(directory / "metrics.jsonl")]
    if not records:
        return None
    figure = Figure(figsize=(12, 7), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(2, 3).flat, PANELS):
        for name in names:
            _curve(axes, records, name)
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.3)
        if len(names) > 1 and axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=8)
    with store.atomic_path(directory / "curves.png") as temporary:
        figure.savefig(temporary, format="png", dpi=110)
    return directory / "curves.png"


def _curve(axes: Any, records: list[dict[str, Any]], name: str) -> None:
    points = [(record["step"], record[name]) for record in records if name in record]
    if points:
        axes.plot(*zip(*points), label=name, linewidth=1.0, marker="." if len(points) < 3 else "")
