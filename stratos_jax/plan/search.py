"""Tries meshes, remat policies and topologies, and keeps what nothing beats in both time and cost.

In: a `Question`, topologies, limits. Out: estimates, cheapest first, the Pareto front, and a plot.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.plan import calibrate, guess, planner, report
from stratos_jax.plan.estimate import Estimate
from stratos_jax.plan.planner import Question, Say
from stratos_jax.plan.program import Job
from stratos_jax.plan.target import Topology
from stratos_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the answer may cost."""

    usd: float | None = None
    hours: float | None = None

    def allow(self, e: Estimate) -> bool:
        """Whether an estimate is within the limits; an open figure is."""
        over = lambda value, most: value is not None and most is not None and value > most
        return not (over(e.usd, self.usd) or over(e.hours, self.hours))


def search(
    question: Question,
    topologies: list[Topology],
    limits: Limits,
    folder: pathlib.Path,
    say: Say,
    row_tokens: tuple[int, ...] = (),
) -> list[Estimate]:
    """Every combination that fits and is within the limits, cheapest (or else fastest) first.

    Programs that arithmetic says cannot fit are not compiled, and equal ones are compiled once; one at a time, since
    each compilation uses all cores.
    """
    asked = [
        dataclasses.replace(question, topology=topology, ratio=calibrate.ratio_of(topology.chip.name, folder))
        for topology in topologies
    ]
    worth = [(one, remat) for where in asked for one, remat in combinations(where, row_tokens, say)]
    found: dict[tuple, Estimate] = {}
    for index, (one, remat) in enumerate(worth):
        job, name = one.job, one.topology.full_name
        say(f"{index + 1} of {len(worth)}: {name}, mesh {shape(job.mesh)}, rows of {job.row_tokens}, remat {remat}")
        try:
            facts = planner.compiled(job, one.topology, remat, folder=folder, say=say)
        except UserError as error:
            say(f"  left out: {str(error).splitlines()[0]}")
            continue
        if facts.fits:
            e = planner.estimated(one, facts)
            e = dataclasses.replace(e, rows_per_device=job.train.rows_per_device, notes=())
            found[(name, *facts.mesh.values(), remat, job.row_tokens, job.train.rows_per_device)] = e
    kept = [e for e in found.values() if limits.allow(e)]
    return [e for _, e in sorted(zip(points(kept), kept, strict=True), key=lambda row: row[0])]


def combinations(question: Question, row_tokens: tuple[int, ...], say: Say) -> Iterator[tuple[Question, str]]:
    """What is worth a compilation on one topology: row lengths, meshes, micro-batches and policies."""
    limit, seen = planner.HOPELESS * question.topology.chip.hbm_gib, set()
    for length in row_tokens or (question.job.row_tokens,):
        for mesh in meshes(question):
            job = dataclasses.replace(question.job, row_tokens=length, mesh=mesh)
            try:
                sizes, _ = planner.mesh_of(job, question.topology)
            except UserError as error:
                say(f"left out: {str(error).splitlines()[0]}")
                continue
            job = dataclasses.replace(job, mesh=MeshConfig(**sizes))
            rows_then = question.num_rows
            if rows_then is not None and question.packing:  # the same tokens in rows of another length
                rows_then = -(-rows_then * question.job.row_tokens // length)
            for rows in micro_batches(job):
                for remat in remats(job.train.remat):
                    changed = dataclasses.replace(job, train=dataclasses.replace(job.train, rows_per_device=rows))
                    key = (length, *sizes.values(), rows, remat)
                    if key not in seen and planner.guessed_gib(changed, question.topology, remat) <= limit:
                        seen.add(key)
                        yield dataclasses.replace(question, job=changed, num_rows=rows_then), remat


def micro_batches(job: Job) -> tuple[int | None, ...]:
    """As the recipe says; where it leaves it open also twice as many rows at once as the trainer would take."""
    if job.train.rows_per_device is not None:
        return (job.train.rows_per_device,)
    rows = job.train.rows_per_step // (job.mesh.data * job.mesh.fsdp)
    twice = 2 * guess.rows_at_once(job.train, rows, job.row_tokens / job.mesh.context)
    return (None, twice) if rows % twice == 0 else (None,)


def meshes(question: Question) -> Iterator[MeshConfig]:
    """The recipe's mesh where it fixes one; otherwise `auto` and ways to share a row among 2 to 8 devices."""
    mesh, slices = question.job.mesh, question.topology.num_slices
    yield mesh
    if fixed(mesh):
        return
    for ways in (2, 4, 8):
        if question.topology.num_devices // slices > ways:
            yield MeshConfig(data=slices, context=1, tensor=ways)
            yield MeshConfig(data=slices, context=ways, tensor=1)


def remats(wanted: str) -> tuple[str, ...]:
    """The recipe's policy where it fixes one, otherwise all but the slowest."""
    return planner.REMAT_ORDER[:-1] if wanted == "auto" else (wanted,)


def points(found: list[Estimate]) -> list[tuple[float, float]]:
    """(cost, time) of each: dollars and hours, or, where one has no price, chip-seconds and seconds of a token."""
    tokens = lambda e: e.rows_per_step * e.row_tokens
    if priced(found):
        return [(e.usd or 0.0, e.hours or 0.0) for e in found]
    return [(e.step_seconds * e.num_chips / tokens(e), e.step_seconds / tokens(e)) for e in found]


def priced(found: list[Estimate]) -> bool:
    """Whether all have a price."""
    return all(e.usd is not None and e.hours is not None for e in found)


def front(found: list[Estimate]) -> list[Estimate]:
    """Those that no other beats in both time and cost."""
    at = points(found)
    beaten = lambda a: any(b != a and b[0] <= a[0] and b[1] <= a[1] for b in at)
    return [e for e, place in zip(found, at, strict=True) if not beaten(place)]


def paste(e: Estimate) -> str:
    """The winner as words for the command line."""
    axes = " ".join(f"mesh.{axis}={size}" for axis, size in e.mesh.items())
    rows = "" if e.rows_per_device is None else f" train.rows_per_device={e.rows_per_device}"
    slices = "" if e.num_slices == 1 else f" --slices {e.num_slices}"
    return f"--topology {e.topology}{slices} {axes} shards.row_tokens={e.row_tokens} train.remat={e.remat}{rows}"


def show(found: list[Estimate], args: argparse.Namespace) -> int:
    """Print table, front and winner; exit 3 where nothing is left."""
    best = front(found)
    if args.json:
        rows = {"found": [report.to_plain(e) for e in found], "front": [paste(e) for e in best]}
        print(json.dumps(rows))
    elif not found:
        print("nothing fits within these limits")
    else:
        print("\n".join(report.table(found)))
        print("\nnothing beats these in both time and cost:")
        print("\n".join(f"  {paste(e)}" for e in best))
    if args.plot and found:
        plot(found, best, args.plot)
    return 0 if found else 3


def plot(found: list[Estimate], best: list[Estimate], path: str) -> None:
    """Cost against time, the front joined by a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    at = dict(zip(map(id, found), points(found), strict=True))
    for name in dict.fromkeys(e.topology for e in found):
        cost, time = zip(*(at[id(e)] for e in found if e.topology == name), strict=True)
        axes.scatter(time, cost, label=name)
    cost, time = zip(*sorted(at[id(e)] for e in best), strict=True)
    axes.plot(
        time,
        cost,
        "o-",
        color="0.5",
        linewidth=1,
        markersize=11,
        fillstyle="none",
        zorder=0,
        label="nothing beats these",
    )
    axes.set_xlabel("hours" if priced(found) else "seconds per token of the whole slice")
    axes.set_ylabel("US dollars" if priced(found) else "chip-seconds per token")
    axes.set_title("by the compiler's estimates")
    for e in best:
        mesh = "/".join(str(e.mesh[axis]) for axis in ("data", "fsdp", "context", "tensor"))
        spent, took = at[id(e)]
        axes.annotate(f"{mesh} {e.remat}", (took, spent), xytext=(6, 6), textcoords="offset points", fontsize=8)
    axes.set_xlim(0, 1.15 * max(time for _, time in at.values()))
    axes.set_ylim(0, 1.1 * max(cost for cost, _ in at.values()))
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def fixed(mesh: MeshConfig) -> bool:
    """Whether the recipe says something of the mesh's axes."""
    return any((mesh.data, mesh.fsdp, mesh.context, mesh.tensor))


def shape(mesh: MeshConfig) -> str:
    return f"{mesh.data}/{mesh.fsdp}/{mesh.context}/{mesh.tensor}" if fixed(mesh) else "auto"
