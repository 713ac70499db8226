"""Orders that are pure functions of whole numbers: the same on every machine, host count and library version.

In: a seed, a stream (what the order is for) and an epoch. Out: permutations.
"""

import numpy as np

GOLDEN = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix64(x: np.ndarray) -> np.ndarray:
    """A bijection of uint64 whose outputs look random (the finalizer of splitmix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def keys(count: int, *numbers: int) -> np.ndarray:
    """`count` distinct uint64 that depend on all `numbers`."""
    start = np.zeros(1, np.uint64)
    for number in numbers:
        start = mix64(start + np.uint64((number * GOLDEN + GOLDEN) & MASK))
    return mix64(start + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(GOLDEN))


def permutation(count: int, *numbers: int) -> np.ndarray:
    """A permutation of range(count), int64."""
    return np.argsort(keys(count, *numbers), kind="stable")
