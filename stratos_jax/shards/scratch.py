"""Tokenized samples on disk, between tokenizing and packing: chunks that are written whole or not at all.

In: words and ids of the samples of one chunk. Out: an index of all samples, and any sample by its place.
A chunk is three files; its JSON is written last and means that the chunk is complete.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.types import Json

SAMPLE = np.dtype(
    [
        ("chunk", "<i4"),  # number among all chunks
        ("start", "<i8"),  # first word in the chunk's words
        ("length", "<i4"),
        ("learned", "<i4"),  # tokens that the loss counts
        ("id_start", "<i8"),
        ("id_bytes", "<i4"),
        ("hash", "<u8"),  # of the words
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One tokenized sample, read back."""

    id: str
    words: np.ndarray


def write_chunk(stem: pathlib.Path, samples: Sequence[tuple[str, np.ndarray, int, int]], report: Json) -> None:
    """Write samples of (id, words, learned, hash) and a report; the report last."""
    table = np.zeros(len(samples), SAMPLE)
    ids = [name.encode() for name, *_ in samples]
    table["length"] = [len(words) for _, words, _, _ in samples]
    table["learned"] = [count for _, _, count, _ in samples]
    table["hash"] = [digest for *_, digest in samples]
    table["id_bytes"] = [len(name) for name in ids]
    table["start"] = np.cumsum(table["length"]) - table["length"]
    table["id_start"] = np.cumsum(table["id_bytes"]) - table["id_bytes"]
    words = np.concatenate([w for _, w, _, _ in samples]) if samples else np.zeros(0, np.uint32)
    stem.parent.mkdir(parents=True, exist_ok=True)
    store.write_bytes(stem.with_suffix(".words"), words.astype("<u4").tobytes() + b"".join(ids))
    store.write_bytes(stem.with_suffix(".table"), table.tobytes())
    store.write_bytes(stem.with_suffix(".json"), json.dumps(report).encode())


def is_complete(stem: pathlib.Path, covers: Json) -> bool:
    """Whether a chunk was written to its end, and covers these lines (another chunk size would cover others)."""
    return stem.with_suffix(".json").exists() and read_report(stem)["covers"] == covers


def read_report(stem: pathlib.Path) -> dict[str, Any]:
    """The report of a chunk."""
    return json.loads(stem.with_suffix(".json").read_bytes())


def read_index(stems: Sequence[pathlib.Path]) -> np.ndarray:
    """The samples of all chunks, in order."""
    tables = []
    for number, stem in enumerate(stems):
        table = np.frombuffer(stem.with_suffix(".table").read_bytes(), SAMPLE).copy()
        table["chunk"] = number
        tables.append(table)
    return np.concatenate(tables) if tables else np.zeros(0, SAMPLE)


class Reader:
    """Reads single samples from chunks; keeps a bounded number of files open."""

    def __init__(self, stems: Sequence[str], most_open: int = 64):
        self._stems, self._most_open, self._open = stems, most_open, {}

    def read(self, sample: Any) -> Sample:
        """The sample at one entry of the index."""
        handle, ids_at = self._handle(int(sample["chunk"]))
        words = os.pread(handle, 4 * int(sample["length"]), 4 * int(sample["start"]))
        name = os.pread(handle, int(sample["id_bytes"]), ids_at + int(sample["id_start"]))
        return Sample(name.decode(), np.frombuffer(words, "<u4"))

    def _handle(self, chunk: int) -> tuple[int, int]:
        if chunk not in self._open:
            if len(self._open) >= self._most_open:
                os.close(self._open.pop(next(iter(self._open)))[0])
            stem = self._stems[chunk]
            table = np.fromfile(f"{stem}.table", SAMPLE)
            self._open[chunk] = (os.open(f"{stem}.words", os.O_RDONLY), 4 * int(table["length"].sum()))
        return self._open[chunk]

    def close(self) -> None:
        """Close all files."""
        while self._open:
            os.close(self._open.popitem()[1][0])
