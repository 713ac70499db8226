"""Figures about a built data set: what came in, what was left out, how long samples are, how full rows are.

In: the chunks' counts, the mix and the row table. Out: one JSON object, `statistics.json`, and its lines for people.
"""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stratos_jax.shards import mix, order, pack
from stratos_jax.shards.config import ShardsConfig
from stratos_jax.types import Json

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
BINS = 16  # of the length histogram
STEP_ROWS = 64  # for the imbalance shown where the config does not balance


def collect(
    config: ShardsConfig,
    names: Sequence[str],
    counts: Sequence[Mapping[str, int]],
    origins: Sequence[Mapping[str, int]],
    shares: Sequence[mix.Share],
    lengths: np.ndarray,
    table: np.ndarray,
) -> dict[str, Json]:
    """All figures; `lengths` are those of the drawn samples."""
    sources = {
        name: {**dict(sorted(count.items())), "origins": dict(sorted(origin.items())), **_share(share)}
        for name, count, origin, share in zip(names, counts, origins, shares, strict=True)
    }
    total: collections.Counter[str] = collections.Counter()
    for count in counts:
        total.update(count)
    real, room = int(table["tokens"].sum()), len(table) * config.row_tokens
    return {
        "sources": sources,
        "total": dict(sorted(total.items())),
        "rows": len(table),
        "row_tokens": config.row_tokens,
        "drawn_samples": len(lengths),
        "real_tokens": real,
        "target_tokens": int(table["targets"].sum()),
        "padding_tokens": room - real,
        "real_fraction": real / room if room else 0.0,
        "samples_per_row": len(lengths) / max(1, len(table)),
        "lengths": _lengths(lengths, config.row_tokens),
        "work": _work(table, config),
    }


def _share(share: mix.Share) -> dict[str, Json]:
    return {"usable": share.usable, "offered": share.offered, "drawn": share.drawn, "share": share.share}


def _lengths(lengths: np.ndarray, row_tokens: int) -> dict[str, Json]:
    if not len(lengths):
        return {}
    edges = np.linspace(0, max(row_tokens, int(lengths.max())), BINS + 1)
    marks = np.percentile(lengths, PERCENTILES)
    return {
        "mean": float(lengths.mean()),
        "min": int(lengths.min()),
        "max": int(lengths.max()),
        **{f"p{p}": float(m) for p, m in zip(PERCENTILES, marks, strict=True)},
        "histogram_edges": [int(e) for e in edges],
        "histogram": np.histogram(lengths, edges)[0].tolist(),
    }


def _work(table: np.ndarray, config: ShardsConfig) -> dict[str, Json]:
    """Attention work of rows, and how unevenly a step's rows carry it in the loader's first epoch."""
    from stratos_jax.shards import schedule

    rows_per_step = config.balance_rows or STEP_ROWS
    if not len(table):
        return {}
    work = table["work"].astype(np.float64)
    found: dict[str, Any] = {"mean": work.mean(), "max": work.max(), "rows_per_step": rows_per_step}
    if len(table) >= rows_per_step:
        shuffled = work[order.permutation(len(table), config.seed)]
        chosen = schedule.epoch_order(table, 0, config.seed, rows_per_step, balanced=config.balance_rows is not None)
        found["imbalance_shuffled"] = float(pack.imbalance(shuffled, rows_per_step).mean())
        found["imbalance"] = float(pack.imbalance(work[chosen], rows_per_step).mean())
        found["imbalance_worst"] = float(pack.imbalance(work[chosen], rows_per_step).max())
    return found


def lines(figures: Mapping[str, Any]) -> list[str]:
    """The figures as a person wants to read them."""
    out = [
        f"rows {figures['rows']:,} x {figures['row_tokens']:,} tokens; real tokens {figures['real_tokens']:,} "
        f"({100 * figures['real_fraction']:.2f} %), of which learned {figures['target_tokens']:,}",
        f"samples {figures['drawn_samples']:,} drawn; {figures['samples_per_row']:.2f} a row",
    ]
    for name, source in figures["sources"].items():
        left_out = {k: v for k, v in source.items() if k.startswith(("dropped_", "malformed", "cut_"))}
        note = "; " + ", ".join(f"{k} {v:,}" for k, v in left_out.items()) if left_out else ""
        out.append(
            f"  {name}: {source['rows']:,} rows in, {source['usable']:,} usable, {source['drawn']:,} drawn "
            f"({100 * source['share']:.1f} %){note}"
        )
    out += _histogram(figures["lengths"])
    work = figures["work"]
    if "imbalance" in work:
        out.append(
            f"attention work of a step of {work['rows_per_step']} rows, largest over mean: "
            f"{work['imbalance']:.3f} (worst {work['imbalance_worst']:.3f})"
        )
    return out


def _histogram(lengths: Mapping[str, Any]) -> list[str]:
    if not lengths:
        return []
    head = f"lengths: mean {lengths['mean']:,.0f}, median {lengths['p50']:,.0f}, p95 {lengths['p95']:,.0f}, "
    out = [head + f"max {lengths['max']:,}"]
    most = max(lengths["histogram"])
    for low, count in zip(lengths["histogram_edges"], lengths["histogram"], strict=False):
        bar = "#" * round(40 * count / most) or ("." if count else "")
        out.append(f"  {low:>8,}+ {count:>8,} {bar}")
    return out
