"""Scores with the error that they have.

In: right or wrong, for each sample of each problem. Out: means with intervals. A problem is what is drawn at random, so
intervals resample problems, and samples within them.
"""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """A share with its interval. `unknown` answers count neither way; the bounds say what they could change."""

    value: float
    low: float
    high: float
    problems: int
    samples: int
    right: int
    wrong: int
    unknown: int


def wilson(right: int, count: int, confidence: float) -> tuple[float, float]:
    """Interval of a share, good for small counts and for shares near 0 or 1."""
    if count == 0:
        return 0.0, 1.0
    z = statistics.NormalDist().inv_cdf(0.5 + confidence / 2)
    share = right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def score(outcomes: Mapping[str, Sequence[str]], confidence: float, bootstrap: int, seed: int) -> Score:
    """The mean over problems of the share of right samples; `outcomes` has each problem's."""
    counts = {
        name: sum(list(values).count(name) for values in outcomes.values()) for name in ("right", "wrong", "unknown")
    }
    shares = _shares(outcomes)
    value = float(np.mean(list(shares.values()))) if shares else 0.0
    if all(len(values) == 1 for values in outcomes.values()):
        low, high = wilson(counts["right"], len(shares), confidence)
    else:
        low, high = _bootstrap([outcomes[name] for name in shares], confidence, bootstrap, seed)
    return Score(
        value=value, low=low, high=high, problems=len(outcomes), samples=sum(map(len, outcomes.values())), **counts
    )


def difference(
    left: Mapping[str, Sequence[str]], right: Mapping[str, Sequence[str]], confidence: float, bootstrap: int, seed: int
) -> tuple[float, float, float]:
    """(left - right, low, high) over the problems that both have, paired."""
    a, b = _shares(left), _shares(right)
    names = sorted(a.keys() & b.keys())
    if not names:
        return 0.0, -1.0, 1.0
    gaps_P = np.array([a[name] - b[name] for name in names])
    rng = np.random.default_rng(seed)
    means_R = gaps_P[rng.integers(0, len(names), (bootstrap, len(names)))].mean(axis=1)
    return float(gaps_P.mean()), *_quantiles(means_R, confidence)


def _shares(outcomes: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Share of right ones among the known ones, for each problem that has any."""
    known = {name: [o for o in values if o != "unknown"] for name, values in outcomes.items()}
    return {name: values.count("right") / len(values) for name, values in known.items() if values}


def _bootstrap(outcomes: Sequence[Sequence[str]], confidence: float, bootstrap: int, seed: int) -> tuple[float, float]:
    """Resample problems, and the samples of each."""
    rng = np.random.default_rng(seed)
    known = [np.array([o == "right" for o in values if o != "unknown"], float) for values in outcomes]
    if not known:
        return 0.0, 1.0
    drawn_PR = np.stack(
        [values[rng.integers(0, len(values), (bootstrap, len(values)))].mean(axis=1) for values in known]
    )
    picked_RP = rng.integers(0, len(known), (bootstrap, len(known)))
    return _quantiles(drawn_PR[picked_RP, np.arange(bootstrap)[:, None]].mean(axis=1), confidence)


def _quantiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    low, high = np.quantile(values, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
