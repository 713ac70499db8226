"""What a shards folder must be beyond its files' hashes: rows that are well formed and agree with the tables.

In: a folder, local or gs://. Out: a list of problems; `stratos verify` asks for it.
"""

import os
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.shards import build, loader, tokenize
from stratos_jax.types import UserError

MOST = 20  # problems that are named; the rest is counted
AT_ONCE = 64  # rows


def verify(directory: str | os.PathLike[str], *, deep: bool = False) -> list[str]:
    """Problems of the tables and the tokenizer, and with `deep` of every row."""
    try:
        opened = loader.Loader(directory, rows_per_step=loader.any_rows_per_step(directory), seed=0, epochs=1)
        problems = _tables(opened)
        if build.fingerprint(store.join(opened.folder, build.TOKENIZER)) != opened.manifest.counts["tokenizer"]:
            problems.append(f"{build.TOKENIZER}/: not the tokenizer that made the rows")
        return problems + (_rows(opened) if deep else [])
    except UserError as error:
        return [str(error)]


def _tables(opened: loader.Loader) -> list[str]:
    counts, table = opened.manifest.counts, opened.table
    found = {
        "rows": len(table),
        "samples": int(table["samples"].sum()),
        "real_tokens": int(table["tokens"].sum()),
        "target_tokens": int(table["targets"].sum()),
    }
    return [
        f"{name}: the table has {value}, the manifest {counts[name]}"
        for name, value in found.items()
        if value != counts[name]
    ]


def _rows(opened: loader.Loader) -> list[str]:
    vocabulary = len(tokenize.open_tokenizer(opened.folder / build.TOKENIZER))
    problems, total = [], len(opened.table)
    for first in range(0, total, AT_ONCE):
        numbers = range(first, min(total, first + AT_ONCE))
        for number, row in zip(numbers, opened.read_rows(numbers), strict=True):
            problems += [f"row {number}: {said}" for said in row_problems(row, opened.table[number], vocabulary)]
    return problems[:MOST] + ([f"... and {len(problems) - MOST} more"] if len(problems) > MOST else [])


def row_problems(row: dict[str, Any], entry: Any, vocabulary: int) -> list[str]:
    """What is wrong with one row."""
    segments, positions = row["segment_ids"], row["positions"]
    used = int((segments > 0).sum())
    starts = np.flatnonzero(np.diff(segments[:used], prepend=0))
    checks = {
        "padding in the middle": bool((segments[:used] > 0).all()),
        "segments not 1, 2, 3 ...": segments[starts].tolist() == list(range(1, len(starts) + 1)),
        "positions do not count from 0 in each segment": np.array_equal(
            positions[:used], np.arange(used) - np.repeat(starts, np.diff(np.append(starts, used)))
        ),
        "a sample begins with a learned token": not row["loss_mask"][starts].any(),
        "padding is learned": not row["loss_mask"][used:].any(),
        f"token ids outside the vocabulary of {vocabulary}": 0 <= row["tokens"].min()
        and row["tokens"].max() < vocabulary,
        "another number of samples than the table's": len(row["ids"]) == len(starts) == entry["samples"],
        "another number of tokens than the table's": used == entry["tokens"],
        "another number of learned tokens than the table's": int(row["loss_mask"].sum()) == entry["targets"],
    }
    return [said for said, good in checks.items() if not good]
