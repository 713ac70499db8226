"""What real runs taught of the estimate: the ratio of measured to estimated step time, kept per kind of chip.

In: an `Estimate` and a run's folder with `metrics.jsonl`. Out: the ratio, stored beside the cached plans.
"""

import dataclasses
import json
import pathlib
import statistics

from stratos_jax import store
from stratos_jax.plan.estimate import PUBLISHED, Estimate, Ratio
from stratos_jax.plan.planner import Refusal
from stratos_jax.types import UserError

FILE = "calibration.json"
WARM_UP = 2  # steps at the start that also compile


def ratio_of(chip: str, folder: pathlib.Path) -> Ratio:
    """The stored ratio of a kind of chip, or the published one."""
    path = folder / FILE
    stored = json.loads(path.read_text()) if path.exists() else {}
    return Ratio(**stored[chip]) if chip in stored else PUBLISHED


def compare(result: Estimate | Refusal, run: str, chip: str, folder: pathlib.Path) -> Estimate:
    """Compare with a run's step times, store the ratio, and return the estimate scaled by it."""
    if not isinstance(result, Estimate):
        raise UserError("a run that does not fit cannot be compared with one that ran", where=run)
    seconds = step_seconds(run)
    typical = statistics.median(seconds)
    spread = statistics.pstdev(seconds) / typical
    bare = sum(result.step_seconds_parts.values())
    source = f"{len(seconds)} steps of {pathlib.Path(run).name}: {typical:.3f} s against {bare:.3f} s"
    ratio = Ratio(value=typical / bare, error=max(0.02, spread), source=source)
    path = folder / FILE
    stored = json.loads(path.read_text()) if path.exists() else {}
    folder.mkdir(parents=True, exist_ok=True)
    store.write_text(path, json.dumps({**stored, chip: dataclasses.asdict(ratio)}, indent=1))
    scale = ratio.value / result.ratio.value
    return dataclasses.replace(
        result,
        ratio=ratio,
        step_seconds=typical,
        tokens_per_second_per_chip=result.tokens_per_second_per_chip / scale,
        mfu=result.mfu / scale,
        hours=None if result.hours is None else result.hours * scale,
        usd=None if result.usd is None else result.usd * scale,
    )


def step_seconds(run: str) -> list[float]:
    """Step times of a run, those of the first steps left out."""
    path = store.join(run, "metrics.jsonl")
    rows = [row for _, row in store.jsonl.read_jsonl(path)]
    seconds = [row["step_seconds"] for row in rows if row.get("step_seconds")][WARM_UP:]
    if not seconds:
        raise UserError("the run has no timed steps", where=path, wanted=f"more than {WARM_UP} rows with step_seconds")
    return seconds
