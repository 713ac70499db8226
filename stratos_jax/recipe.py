"""One experiment, all stages: a `Recipe` has one field per stage, each read by that stage alone.

In: the settings of each room. Out: the noun that `configs/*.py` return and that verbs take apart.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

from stratos_jax import config as configs
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.curate.config import CurateConfig
from stratos_jax.engine.config import EngineConfig
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.launch.config import LaunchConfig
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model.config import ModelConfig
from stratos_jax.shards.config import ShardsConfig
from stratos_jax.train.config import TrainConfig
from stratos_jax.types import UserError, raise_all


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Arm:
    """A variation of a recipe, run beside the others and compared with them."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """Everything that decides what comes out of a run."""

    name: str
    curate: CurateConfig | None = None  # None: the shards' sources exist already
    shards: ShardsConfig
    model: ModelConfig
    mesh: MeshConfig = MeshConfig()
    train: TrainConfig
    convert: ConvertConfig = ConvertConfig()
    engine: EngineConfig = EngineConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    launch: LaunchConfig = LaunchConfig()
    arms: tuple[Arm, ...] = ()

    def arm(self, name: str) -> "Recipe":
        """The recipe as one of its arms runs it."""
        chosen = next((arm for arm in self.arms if arm.name == name), None)
        if chosen is None:
            raise UserError(f"no arm {name!r}", where=self.name, wanted=", ".join(a.name for a in self.arms) or "none")
        return configs.override(dataclasses.replace(self, arms=()), chosen.overrides)


def load(path: str | pathlib.Path, overrides: Sequence[str] = ()) -> tuple[Recipe, list[configs.Value]]:
    """Load a config file, apply overrides, check it, and say where each value came from."""
    loaded = configs.load(path)
    if not isinstance(loaded, Recipe):
        raise UserError("recipe() returns no Recipe", where=path, got=type(loaded).__name__)
    recipe, values = configs.resolve(loaded, overrides)
    raise_all(check(recipe), what="this recipe cannot run", where=path)
    for arm in recipe.arms:
        recipe.arm(arm.name)  # an arm with a mistyped override fails now, not hours later
    return recipe, values


def check(recipe: Recipe) -> list[str]:
    """What is wrong between the stages of a recipe; each stage checks its own settings besides."""
    train, shards, problems = recipe.train, recipe.shards, []
    positive = {
        "train.rows_per_step": train.rows_per_step,
        "train.epochs": train.epochs,
        "train.optimizer.peak_lr": train.optimizer.peak_lr,
        "shards.row_tokens": shards.row_tokens,
    }
    problems += [f"{name}: got {value}, wanted more than 0" for name, value in positive.items() if value <= 0]
    if train.optimizer.peak_lr > 1.0:
        problems.append(f"train.optimizer.peak_lr: got {train.optimizer.peak_lr}, wanted at most 1; 1e-5 is usual")
    if not 0 <= train.optimizer.warmup_ratio <= 1:
        problems.append(f"train.optimizer.warmup_ratio: got {train.optimizer.warmup_ratio}, wanted 0 to 1")
    if any(source.path == "curate" for source in shards.sources) and recipe.curate is None:
        problems.append("shards.sources: names the stage `curate`, but the recipe has none (curate is None)")
    if len({arm.name for arm in recipe.arms}) != len(recipe.arms):
        problems.append("arms: two arms have the same name")
    return problems
