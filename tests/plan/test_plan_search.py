"""`stratos plan --search`: what is tried, what is left, and the picture of it."""

import dataclasses
import json

import pytest
from plan_small import recipe

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.plan import planner, report, search, target
from stratos_jax.plan.program import Facts, Job

MESH = MeshConfig()
PNG = b"\x89PNG\r\n\x1a\n"


def question(mesh=MESH, topology="v5e:2x4", **train):
    r = recipe()
    job = Job(model=r.model, mesh=mesh, train=dataclasses.replace(r.train, **train), row_tokens=1024)
    return planner.Question(job=job, topology=target.parse(topology), num_rows=800)


def tried(*args, **kwargs):
    return [
        (tuple(dataclasses.astuple(q.job.mesh)[:4]), q.job, remat) for q, remat in search.combinations(*args, **kwargs)
    ]


def test_an_open_mesh_is_searched_and_nothing_twice():
    found = tried(question(), (), print)
    meshes = {mesh for mesh, _, _ in found}
    assert (1, 8, 1, 1) in meshes and (1, 4, 1, 2) in meshes and (1, 4, 2, 1) in meshes
    assert len(found) == len({(mesh, job.train.rows_per_device, remat) for mesh, job, remat in found})
    assert {remat for _, _, remat in found} == {"full"}  # the recipe fixes it


def test_a_mesh_that_the_recipe_fixes_is_the_only_one():
    found = tried(question(MeshConfig(tensor=2)), (), print)
    assert {mesh for mesh, _, _ in found} == {(1, 4, 1, 2)}


def test_open_policies_micro_batches_and_row_lengths():
    found = tried(question(remat="auto", rows_per_step=64), (1024, 2048), print)
    assert {remat for _, _, remat in found} >= {"dots", "context", "full"}
    assert {job.row_tokens for _, job, _ in found} == {1024, 2048}
    packed = dataclasses.replace(question(), packing=True)
    assert {q.num_rows for q, _ in search.combinations(packed, (1024, 2048), print)} == {800, 400}
    many = dataclasses.replace(question(rows_per_step=1024))
    assert {job.train.rows_per_device for _, job, _ in tried(many, (), print)} >= {None, 32}


def test_what_cannot_fit_is_not_compiled():
    hf = {**recipe().model.hf, "hidden_size": 8192, "intermediate_size": 32_768, "num_hidden_layers": 64}
    huge = question()
    model = dataclasses.replace(huge.job.model, hf=hf)
    assert not tried(dataclasses.replace(huge, job=dataclasses.replace(huge.job, model=model)), (), print)


@pytest.mark.tpu_compiler
def test_search_prints_a_front_that_can_be_pasted_and_draws_it(asked, tmp_path):
    picture = tmp_path / "plot.png"
    words = ("--search", "--topologies", "v5e:2x2,v5e:2x4", "--rows", "800", "mesh.context=1", "--json")
    done = asked(*words, "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    costs = [e["usd"] for e in answer["found"]]
    assert len(costs) >= 2 and costs == sorted(costs)
    assert {e["topology"] for e in answer["found"]} == {"v5e:2x2", "v5e:2x4"}
    fastest = min(answer["found"], key=lambda e: e["hours"])
    assert len(answer["front"]) >= 1 and picture.read_bytes().startswith(PNG)
    pasted = asked(*answer["front"][0].split(), "--rows", "800", "--json")
    assert json.loads(pasted.stdout)["usd"] == pytest.approx(costs[0])
    within = asked(*words[:-2], "mesh.context=1", "--deadline-hours", str(fastest["hours"] * 1.0001))
    assert within.returncode == 0 and "nothing beats these" in within.stdout
    nothing = asked(*words[:-1], "--budget-usd", "1e-9")
    assert nothing.returncode == 3 and "nothing fits within these limits" in nothing.stdout


def estimate(topology="v5e:2x4", cycles=1_000_000_000, **changes):
    asked = question(topology=topology)
    mesh = {"data": 1, "fsdp": 8, "context": 1, "tensor": 1}
    facts = Facts(fits=True, remat="full", mesh=mesh, mesh_reason="", cycles_by_kind={"matmul": cycles})
    return dataclasses.replace(planner.estimated(asked, facts), **changes)


def test_the_front_is_what_nothing_beats():
    cheap, fast = estimate(usd=10.0, hours=4.0), estimate(usd=40.0, hours=1.0)
    beaten, equal = estimate(usd=41.0, hours=1.5), estimate(usd=10.0, hours=4.0, remat="dots")
    assert search.front([cheap, beaten, fast, equal]) == [cheap, fast, equal]
    assert search.front([]) == []


def test_limits():
    limits = search.Limits(usd=20.0, hours=2.0)
    assert limits.allow(estimate(usd=20.0, hours=2.0)) and limits.allow(estimate(usd=None, hours=None))
    assert not limits.allow(estimate(usd=21.0, hours=1.0)) and not limits.allow(estimate(usd=1.0, hours=2.1))


def test_a_chip_without_a_price_gets_none():
    plan = estimate("tpu7x:2x2x1")
    assert plan.usd is None and plan.hours and plan.num_chips == 4
    assert any("no price listed" in line for line in report.lines(plan))
    mixed = [plan, estimate("v5e:2x4")]
    assert not search.priced(mixed) and len(search.front(mixed)) >= 1  # compared by chip-seconds of a token


def test_what_is_pasted_is_the_whole_choice():
    words = search.paste(estimate(rows_per_device=2, num_slices=2))
    assert words == (
        "--topology v5e:2x4 --slices 2 mesh.data=1 mesh.fsdp=8 mesh.context=1 mesh.tensor=1 "
        "shards.row_tokens=1024 train.remat=full train.rows_per_device=2"
    )


def test_a_plot_of_one_point_and_of_many(tmp_path):
    many = [estimate("v5e:2x4"), estimate("v6e:2x4"), estimate("v6e:4x4")]
    for number, found in enumerate((many[:1], many)):
        search.plot(found, search.front(found), str(tmp_path / f"{number}.png"))
        assert (tmp_path / f"{number}.png").read_bytes().startswith(PNG)
