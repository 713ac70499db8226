"""What a person sees of a run: a bar with rate, time left and a small loss curve on a terminal, plain lines elsewhere.

In: records of steps. Out: text on stderr.
"""

import sys
import time
from collections import deque
from typing import Any

BARS = "▁▂▃▄▅▆▇█"
POINTS = 40
LINE_SECONDS = 10.0  # between two plain lines, but for the first few


class Display:
    """Shows one run."""

    def __init__(self, num_steps: int, stream: Any = None, quiet: bool = False):
        self._stream = stream or sys.stderr
        self._num_steps = num_steps
        self._first: tuple[int, float] | None = None  # step, and when; it took the compilation too
        self._said, self._lines = 0.0, 0
        self._losses: deque[float] = deque(maxlen=POINTS)
        self._quiet = quiet
        self._bar = self._task = None
        if not quiet and self._stream.isatty():
            self._open_bar()

    def update(self, record: dict[str, Any]) -> None:
        """Show a step."""
        self._first = self._first or (record["step"], time.monotonic())
        if "loss" in record:
            self._losses.append(record["loss"])
        if self._bar is not None:
            assert self._task is not None
            text = f"{summary(record)}  {sparkline(self._losses)}"
            self._bar.update(self._task, completed=record["step"], what=text)
        elif not self._quiet and (self._lines < 3 or time.monotonic() - self._said > LINE_SECONDS):
            self._lines, self._said = self._lines + 1, time.monotonic()
            self._print(f"step {record['step']}/{self._num_steps}  {summary(record)}  {self._left(record['step'])}")

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        elif not self._quiet:
            self._print(text)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def _left(self, step: int) -> str:
        first, began = self._first or (step, 0.0)
        if step == first:
            return ""
        seconds = (time.monotonic() - began) / (step - first) * (self._num_steps - step)
        return f"{int(seconds // 3600)}:{int(seconds % 3600 // 60):02d}:{int(seconds % 60):02d} left"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(20), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[what]}"))
        self._bar = Progress(*columns, console=Console(file=self._stream))
        self._task = self._bar.add_task("train", total=self._num_steps, what="compiling")
        self._bar.start()


def summary(record: dict[str, Any]) -> str:
    """The figures of a step in a few words."""
    parts = [f"loss {record['loss']:.4f}" if "loss" in record else "loss nan"]
    formats = {"grad_norm": "norm {:.3g}", "learning_rate": "lr {:.2e}", "tokens_per_second": "{:,.0f} tok/s"}
    parts += [form.format(record[name]) for name, form in formats.items() if name in record]
    if "mfu" in record:
        parts.append(f"MFU {100 * record['mfu']:.1f} %")
    return "  ".join(parts)


def sparkline(values: Any) -> str:
    """A curve in one line of text."""
    values = list(values)
    if not values:
        return ""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)
