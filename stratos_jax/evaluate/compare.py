"""Runs side by side: what `report.json` of a whole recipe says.

In: the evaluate and train folders of each arm. Out: accuracy of each arm with its interval and counts, differences, and
how each was trained. The same files give the same report: no clock, no machine in it.
"""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from stratos_jax import store
from stratos_jax.evaluate import stage, statistics
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.types import Json, Manifest, to_json

METRICS = "metrics.jsonl"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """One arm, as far as a report needs it."""

    name: str
    report: Mapping[str, Any]  # of the stage evaluate
    folder: pathlib.Path  # of the stage evaluate
    losses: tuple[tuple[int, float], ...]  # (step, loss)
    training: Mapping[str, Json]  # counts of the stage train
    parameters: int
    examples: int  # different samples that its shards hold
    recipe: Mapping[str, Json]


def read_run(name: str, folder: pathlib.Path, recipe: Any) -> Run:
    """Read what an arm left in `evaluate/`, `train/` and `shards/` of its folder."""
    from stratos_jax.model.config import architecture_of
    from stratos_jax.model.params import num_params

    evaluate, train = folder / "evaluate", folder / "train"
    trained, sharded = store.manifest.read_manifest(train), store.manifest.read_manifest(folder / "shards")
    return Run(
        name=name,
        report=json.loads(store.read_text(evaluate / stage.REPORT)),
        folder=evaluate,
        losses=read_losses(train / METRICS),
        training=dict(trained.counts) if trained is not None else {},
        parameters=num_params(architecture_of(recipe.model)),
        examples=int(sharded.counts["samples"]) if sharded is not None else 0,
        recipe=to_json(recipe),
    )


def read_losses(path: str | os.PathLike[str]) -> tuple[tuple[int, float], ...]:
    """(step, loss) of every step, the last record of each."""
    if not store.exists(path):
        return ()
    losses = {r["step"]: r["loss"] for _, r in store.jsonl.read_jsonl(path) if "loss" in r and r["loss"] is not None}
    return tuple(sorted(losses.items()))


def make_report(name: str, runs: Sequence[Run], config: EvaluateConfig, curated: Manifest | None) -> dict[str, Any]:
    """All that the page shows, as figures."""
    task = config.tasks[0].name
    scores = {run.name: run.report["tasks"][task]["score"] for run in runs}
    return {
        "name": name,
        "task": task,
        "confidence": config.confidence,
        "accuracy": {arm: score["value"] for arm, score in scores.items()},
        "intervals": {arm: [score["low"], score["high"]] for arm, score in scores.items()},
        "counts": {arm: {k: score[k] for k in COUNTS} for arm, score in scores.items()},
        "differences": _differences(runs, task, config),
        "tasks": {run.name: run.report["tasks"] for run in runs},
        "training": {run.name: _training(run) for run in runs},
        "curation": dict(curated.counts) if curated is not None else None,
    }


COUNTS = ("problems", "samples", "right", "wrong", "unknown")


def _differences(runs: Sequence[Run], task: str, config: EvaluateConfig) -> dict[str, Any]:
    outcomes = {run.name: stage.outcomes_of(run.folder, task) for run in runs}
    found = {}
    for left, right in itertools.combinations(outcomes, 2):
        gap = statistics.difference(outcomes[left], outcomes[right], config.confidence, config.bootstrap, config.seed)
        found[f"{left} - {right}"] = dict(zip(("value", "low", "high"), gap, strict=True))
    return found


def _training(run: Run) -> dict[str, Json]:
    last = [loss for _, loss in run.losses[-20:]]
    return {
        "steps": len(run.losses),
        "first_loss": run.losses[0][1] if run.losses else None,
        "last_loss": sum(last) / len(last) if last else None,
        "parameters": run.parameters,
        "examples": run.examples,
    }
