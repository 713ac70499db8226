"""How far a long piece of work is: tokens, rate and time left, on stderr."""

import sys
import time


class Progress:
    """One line rewritten on a terminal, a line every ten seconds elsewhere."""

    def __init__(self, what: str, total: int):
        self._what, self._total, self._tokens, self._part = what, total, 0, 0
        self._start = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def show(self, tokens: int, part: int) -> None:
        """Report the tokens done, and how much of the total that is (in the total's own unit)."""
        self._tokens, self._part, now = tokens, part, time.monotonic()
        if now - self._shown >= (0.2 if self._terminal else 10):
            self._shown = now
            self._print("" if self._terminal else "\n")

    def end(self) -> None:
        """Report the last figures."""
        if self._terminal:
            self._print("\n")

    def _print(self, end: str) -> None:
        seconds = max(1e-9, time.monotonic() - self._start)
        left = seconds * (self._total - self._part) / self._part if self._part else 0.0
        line = f"{self._what}: {self._tokens:,} tokens, {self._tokens / seconds:,.0f} tokens/s, {left:,.0f} s left"
        print(f"\r{line}  " if self._terminal else line, end=end, file=sys.stderr, flush=True)
