"""Memory by arithmetic against what the compiler said of the same programs."""

import json
import pathlib

import pytest

from stratos_jax import recipe as recipes
from stratos_jax.model.config import architecture_of
from stratos_jax.plan import guess, planner, target
from stratos_jax.plan.program import Job

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = [json.loads(path.read_text()) for path in sorted((ROOT / "tests/golden/plan").glob("*.json"))]


@pytest.mark.parametrize("plan", [p for p in GOLDEN if p["fits"]], ids=lambda p: f"{p['config']}-{p['row_tokens']}")
def test_the_guess_is_near_the_compiler(plan):
    r, _ = recipes.load(ROOT / "configs" / f"{plan['config']}.py")
    size = guess.peak_gib(
        architecture_of(r.model), r.train, r.model.param_dtype, plan["row_tokens"], plan["mesh"], plan["remat"]
    )
    assert size == pytest.approx(plan["hbm_peak_gib"], rel=0.25)


def job(**train) -> Job:
    r, _ = recipes.load(ROOT / "configs/stratos_32b.py", [f"train.{name}={value}" for name, value in train.items()])
    return Job(model=r.model, mesh=r.mesh, train=r.train, row_tokens=r.shards.row_tokens)


def test_changes_that_should_fit_begin_with_the_fewest_chips():
    words = [w for w, _, _ in planner.likely(job(), target.parse("v6e:4x4"), 31.25)]
    chips = [
        32 if "4x8" in w else 64 if "8x8" in w else 16 for w in words if "moments" not in w and "row_tokens" not in w
    ]
    assert words and chips == sorted(chips)
    assert all("train.remat=" in w for w in words)  # `auto` on the chips could be another policy


def test_a_policy_that_the_recipe_fixes_is_only_exchanged_for_one_that_keeps_less():
    words = [w for w, _, _ in planner.candidates(job(remat="full"), target.parse("v6e:4x4"))]
    assert not any("train.remat=context" in w or "train.remat=full" in w for w in words)


def test_equal_programs_are_one():
    topology = target.parse("v5p:4x4x4")
    sky, _ = recipes.load(ROOT / "configs/sky_t1_32b.py")
    other = Job(model=sky.model, mesh=sky.mesh, train=sky.train, row_tokens=sky.shards.row_tokens)
    assert planner.canonical(other, topology, "dots") == planner.canonical(job(epochs=1.0), topology, "dots")
    assert planner.canonical(job(rows_per_step=64), topology, "dots") != planner.canonical(job(), topology, "dots")


def test_more_chips_come_with_the_policy_that_the_recipe_fixes():
    words = [w for w, _, _ in planner.candidates(job(remat="full"), target.parse("v6e:4x4"))]
    assert "--topology v6e:4x8" in words
    assert words.index("--topology v6e:4x8") < words.index("--topology v6e:4x8 train.remat=offload")
