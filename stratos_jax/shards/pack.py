"""Which samples share a row: best-fit decreasing over whole samples, a pure function of (lengths, groups, seed).

In: the length of each item. Out: a `Plan`. Items of different groups (stages of the curriculum, copies of the same
sample) never share a row; rows stand in random order within a stage, so that reading the files from the start is fair.
"""

import dataclasses
from typing import Any

import numpy as np

from stratos_jax.shards import order

TIES, ROWS = 3, 4  # streams of `order.keys`

TABLE = np.dtype(
    [
        ("tokens", "<i4"),  # real ones
        ("targets", "<i4"),  # tokens that the loss counts
        ("samples", "<i4"),
        ("scored", "<i4"),  # samples with at least one target
        ("work", "<i8"),  # of attention: sum of squared lengths
        ("stage", "<i4"),  # of the curriculum
    ]
)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Rows as slices of one list: row r holds items[starts[r]:starts[r + 1]]."""

    items: np.ndarray
    starts: np.ndarray
    stages: np.ndarray  # of each row

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, index: int) -> np.ndarray:
        """The items of a row, in order."""
        return self.items[self.starts[index] : self.starts[index + 1]]


def best_fit(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Pack items, in the order given, each into the fullest row that still takes it.

    The rows are kept by the room they have left; bit b of `rooms` says that some row has b tokens left, so that the
    fullest row that fits is the lowest bit at or above the item's length: no search, O(capacity / 64) per item.
    """
    rows: list[list[int]] = []
    with_room: list[list[int]] = [[] for _ in range(capacity + 1)]
    rooms = 0
    for item, length in enumerate(lengths.tolist()):
        fitting = rooms >> length
        if fitting:
            room = (fitting & -fitting).bit_length() - 1 + length
            row = with_room[room].pop()
            if not with_room[room]:
                rooms ^= 1 << room
            rows[row].append(item)
        else:
            room, row = capacity, len(rows)
            rows.append([item])
        if room > length:
            with_room[room - length].append(row)
            rooms |= 1 << (room - length)
    return rows


def plan(
    lengths: np.ndarray, capacity: int, *, seed: int, packed: bool, stages: np.ndarray, copies: np.ndarray
) -> Plan:
    """Pack each (stage, copy) group by itself and shuffle the rows of each stage."""
    if len(lengths) and int(lengths.max()) > capacity:
        raise AssertionError(f"an item of {lengths.max()} tokens in rows of {capacity}")
    ties = order.keys(len(lengths), seed, TIES)
    rows: list[np.ndarray] = []
    row_stages: list[int] = []
    for stage, copy in sorted(set(zip(stages.tolist(), copies.tolist(), strict=True))):
        members = np.flatnonzero((stages == stage) & (copies == copy))
        members = members[np.lexsort((ties[members], -lengths[members]))]
        bins = best_fit(lengths[members], capacity) if packed else [[i] for i in range(len(members))]
        rows += [members[b] for b in bins]
        row_stages += [stage] * len(bins)
    stage_R = np.array(row_stages, np.int32)
    shuffled = np.lexsort((order.keys(len(rows), seed, ROWS), stage_R))
    rows = [rows[r] for r in shuffled]
    starts = np.concatenate([[0], np.cumsum([len(r) for r in rows])]).astype(np.int64)
    return Plan(np.concatenate(rows) if rows else np.zeros(0, np.int64), starts, stage_R[shuffled])


def stages_by_length(lengths: np.ndarray, num_stages: int) -> np.ndarray:
    """Split items into `num_stages` groups of about the same number of tokens, short ones first."""
    stage_N = np.zeros(len(lengths), np.int32)
    ascending = np.argsort(lengths, kind="stable")
    total = np.cumsum(lengths[ascending])
    if len(total):
        stage_N[ascending] = np.minimum((total - 1) * num_stages // total[-1], num_stages - 1)
    return stage_N


def table(chosen: Plan, lengths: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """What is known of each row without reading it."""
    rows = np.zeros(len(chosen), TABLE)
    if len(chosen):
        at, begins = chosen.items, chosen.starts[:-1]
        per_item: dict[str, Any] = {
            "tokens": lengths[at],
            "targets": targets[at],
            "scored": targets[at] > 0,
            "work": lengths[at].astype(np.int64) ** 2,
        }
        for name, values in per_item.items():
            rows[name] = np.add.reduceat(values.astype(np.int64), begins)
        rows["samples"] = np.diff(chosen.starts)
        rows["stage"] = chosen.stages
    return rows


def imbalance(work_R: np.ndarray, rows_per_step: int) -> np.ndarray:
    """Largest over mean attention work of each whole step, for rows in the order given."""
    steps = len(work_R) // rows_per_step
    work_SR = work_R[: steps * rows_per_step].reshape(steps, rows_per_step)
    return work_SR.max(1) / np.maximum(work_SR.mean(1), 1)
