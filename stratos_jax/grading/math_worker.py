"""A pool of killable worker processes that compare math answers.

In: `(gold, answer, problem, precision)` jobs. Out: `(outcome, reason)` in the order of the jobs.
A worker is a fresh interpreter that stays alive from pair to pair. The parent holds the clock: a worker that passes its
limit is killed and replaced, whatever it was doing (a signal inside the process cannot stop a big-integer power). The
memory limit is set by the worker on itself before it reads anything. Frames both ways: 4 bytes of length, then JSON.
"""

import collections
import dataclasses
import json
import os
import resource
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from stratos_jax.grading.config import MathConfig
from stratos_jax.types import from_json

Decision = tuple[str, str]  # outcome, reason
PACKAGE_PARENT = str(Path(__file__).resolve().parents[2])


@dataclasses.dataclass(kw_only=True, slots=True)
class Job:
    """One pair to compare, or one that is decided already; `tag` goes through untouched."""

    tag: object
    request: dict | None
    decision: Decision | None = None
    seconds: float = 0.0


class WorkerPool:
    """Up to `workers` processes, started when first needed; use as a context manager."""

    def __init__(self, config: MathConfig, workers: int):
        self.config, self.limit = config, max(1, workers)
        self.idle: list[_Worker] = []
        self.busy: dict[_Worker, Job] = {}
        self.selector = selectors.DefaultSelector()

    def __enter__(self) -> "WorkerPool":
        return self

    def __exit__(self, *_: object) -> None:
        for worker in [*self.idle, *self.busy]:
            worker.kill()
        self.selector.close()

    def in_order(self, jobs: Iterable[Job]) -> Iterator[Job]:
        """Each job with its decision, in the order given; a job that costs a worker its life is `unknown`."""
        source, window, waiting = iter(jobs), collections.deque(), collections.deque()
        more = True
        while more or window:
            while more and len(window) < 8 * self.limit:
                job = next(source, None)
                more = job is not None
                if job is not None:
                    window.append(job)
                    if job.decision is None:
                        waiting.append(job)
                    self._hand_out(waiting)
            self._hand_out(waiting)
            while window and window[0].decision is not None:
                yield window.popleft()
            if window and window[0].decision is None:
                self._wait()

    def _hand_out(self, waiting: collections.deque[Job]) -> None:
        while waiting and (self.idle or len(self.busy) < self.limit):
            worker = self.idle.pop() if self.idle else _Worker(self.config)
            job = waiting.popleft()
            self.selector.register(worker.read_fd, selectors.EVENT_READ, worker)
            self.busy[worker] = job
            worker.send(job.request)

    def _wait(self) -> None:
        deadline = min(worker.deadline for worker in self.busy)
        for key, _ in self.selector.select(max(0.0, deadline - time.monotonic())):
            self._hear(key.data)
        now = time.monotonic()
        for worker in [w for w in self.busy if w.deadline <= now]:
            self._lose(worker, "unknown.timeout")

    def _hear(self, worker: "_Worker") -> None:
        frames = worker.read()
        if frames is None:
            return self._lose(worker, "unknown.worker_died")
        for frame in frames:
            if frame.get("state") == "loading":
                worker.deadline = time.monotonic() + self.config.start_seconds
            elif frame.get("state") == "ready":
                worker.start_clock()
            else:
                self._finish(worker, frame)

    def _finish(self, worker: "_Worker", frame: dict) -> None:
        job = self.busy.pop(worker)
        self.selector.unregister(worker.read_fd)
        job.decision, job.seconds = (frame["outcome"], frame["reason"]), time.monotonic() - worker.started
        if frame.get("tired"):
            worker.kill()
        else:
            self.idle.append(worker)

    def _lose(self, worker: "_Worker", reason: str) -> None:
        job = self.busy.pop(worker)
        self.selector.unregister(worker.read_fd)
        worker.kill()
        job.decision, job.seconds = ("unknown", reason), time.monotonic() - worker.started


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self, config: MathConfig):
        path = os.pathsep.join(p for p in (PACKAGE_PARENT, os.environ.get("PYTHONPATH")) if p)
        self.config = config
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stratos_jax.grading.math_worker", json.dumps(dataclasses.asdict(config))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        assert self.process.stdin and self.process.stdout
        self.write_fd, self.read_fd = self.process.stdin.fileno(), self.process.stdout.fileno()
        self.buffer = b""
        self.fresh = True  # its first frame says that it is up; until then the start-up clock runs
        self.started = self.deadline = 0.0

    def send(self, request: dict | None) -> None:
        self.start_clock()
        if self.fresh:
            self.deadline = self.started + self.config.start_seconds
            self.fresh = False
        data = json.dumps(request).encode()
        try:
            _write_all(self.write_fd, struct.pack(">I", len(data)) + data)
        except BrokenPipeError:
            pass  # the end of file on its other pipe tells of its death

    def start_clock(self) -> None:
        self.started = time.monotonic()
        self.deadline = self.started + self.config.wall_seconds

    def read(self) -> list[dict] | None:
        """The frames that have come in whole; None if the worker is gone."""
        chunk = os.read(self.read_fd, 65536)
        if not chunk:
            return None
        self.buffer += chunk
        frames = []
        while len(self.buffer) >= 4:
            (size,) = struct.unpack(">I", self.buffer[:4])
            if len(self.buffer) < 4 + size:
                break
            frames.append(json.loads(self.buffer[4 : 4 + size]))
            self.buffer = self.buffer[4 + size :]
        return frames

    def kill(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _read_exactly(fd: int, size: int) -> bytes:
    parts = []
    while size:
        chunk = os.read(fd, min(size, 1 << 20))
        if not chunk:
            sys.exit(0)  # the parent is gone
        parts.append(chunk)
        size -= len(chunk)
    return b"".join(parts)


def serve(config: MathConfig) -> None:
    """The worker's life: read a pair, compare, answer; end when the parent closes the pipe."""
    limit = config.memory_mb << 20
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    read_fd, write_fd = os.dup(0), os.dup(1)
    sink = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(sink, fd)  # no library may print into the frames

    from stratos_jax.grading import math_baselines, math_decide

    def say(frame: dict) -> None:
        data = json.dumps(frame).encode()
        _write_all(write_fd, struct.pack(">I", len(data)) + data)

    def loading(done: bool) -> None:
        # An orphan that hangs in C code hears nothing; the kernel's own alarm ends it.
        signal.setitimer(signal.ITIMER_REAL, 2 * (config.wall_seconds if done else config.start_seconds))
        say({"state": "ready" if done else "loading"})

    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        (size,) = struct.unpack(">I", _read_exactly(read_fd, 4))
        request = json.loads(_read_exactly(read_fd, size))
        signal.setitimer(signal.ITIMER_REAL, 2 * config.wall_seconds)
        say({"state": "ready"})
        frame = {}
        try:
            if "baseline" in request:
                outcome, reason = math_baselines.decide(**request, loading=loading)
            else:
                outcome, reason = math_decide.decide(**request, config=config, loading=loading)
        except MemoryError:
            outcome, reason, frame = "unknown", "unknown.memory", {"tired": True}
        except RecursionError:
            outcome, reason = "unknown", "unknown.recursion"
        except Exception as error:  # a fault of ours or of a library: never a verdict on the answer
            outcome, reason = "unknown", f"unknown.error.{type(error).__name__}"
        signal.setitimer(signal.ITIMER_REAL, 0)
        say({"outcome": outcome, "reason": reason, **frame})


if __name__ == "__main__":
    serve(from_json(MathConfig, json.loads(sys.argv[1])))
