"""Intervals against known values and against simulation."""

import numpy as np
import pytest

from stratos_jax.evaluate import statistics


def outcomes(*groups):
    return {f"p{i}": ["right"] * r + ["wrong"] * w + ["unknown"] * u for i, (r, w, u) in enumerate(groups)}


@pytest.mark.parametrize(
    "right, count, low, high",  # from the formula's original paper and common tables, to four digits
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (19, 30, 0.4551, 0.7813), (1, 29, 0.0061, 0.1718)],
)
def test_wilson(right, count, low, high):
    got = statistics.wilson(right, count, 0.95)
    assert got == pytest.approx((low, high), abs=1e-4)


def test_unknown_counts_neither_way():
    score = statistics.score(outcomes((1, 0, 0), (0, 1, 0), (0, 0, 1)), 0.95, 200, 0)
    assert score.value == 0.5 and (score.right, score.wrong, score.unknown) == (1, 1, 1)


def test_the_interval_of_many_samples_covers_the_truth():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(60):
        chance_P = rng.beta(2, 2, 40)
        drawn = {str(i): ["right" if x else "wrong" for x in rng.random(8) < p] for i, p in enumerate(chance_P)}
        score = statistics.score(drawn, 0.95, 400, trial)
        covered += score.low <= 0.5 <= score.high
    assert 50 <= covered <= 60


def test_a_paired_difference_is_sharper_than_two_intervals():
    base = outcomes(*[(1, 0, 0)] * 20 + [(0, 1, 0)] * 20)
    better = outcomes(*[(1, 0, 0)] * 28 + [(0, 1, 0)] * 12)
    value, low, high = statistics.difference(better, base, 0.95, 2000, 0)
    assert value == pytest.approx(0.2) and 0.05 < low < 0.2 < high < 0.35
    assert statistics.score(base, 0.95, 100, 0).high > statistics.score(better, 0.95, 100, 0).low
