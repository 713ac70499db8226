"""Packed rows to files: ArrayRecord shards, the tables beside them, and the TFDS description of the folder.

In: a plan over the samples in the scratch folder. Out: a folder that `tfds.builder_from_directory` opens.
"""

import io
import os
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from stratos_jax import store
from stratos_jax.shards import features, pack, scratch
from stratos_jax.types import Json

ROWS_TABLE, SAMPLES_TABLE = "index/rows.npy", "index/samples.jsonl"
SHARD_TOKENS = 1 << 24  # rows of about so many tokens make one file, where the config leaves it open


def num_shards(num_rows: int, row_tokens: int, wanted: int | None) -> int:
    """Files to write; never more than rows, never none."""
    return max(1, min(num_rows, wanted or -(-num_rows * row_tokens // SHARD_TOKENS)))


def shard_tasks(
    plan: pack.Plan, index: np.ndarray, stems: Sequence[pathlib.Path], folder: pathlib.Path, count: int, row_tokens: int
):
    """The arguments of `write_shard` for each file; rows are dealt out evenly."""
    borders = shard_borders(len(plan), count)
    names = [os.fspath(stem) for stem in stems]
    for shard, (begin, end) in enumerate(zip(borders[:-1], borders[1:], strict=True)):
        starts = plan.starts[begin : end + 1]
        samples = index[plan.items[starts[0] : starts[-1]]]
        yield names, samples, starts - starts[0], folder / features.shard_name(shard, count), row_tokens


def shard_borders(num_rows: int, count: int) -> list[int]:
    """First row of each file, and the end."""
    return [num_rows * shard // count for shard in range(count + 1)]


def write_shard(
    stems: Sequence[str], samples: np.ndarray, starts: np.ndarray, path: pathlib.Path, row_tokens: int
) -> int:
    """Write one file of rows, unless it is there already; returns the bytes of its records."""
    if path.exists():
        return sum(len(record) for record in store.arrayrecord.ArrayRecordFile(path))
    size = 0

    def records() -> Iterator[bytes]:
        nonlocal size
        for begin, end in zip(starts[:-1], starts[1:], strict=True):
            read = [reader.read(sample) for sample in samples[begin:end]]
            row = features.make_row([s.words for s in read], [s.id for s in read], row_tokens)
            record = features.encode_row(row)
            size += len(record)
            yield record

    reader = scratch.Reader(stems)
    try:
        store.arrayrecord.write_arrayrecord(path, records())
    finally:
        reader.close()
    return size


def write_tables(
    plan: pack.Plan, table: np.ndarray, index: np.ndarray, stems: Sequence[pathlib.Path], folder: pathlib.Path
) -> None:
    """What is known of each row, for the loader, and of each sample, for people."""
    buffer = io.BytesIO()
    np.save(buffer, table, allow_pickle=False)
    (folder / "index").mkdir(exist_ok=True)
    store.write_bytes(folder / ROWS_TABLE, buffer.getvalue())
    reader = scratch.Reader([os.fspath(stem) for stem in stems])
    try:
        store.jsonl.write_jsonl(folder / SAMPLES_TABLE, _sample_lines(plan, index, reader))
    finally:
        reader.close()


def _sample_lines(plan: pack.Plan, index: np.ndarray, reader: scratch.Reader) -> Iterator[Json]:
    for row in range(len(plan)):
        for segment, item in enumerate(plan.row(row), start=1):
            sample = index[item]
            yield {
                "id": reader.read(sample).id,
                "row": row,
                "segment": segment,
                "tokens": int(sample["length"]),
                "learned": int(sample["learned"]),
                "hash": f"{int(sample['hash']):016x}",
            }
