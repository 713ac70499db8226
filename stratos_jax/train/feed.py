"""Batches onto the mesh, read ahead in the background.

In: the loader, shardings, the first step. Out: global arrays, of which this host reads only the rows of its own
devices. What goes wrong while reading is raised in the loop, at the step where it happened.
"""

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import jax
import numpy as np

AHEAD = 2


class Loader(Protocol):
    """What the trainer needs of `shards.loader.Loader`."""

    rows_per_step: int
    row_tokens: int

    @property
    def num_steps(self) -> int: ...
    def batch(self, step: int, rows: slice | None = None) -> dict[str, np.ndarray]: ...
    def samples(self, step: int) -> list[list[str]]: ...


def place(loader: Loader, step: int, shardings: Mapping[str, jax.sharding.Sharding]) -> dict[str, jax.Array]:
    """One step's batch as global arrays."""
    shape, parts = (loader.rows_per_step, loader.row_tokens), {}

    def read(name: str, index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(shape[0])
        if (start, stop) not in parts:
            parts[start, stop] = loader.batch(step, rows=slice(start, stop))
        return parts[start, stop][name][:, index[1]]

    make = lambda name, sharding: jax.make_array_from_callback(shape, sharding, lambda index: read(name, index))  # pyright: ignore[reportArgumentType]
    return {name: make(name, sharding) for name, sharding in shardings.items()}


class Feed:
    """Iterates (step, batch) from a first step on, a few steps ahead of who asks."""

    def __init__(self, loader: Loader, shardings: Mapping[str, jax.sharding.Sharding], start: int, stop: int):
        self.wait_seconds = 0.0  # that the loop has spent waiting for data
        self._queue: queue.Queue = queue.Queue(AHEAD)
        self._stopped = threading.Event()
        self._args = (loader, shardings, start, stop)
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[tuple[int, dict[str, jax.Array]]]:
        while True:
            start = time.monotonic()
            item = self._queue.get()
            self.wait_seconds += time.monotonic() - start
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop reading."""
        self._stopped.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)
            except queue.Empty:
                continue

    def _read(self) -> None:
        loader, shardings, start, stop = self._args
        try:
            for step in range(start, stop):
                self._put((step, place(loader, step, shardings)))
                if self._stopped.is_set():
                    return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _put(self, item: Any) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(item, timeout=0.2)
            except queue.Full:
                continue
