"""Which row stands where in a run: a pure function of the row table, the seed and the epochs.

In: the table of `index/rows.npy`. Out: row numbers of every position of the run, epoch after epoch.
R: rows of the data set.
"""

import numpy as np

from stratos_jax.shards import order

SHUFFLE, GROUPS, CARRY, HELD_OUT = 10, 11, 12, 13  # streams of `order.keys`
NUDGE = 0.02  # of a row's work, by which its place among the others varies from epoch to epoch
EVEN_ENOUGH, TRIES = 1.08, 256  # largest over mean work of a step


def run_order(
    table: np.ndarray, epochs: float, seed: int, rows_per_step: int, *, balanced: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(row, epoch) of each position; a fractional last epoch is cut short, and no row is seen twice in an epoch."""
    total = round(len(table) * epochs)
    whole = -(-total // max(1, len(table)))
    if balanced:
        rows, epoch_of = _balanced(table["work"], whole, seed, rows_per_step)
    else:
        rows = np.concatenate([_shuffled(table, e, seed) for e in range(whole)] or [np.zeros(0, np.int64)])
        epoch_of = np.repeat(np.arange(whole), len(table))
    return rows[:total], epoch_of[:total]


def epoch_order(table: np.ndarray, epoch: int, seed: int, rows_per_step: int, *, balanced: bool) -> np.ndarray:
    """The rows of one epoch."""
    rows, epoch_of = run_order(table, epoch + 1, seed, rows_per_step, balanced=balanced)
    return rows[epoch_of == epoch]


def held_out(num_rows: int, fraction: float, seed: int) -> np.ndarray:
    """The rows that are kept for evaluation, at least one; the same ones in every epoch."""
    return order.permutation(num_rows, seed, HELD_OUT)[: max(1, round(num_rows * fraction))]


def _shuffled(table: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """All rows, at random within each stage of the curriculum, early stages first."""
    return np.lexsort((order.keys(len(table), seed, SHUFFLE, epoch), table["stage"]))


def _balanced(work_R: np.ndarray, epochs: int, seed: int, rows_per_step: int) -> tuple[np.ndarray, np.ndarray]:
    """Steps of rows of like work, in random order; rows left over by an epoch join the next one's."""
    rows, epoch_of = [], []
    carried = np.zeros((0, 2), np.int64)  # (row, epoch)
    for epoch in range(epochs):
        fresh = np.stack([np.arange(len(work_R)), np.full(len(work_R), epoch)], 1)
        pool = np.concatenate([carried, fresh])
        rest = len(pool) % rows_per_step if epoch + 1 < epochs else 0
        held = order.permutation(len(pool), seed, CARRY, epoch)[:rest]
        carried, pool = pool[held], np.delete(pool, held, axis=0)
        chosen = pool[_groups(work_R[pool[:, 0]], seed, epoch, rows_per_step)]
        rows.append(chosen[:, 0])
        epoch_of.append(chosen[:, 1])
    return np.concatenate(rows), np.concatenate(epoch_of)


def _groups(work_P: np.ndarray, seed: int, epoch: int, size: int) -> np.ndarray:
    """Positions in steps of `size` of like work, the steps in random order; what is left over stands at the end."""
    num = len(work_P) // size
    if not num:
        return np.arange(len(work_P))
    last = order.permutation(len(work_P), seed, CARRY, epoch, 1)[: len(work_P) - num * size]
    nudge_P = order.keys(len(work_P), seed, GROUPS, epoch) / 2.0**64  # other neighbours in each epoch
    ascending = np.argsort(work_P * (1 + NUDGE * nudge_P), kind="stable")
    steps = _like_work(work_P, ascending[~np.isin(ascending, last)], num)
    steps = steps[order.permutation(num, seed, SHUFFLE, epoch)]
    within = np.argsort(order.keys(steps.size, seed, SHUFFLE, epoch, 1).reshape(steps.shape), axis=1)
    return np.concatenate([np.take_along_axis(steps, within, 1).ravel(), last])


def _like_work(work_P: np.ndarray, ascending: np.ndarray, num: int) -> np.ndarray:
    """Cut rows in order of work into `num` steps; where light rows differ too much to share a step, deal them out.

    A step waits for its heaviest row, so one light row among many costs little, in the step that has most to spare.
    """
    size = len(ascending) // num
    lights, best, least = np.zeros(num, np.int64), None, np.inf
    for _ in range(TRIES):
        dealt = lights.sum()
        owner = np.concatenate([np.repeat(np.arange(num), lights), np.repeat(np.arange(num), size - lights)])
        steps = ascending[np.argsort(owner, kind="stable")].reshape(num, size)
        uneven = work_P[steps].max(1) / work_P[steps].mean(1)
        if uneven.max() < least:
            best, least = steps, uneven.max()
        if least <= EVEN_ENOUGH or dealt >= num * size // 4:
            break
        lights[np.argsort(uneven, kind="stable")[: max(1, num // 64)]] += 1
    assert best is not None
    return best
