"""Keeps a run from hanging and from dying unsaved: heartbeats, a watchdog on progress, and preemption.

In: `Hosts`, time-outs. Out: an object that the loop tells of its progress, and asks whether to stop. A run without
progress dumps the stacks of all threads, names the hosts that are behind, and exits with 42. SIGTERM to any host makes
all hosts stop after the same step; while nothing is worth saving (start, compilation) they exit at once.
"""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from stratos_jax.mesh.hosts import RERUN, Hosts, HostsMissing

PERIOD = 1.0  # seconds between two looks at the table


class Alive:
    """One run's watch; a context manager."""

    def __init__(
        self,
        hosts: Hosts,
        *,
        watchdog_seconds: float,
        barrier_seconds: float,
        period: float = PERIOD,
        say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
        leave: Callable[[int], Any] = os._exit,
    ):
        self.hosts, self.say, self.leave = hosts, say, leave
        self.watchdog_seconds, self.barrier_seconds, self.period = watchdog_seconds, barrier_seconds, period
        self._step, self._phase, self._interruptible = -1, "start", True
        self._progress = time.monotonic()
        self._wait_seconds = 0.0
        self._noticed = threading.Event()
        self._closed = threading.Event()
        self._agreed = threading.Event()
        self._lock = threading.Lock()
        self._dispatched, self._stop_at = 0, 0
        self._named: int | None = None  # the step that this host offers to stop after
        self._beats: dict[int, dict[str, Any]] = {}  # as last read; reading may block for ever when host 0 hangs
        self._heard = time.monotonic()
        self._threads = [
            threading.Thread(target=run, name=run.__name__, daemon=True) for run in (self._watch, self._talk)
        ]
        self._pipe: tuple[int, int] | None = None
        self._old: tuple[Any, int] | None = None

    def __enter__(self) -> "Alive":
        if threading.current_thread() is threading.main_thread():
            self._listen()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        if self._old is not None:
            signal.signal(signal.SIGTERM, self._old[0])
            signal.set_wakeup_fd(self._old[1])
        if self._pipe is not None:
            os.close(self._pipe[1])
        for thread in self._threads:
            thread.join(timeout=5.0)

    def phase(self, name: str, *, interruptible: bool = False) -> None:
        """Say what is going on; an interruptible phase has nothing to save and is left at once on SIGTERM."""
        self._phase, self._interruptible = name, interruptible
        self._progress = time.monotonic()

    def start_from(self, step: int) -> None:
        """Say which step the loop starts after."""
        with self._lock:
            self._dispatched = step

    def step(self, step: int, wait_seconds: float = 0.0) -> None:
        """A step has finished."""
        self._step, self._progress, self._wait_seconds = step, time.monotonic(), wait_seconds
        if self._phase != "train":
            self._phase, self._interruptible = "train", False

    def should_stop(self, dispatched: int) -> bool:
        """Whether to stop after step `dispatched`; once one host is preempted, all stop after the same step.

        Threads agree on it, so that a host may be inside a step or a save meanwhile: each names the step after the one
        that it is known to have reached, which is the furthest that it can be in, and goes no further until all have.
        """
        with self._lock:
            self._dispatched = dispatched
            if self.hosts.count == 1:
                return self._noticed.is_set()
            if self._named is None:
                return False
        if not self._agreed.wait(self.barrier_seconds):
            raise HostsMissing(f"preempted, but not all hosts named a step within {self.barrier_seconds:g} s")
        return dispatched >= self._stop_at

    def _agree(self) -> None:
        """Name a step to stop after, and learn the others' choice."""
        with self._lock:
            if self._named is None:
                self._named = self._dispatched + 1
        self.hosts.put(f"stop/{self.hosts.index}", self._named)
        named = self.hosts.read_all("stop")
        if len(named) == self.hosts.count:
            self._stop_at = max(named.values())
            self._agreed.set()

    @property
    def preempted(self) -> bool:
        """Whether a host was asked to go."""
        return self._noticed.is_set()

    def _listen(self) -> None:
        """Hear SIGTERM in a thread, so that it is heard while the main thread compiles."""
        reader, writer = self._pipe = os.pipe()
        os.set_blocking(writer, False)
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        self._old = (handler, signal.set_wakeup_fd(writer, warn_on_full_buffer=False))

        def wait() -> None:
            while number := os.read(reader, 1):
                if number[0] == signal.SIGTERM:
                    self.say(f"host {self.hosts.index}: SIGTERM")
                    self.hosts.put(f"notice/{self.hosts.index}", time.time())
                    self._notice()
            os.close(reader)

        self._threads.append(threading.Thread(target=wait, name="sigterm", daemon=True))

    def _notice(self) -> None:
        self._noticed.set()
        if self._interruptible:
            self.say(f"host {self.hosts.index}: preempted during {self._phase}; nothing to save")
            self.leave(RERUN)

    def _talk(self) -> None:
        """Tell the others that this host lives, and hear from them."""
        while not self._closed.wait(self.period):
            try:
                beat = {"step": self._step, "phase": self._phase, "time": time.time(), "wait": self._wait_seconds}
                self.hosts.put(f"beat/{self.hosts.index}", beat)
                self._beats = {int(host): beat for host, beat in self.hosts.read_all("beat").items()}
                self._heard = time.monotonic()
                if not self._noticed.is_set() and self.hosts.read_all("notice"):
                    self._notice()
                if self._noticed.is_set() and self.hosts.count > 1:
                    self._agree()
            except Exception:  # host 0 is gone; the watchdog, or jax itself, ends the run
                continue

    def _watch(self) -> None:
        """End the run when nothing moves."""
        while not self._closed.wait(min(self.period, self.watchdog_seconds / 4)):
            silent = time.monotonic() - self._progress
            if silent < self.watchdog_seconds:
                continue
            text = f"host {self.hosts.index}: no progress for {silent:.0f} s in {self._phase!r} after step {self._step}"
            self.say(f"{text}; {self.behind()}; stacks of all threads follow, exit code {RERUN}")
            faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
            return self.leave(RERUN)

    def behind(self) -> str:
        """Names the hosts that stopped sending signs of life, or are behind the others."""
        if self.hosts.count == 1:
            return "there is no other host"
        deaf = time.monotonic() - self._heard
        if deaf > max(10.0 * self.period, 0.5 * self.watchdog_seconds) and self.hosts.index:
            return f"host 0 has not answered for {deaf:.0f} s"
        beats, now = self._beats, time.time()
        late = max(10.0 * self.period, 0.5 * self.watchdog_seconds)
        lines = [f"host {i} never started" for i in range(self.hosts.count) if i not in beats]
        lines += [f"host {i} silent for {now - b['time']:.0f} s" for i, b in beats.items() if now - b["time"] > late]
        first = max((beat["step"] for beat in beats.values()), default=0)
        lines += [f"host {i} at step {b['step']} of {first}" for i, b in beats.items() if b["step"] < first]
        return "; ".join(lines) or "all hosts are alive and at the same step"

    def stragglers(self, factor: float = 2.0) -> list[str]:
        """Hosts that waited for their data much longer than the median host."""
        waits = {host: beat["wait"] for host, beat in self._beats.items()}
        if len(waits) < 2:
            return []
        median = sorted(waits.values())[(len(waits) - 1) // 2]
        slow = {i: wait for i, wait in waits.items() if wait > factor * median + 1.0}
        return [f"host {i} waited {wait:.1f} s for data, the median host {median:.1f} s" for i, wait in slow.items()]
