"""What a run is: the settings and data that decide its numbers, and nothing of the machine.

In: settings and a folder of shards. Out: plain JSON, kept with checkpoints and manifest; another run is refused by it.
"""

import pathlib
from typing import Any

from stratos_jax import store
from stratos_jax.model.config import ModelConfig
from stratos_jax.train.config import TrainConfig
from stratos_jax.types import Json, Manifest, UserError, raise_all, to_json


def describe(train: TrainConfig, model: ModelConfig, shards_dir: str | pathlib.Path) -> dict[str, Json]:
    """What decides the numbers of a run: settings and data, not the machine."""
    shards = store.manifest.read_manifest(shards_dir)
    if shards is None:
        raise UserError("no data set here", where=shards_dir, do="`stratos shards build CONFIG` makes one")
    config = to_json(train)
    for machine in (
        "remat",
        "rows_per_device",
        "checkpoint",
        "log_every_steps",
        "profile_steps",
        "watchdog_seconds",
        "sinks",
        "sample_every_steps",
        "sample_problems",
        "sample_max_tokens",
    ):
        config.pop(machine)
    return {"train": config, "model": to_json(model), "shards": shards.content_hash()}


def finished(directory: str, task: dict[str, Json]) -> Manifest | None:
    """The manifest of a run that is complete; one of another run is refused."""
    done = store.manifest.read_manifest(directory)
    if done is not None:
        refuse_other_run(done.config, task, directory)
    return done


def refuse_other_run(there: Any, task: dict[str, Json], where: str) -> None:
    """Every setting in which the run in a folder is not this one."""
    left, right = _flatten(there), _flatten(task)
    names = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
    problems = [f"{name}: there {left.get(name)!r}, now {right.get(name)!r}" for name in names]
    raise_all(problems, what="the folder holds another run", where=where, do="choose another folder")


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {path: value}
    return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{path}.{name}".lstrip(".")).items()}
