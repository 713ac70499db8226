"""Plots as SVG text that takes its colours from the page: bars with error bars, and lines.

In: figures and names. Out: `<svg>` elements with axes, units and a legend.
"""

import dataclasses
import html
import math
from collections.abc import Sequence

LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 44  # margins around the axes
NUM_COLOURS = 6


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A value with its interval."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A named row of points, in the colour of its number."""

    name: str
    points: Sequence[Point]
    colour: int


def legend(names: Sequence[str]) -> str:
    """What each colour stands for; HTML, so that it wraps."""
    items = [f'<span><i class="key c{i % NUM_COLOURS}"></i>{html.escape(name)}</span>' for i, name in enumerate(names)]
    return f'<p class="legend">{"".join(items)}</p>'


def bars(groups: Sequence[str], rows: Sequence[tuple[str, Sequence[Point]]], x_label: str, label: str) -> str:
    """Shares in percent: for each group a bar of each row, with its interval."""
    width, height = 300, 220
    plot = _Frame(width, height, 0.0, float(len(groups)), 0.0, 1.0)
    parts = [plot.y_axis([0, 0.25, 0.5, 0.75, 1.0], lambda v: f"{v:.0%}", "right answers")]
    for g, group in enumerate(groups):
        parts.append(_text(plot.x(g + 0.5), height - BOTTOM + 16, group))
        slot = 0.72 / len(rows)
        for r, (_, points) in enumerate(rows):
            point, left = points[g], plot.x(g + 0.14 + r * slot)
            wide, y = plot.x(slot) - plot.x(0) - 3, plot.y(point.y)
            parts.append(f'<rect class="c{r % NUM_COLOURS}" x="{left:.1f}" y="{y:.1f}" width="{wide:.1f}" '
                         f'height="{max(1.0, plot.y(0) - y):.1f}" rx="2"/>')  # fmt: skip
            parts.append(_whisker(left + wide / 2, plot, point))
    parts.append(_text((plot.x(0) + plot.x(len(groups))) / 2, height - 8, x_label, "axis"))
    return _svg(width, height, parts, label)


def lines(
    rows: Sequence[Line], x_label: str, y_label: str, label: str, *, log_x: bool = False, share: bool = False
) -> str:
    """Lines over a common x axis; with `share`, y goes from 0 to 100 %."""
    width, height = 440, 280
    move = math.log10 if log_x else float
    xs = [move(p.x) for row in rows for p in row.points] or [0.0, 1.0]
    ys = [p.y for row in rows for p in row.points] or [1.0]
    step = 0.25 if share else _nice(max(ys) / 4)
    ticks = [step * i for i in range(math.ceil((1.0 if share else max(ys)) / step - 1e-9) + 1)]
    top = ticks[-1]
    low, high = min(xs) if log_x else 0.0, max(xs)
    pad = (high - low) * 0.04 if log_x else 0.0
    plot = _Frame(width, height, low - pad, max(high + pad, low + 1e-9), 0.0, top)
    parts = [plot.y_axis(ticks, (lambda v: f"{v:.0%}") if share else (lambda v: f"{v:.3g}"), y_label)]
    for tick in _x_ticks(rows, low, high, log_x):
        parts.append(_text(plot.x(move(tick)), height - BOTTOM + 16, f"{tick:,.0f}"))
    for row in rows:
        name = f"c{row.colour % NUM_COLOURS}"
        path = " ".join(f"{plot.x(move(p.x)):.1f},{plot.y(min(p.y, top)):.1f}" for p in row.points)
        parts.append(f'<polyline class="line {name}" points="{path}"/>')
        for point in row.points if share else ():
            parts.append(
                f'<circle class="{name}" cx="{plot.x(move(point.x)):.1f}" cy="{plot.y(point.y):.1f}" r="3.5"/>'
            )
            parts.append(_whisker(plot.x(move(point.x)), plot, point))
    parts.append(_text((LEFT + width - RIGHT) / 2, height - 8, x_label, "axis"))
    return _svg(width, height, parts, label)


class _Frame:
    """From data to places in the picture."""

    def __init__(self, width: float, height: float, x0: float, x1: float, y0: float, y1: float):
        self._width, self._height = width, height
        self._x, self._y = (x0, x1), (y0, y1)

    def x(self, value: float) -> float:
        low, high = self._x
        return LEFT + (value - low) / (high - low) * (self._width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        return self._height - BOTTOM - (value - low) / (high - low) * (self._height - TOP - BOTTOM)

    def y_axis(self, ticks: Sequence[float], show, label: str) -> str:
        right = self._width - RIGHT
        parts = []
        for tick in ticks:
            y = self.y(tick)
            parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(_text(LEFT - 5, y + 4, show(tick), "end"))
        middle = (TOP + self._height - BOTTOM) / 2
        parts.append(
            f'<text class="axis" transform="translate(11 {middle:.0f}) rotate(-90)">{html.escape(label)}</text>'
        )
        return "".join(parts)


def _whisker(x: float, plot: _Frame, point: Point) -> str:
    if point.low is None or point.high is None:
        return ""
    low, high = plot.y(point.low), plot.y(point.high)
    path = f"M{x - 4:.1f} {low:.1f}H{x + 4:.1f}M{x:.1f} {low:.1f}V{high:.1f}M{x - 4:.1f} {high:.1f}H{x + 4:.1f}"
    return f'<path class="whisker" d="{path}"/>'


def _x_ticks(rows: Sequence[Line], low: float, high: float, log_x: bool) -> list[float]:
    if log_x:
        return sorted({p.x for row in rows for p in row.points})
    step = _nice((high - low) / 4)
    return [i * step for i in range(int(high / step) + 1) if i * step >= low - 1e-9]


def _nice(value: float) -> float:
    """The next of 1, 2, 2.5, 5, 10 times a power of ten."""
    if value <= 0:
        return 1.0
    scale = 10 ** math.floor(math.log10(value))
    return next(factor * scale for factor in (1, 2, 2.5, 5, 10) if factor * scale >= value * 0.999)


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{html.escape(text)}</text>'


def _svg(width: int, height: int, parts: Sequence[str], label: str) -> str:
    inner = "".join(parts)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(label)}">{inner}</svg>'
