"""Progress of a transfer on stderr: a bar with rate and time left on a terminal, a line now and then elsewhere."""

import sys
import time

EVERY = 10.0  # seconds between lines; work that is shorter prints none


class Progress:
    """Counts bytes up to a total."""

    def __init__(self, title: str, total: int):
        self._title, self._total, self._done = title, total, 0
        self._start = self._said = time.monotonic()
        self._bar = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty() and self._total:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
            self._bar = Bar(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self

    def add(self, size: int) -> None:
        """`size` more bytes are done."""
        self._done += size
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        elif now - self._said > EVERY:
            self._said = now
            rate = self._done / (now - self._start)
            left = (self._total - self._done) / rate if rate else 0.0
            text = f"{self._done / 1e6:.0f} of {self._total / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left"
            print(f"{self._title}: {text}", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
