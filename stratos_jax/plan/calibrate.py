"""What real runs taught of the estimate: the ratio of measured to estimated time and memory, kept per kind of chip.

In: a plan and a run's folder with `metrics.jsonl`. Out: the ratio, stored beside the cached plans.
"""

import dataclasses
import json
import pathlib
import statistics
from typing import Any

from stratos_jax import store
from stratos_jax.plan.estimate import PUBLISHED, Ratio
from stratos_jax.types import UserError

FILE = "calibration.json"
WARM_UP = 2  # timed steps at the start that are left out


def ratio_of(chip: str, folder: pathlib.Path, otherwise: Ratio = PUBLISHED) -> Ratio:
    """The stored ratio of a kind of chip, or another one."""
    stored = _stored(folder)
    return Ratio(**stored[chip]) if chip in stored else otherwise


def compare(result: Any, run: str, chip: str, folder: pathlib.Path) -> Any:
    """Compare a plan with a run, store the ratio, and return the plan scaled by it."""
    if not result.fits:
        raise UserError("a plan that does not fit cannot be compared with a run", where=run)
    _check_recipe(result, run)
    seconds, memory = measured(run)
    typical, bare = statistics.median(seconds), sum(result.step_seconds_parts.values())
    ratio = Ratio(
        value=typical / bare,
        error=max(0.02, statistics.pstdev(seconds) / typical),
        source=f"{len(seconds)} steps of {pathlib.Path(run).name}: {typical:.4g} s against {bare:.4g} s",
        memory=None if memory is None else memory / result.hbm_peak_gib,
    )
    folder.mkdir(parents=True, exist_ok=True)
    store.write_text(folder / FILE, json.dumps({**_stored(folder), chip: dataclasses.asdict(ratio)}, indent=1))
    scale = typical / result.step_seconds
    return dataclasses.replace(
        result,
        ratio=ratio,
        step_seconds=typical,
        tokens_per_second_per_chip=result.tokens_per_second_per_chip / scale,
        mfu=result.mfu / scale,
        hours=None if result.hours is None else result.hours * scale,
        usd=None if result.usd is None else result.usd * scale,
    )


def measured(run: str) -> tuple[list[float], float | None]:
    """Step times of a run, those of the first steps left out, and the most memory in use, in GiB."""
    path = store.join(run, "metrics.jsonl")
    if not store.exists(path):
        raise UserError("the run has no metrics", where=path, do="name the folder that `stratos train` wrote")
    rows = [row for _, row in store.jsonl.read_jsonl(path)]
    seconds = [row["seconds"] for row in rows if row.get("seconds")][WARM_UP:]
    if not seconds:
        raise UserError("the run has no timed steps", where=path, wanted=f"more than {WARM_UP + 2} steps")
    return seconds, max((row["memory_gib"] for row in rows if row.get("memory_gib")), default=None)


def _check_recipe(result: Any, run: str) -> None:
    """Refuse a run of another shape, where it says what it was."""
    path = store.join(run, "recipe.json")
    if not store.exists(path):
        return
    recipe = json.loads(store.read_text(path))
    ran = (recipe["train"]["rows_per_step"], recipe["shards"]["row_tokens"])
    planned = (result.rows_per_step, result.row_tokens)
    if ran != planned:
        words = "{} rows of {} tokens".format
        do = "plan with the run's own settings"
        raise UserError("the run is of another step", where=run, got=words(*ran), wanted=words(*planned), do=do)


def _stored(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / FILE
    return json.loads(path.read_text()) if path.exists() else {}
