"""Parts of single leaves, read from a step or written to it without holding the rest in memory.

In: a step and a leaf's path. Out: NumPy arrays (one index of axis 0, or the leaf in pieces of bounded size); and the
other way, a step that any reader of Orbax opens. Orbax has no call for parts of leaves, so this opens the zarr arrays,
which is what Orbax documents as its format on disk.
"""

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stratos_jax.checkpoint import folders, orbax
from stratos_jax.checkpoint.digest import Words, add, text, words_of
from stratos_jax.checkpoint.folders import step_url
from stratos_jax.checkpoint.integrity import (
    Damaged,
    Integrity,
    Leaf,
    list_files,
    read_integrity,
    write_integrity,
)
from stratos_jax.store import Url
from stratos_jax.types import Json

PART_BYTES = 256 << 20


class LeafReader:
    """Reads a step's leaves in parts."""

    def __init__(self, directory: Url, step: int):
        self.url = step_url(directory, step)
        self.integrity: Integrity = read_integrity(directory, step)
        self._arrays: dict[str, Any] = {}

    def read(self, path: str, index: int | slice | None = None) -> np.ndarray:
        """A leaf, or `leaf[index]`; a number format that NumPy lacks comes as the one of ml_dtypes."""
        array = self._open(path)
        with orbax.damage_as(Damaged, path, self.url):
            return np.asarray((array if index is None else array[index]).read().result())

    def parts(self, path: str) -> Iterator[np.ndarray]:
        """The leaf's numbers in order, in pieces of axis 0 of a bounded size."""
        leaf = self.integrity.leaf(path)
        if not leaf.shape or 0 in leaf.shape:
            yield self.read(path)
            return
        rows = max(1, PART_BYTES * leaf.shape[0] // (int(np.prod(leaf.shape)) * 4))
        for start in range(0, leaf.shape[0], rows):
            yield self.read(path, slice(start, min(start + rows, leaf.shape[0])))

    def _open(self, path: str) -> Any:
        if path not in self._arrays:
            with orbax.damage_as(Damaged, path, self.url):
                self._arrays[path] = orbax.open_array(self.url, path)
        return self._arrays[path]


class StepWriter:
    """Writes a new step part by part; it counts as a step once `finish` has returned."""

    def __init__(self, directory: Url, step: int, leaves: Mapping[str, tuple[tuple[int, ...], np.dtype]]):
        self.directory, self.step, self.leaves = str(directory), step, dict(leaves)
        self.url, self._start = step_url(directory, step), time.monotonic()
        self._words: dict[str, Words] = dict.fromkeys(leaves, (0, 0))
        self._written: dict[str, int] = dict.fromkeys(leaves, 0)
        self._arrays: dict[str, Any] = {}
        for name in folders.unfinished(directory):
            folders.remove(directory, name)
        orbax.save_places(self.url, {path: dtype for path, (_, dtype) in leaves.items()})

    def write(self, path: str, part: np.ndarray, index: int | None = None) -> None:
        """Write a whole leaf, or `leaf[index]`."""
        shape, dtype = self.leaves[path]
        assert part.dtype == dtype and part.shape == (shape if index is None else shape[1:]), (path, part.shape)
        with orbax.user_errors(self.url):
            if path not in self._arrays:
                self._arrays[path] = orbax.create_array(
                    self.url, path, shape, dtype, _chunk(shape, dtype.itemsize, stacked=index is not None)
                )
            array = self._arrays[path]
            (array if index is None else array[index]).write(part).result()
        self._words[path] = add(self._words[path], words_of(part, (index or 0) * part.size))
        self._written[path] += part.size

    def finish(self, metadata: Mapping[str, Json]) -> Integrity:
        """Make it a step."""
        for path, (shape, _) in self.leaves.items():
            assert self._written[path] == math.prod(shape), path
        leaves = tuple(
            Leaf(path=path, shape=shape, dtype=str(dtype), digest=text(self._words[path]))
            for path, (shape, dtype) in self.leaves.items()
        )
        files, seconds = list_files(self.directory, self.step), time.monotonic() - self._start
        integrity = Integrity(step=self.step, leaves=leaves, files=files, metadata=dict(metadata), seconds=seconds)
        write_integrity(self.directory, integrity)
        return integrity


def _chunk(shape: tuple[int, ...], itemsize: int, *, stacked: bool) -> tuple[int, ...]:
    """A chunk of one layer at most, cut along the next axis to about `orbax.CHUNK_BYTES`."""
    chunk = [1, *shape[1:]] if stacked else list(shape)
    axis = 1 if stacked else 0
    if len(chunk) > axis and math.prod(chunk) * itemsize > orbax.CHUNK_BYTES:
        chunk[axis] = max(1, orbax.CHUNK_BYTES * chunk[axis] // (math.prod(chunk) * itemsize))
    return tuple(chunk)
