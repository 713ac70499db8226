"""How a run of stages is shown: bars on a terminal, plain lines elsewhere; all on stderr.

In: stages that begin, go on and end. Out: what a person sees.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

EVERY_S = 10.0  # between two plain lines of one stage


class Display:
    """Shows stages one after the other."""

    def __init__(self, what: str):
        self._began, self._what = time.monotonic(), what
        self._terminal = sys.stderr.isatty()
        self._console: Any = None
        if self._terminal:
            from rich.console import Console

            self._console = Console(stderr=True)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Callable[[int, int, str], None]]:
        """A stage that begins; a bar appears with its first word of progress."""
        if self._terminal:
            self._console.rule(f"[bold]{self._what}: {name}[/]", align="left", characters="-", style="dim")
            bar = _Bar(self._console, name)
            try:
                yield bar.update
            finally:
                bar.close()
            return
        print(f"{self._what}: {name} ...", file=sys.stderr, flush=True)
        yield _Lines(name).update

    def done(self, name: str, note: str) -> None:
        """A stage that is complete."""
        clock = int(time.monotonic() - self._began)
        text = f"{clock // 60}:{clock % 60:02d}"
        if self._terminal:
            self._console.print(f"[green]ok[/] {name}  [dim]{note}  (at {text})[/]", highlight=False)
        else:
            print(f"{self._what}: {name} ok, {note} (at {text})", file=sys.stderr, flush=True)


class _Bar:
    """A bar with rate and time left, once there is something to count."""

    def __init__(self, console: Any, name: str):
        self._console, self._name = console, name
        self._bar: Any = None
        self._task: Any = None

    def update(self, done: int, total: int, note: str) -> None:
        """So many of so many are done."""
        if self._bar is None:
            from rich import progress

            columns = (
                progress.TextColumn("{task.description}"),
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TimeElapsedColumn(),
                progress.TimeRemainingColumn(),
                progress.TextColumn("[dim]{task.fields[note]}"),
            )
            self._bar = progress.Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._name, total=total, note=note)
            self._bar.start()
        self._bar.update(self._task, completed=done, total=total, note=note)

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.stop()


class _Lines:
    """A line now and then."""

    def __init__(self, name: str):
        self._name, self._said, self._began, self._first = name, 0.0, time.monotonic(), -1

    def update(self, done: int, total: int, note: str) -> None:
        """So many of so many are done."""
        now = time.monotonic()
        self._first = done if self._first < 0 else self._first
        if now - self._said < EVERY_S and done < total:
            return
        self._said = now
        rate = (done - self._first) / max(1e-9, now - self._began)
        left = f", {(total - done) / rate:,.0f} s left" if rate > 0 and done < total else ""
        print(f"  {self._name} {done:,}/{total:,}{left}{', ' if note else ''}{note}", file=sys.stderr, flush=True)
