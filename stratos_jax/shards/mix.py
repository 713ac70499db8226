"""How often each sample is drawn: sources' weights, epochs, caps and temperature become whole numbers of copies.

In: how many usable samples each source has. Out: draws, as (sample, copy) pairs, and what was decided per source.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from stratos_jax.shards import order
from stratos_jax.shards.config import ShardsConfig

CAP, DRAW = 1, 2  # streams of `order.permutation`


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """What one source gives to the mix."""

    usable: int  # samples that were tokenized and kept
    offered: int  # after max_samples and epochs
    drawn: int
    share: float  # of all draws


def shares(usable: Sequence[int], config: ShardsConfig) -> list[Share]:
    """The largest mix with the wanted proportions in which no source gives more than it offers."""
    capped = [
        n if s.max_samples is None else min(n, s.max_samples) for n, s in zip(usable, config.sources, strict=True)
    ]
    offered = [round(n * s.epochs) for n, s in zip(capped, config.sources, strict=True)]
    wanted = [
        s.weight * o ** (1 / config.temperature) if o else 0.0 for o, s in zip(offered, config.sources, strict=True)
    ]
    scale = min((o / w for o, w in zip(offered, wanted, strict=True) if w), default=0.0)
    drawn = [min(o, round(w * scale)) for o, w in zip(offered, wanted, strict=True)]
    total = max(1, sum(drawn))
    return [Share(n, o, d, d / total) for n, o, d in zip(usable, offered, drawn, strict=True)]


def draws(usable: int, drawn: int, index: int, config: ShardsConfig) -> tuple[np.ndarray, np.ndarray]:
    """(sample of the source, number of the copy) for each draw of source `index`."""
    cap = config.sources[index].max_samples
    pool = order.permutation(usable, config.seed, CAP, index)[:cap]
    pool.sort()
    if not len(pool) or not drawn:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    rounds, rest = divmod(drawn, len(pool))
    last = np.sort(pool[order.permutation(len(pool), config.seed, DRAW, index)[:rest]])
    samples = np.concatenate([np.tile(pool, rounds), last])
    copies = np.concatenate([np.repeat(np.arange(rounds), len(pool)), np.full(rest, rounds)])
    return samples, copies
