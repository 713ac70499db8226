"""Tries meshes, remat policies and topologies, and keeps what nothing beats in both time and cost.

In: a `Question`, topologies, limits. Out: estimates, cheapest first, the Pareto front, and a plot.
"""

import argparse
import dataclasses
import json
import pathlib
from collections.abc import Iterator

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.plan import cache, planner, report
from stratos_jax.plan.estimate import Estimate
from stratos_jax.plan.planner import Question, Say
from stratos_jax.plan.program import compile_train
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
    question: Question, topologies: list[Topology], limits: Limits, folder: pathlib.Path, say: Say
) -> list[Estimate]:
    """Every combination that fits and is within the limits, cheapest (or else fastest) first."""
    found: dict[tuple, Estimate] = {}
    for topology in topologies:
        asked = dataclasses.replace(question, topology=topology)
        for mesh in meshes(asked):
            job = dataclasses.replace(asked.job, mesh=mesh)
            for remat in remats(job.train.remat):
                say(f"{topology.full_name}, mesh {_shape(mesh)}, remat {remat}")
                try:
                    facts = cache.facts(job, topology, remat, folder, lambda: compile_train(job, topology, remat)[0])  # noqa: B023
                except UserError as error:
                    say(f"  left out: {str(error).splitlines()[0]}")
                    break
                if facts.fits:
                    one = planner.estimated(dataclasses.replace(asked, job=job), facts)
                    found[(topology.full_name, *facts.mesh.values(), remat)] = one
    kept = [e for e in found.values() if limits.allow(e)]
    return sorted(kept, key=lambda e: (e.usd if e.usd is not None else e.step_seconds * e.num_chips, e.step_seconds))


def meshes(question: Question) -> Iterator[MeshConfig]:
    """The recipe's mesh where it fixes one; otherwise `auto` and ways to share a row among 2 to 8 devices."""
    mesh = question.job.mesh
    yield mesh
    if any(dataclasses.astuple(mesh)):
        return
    for ways in (2, 4, 8):
        if question.topology.num_devices % ways == 0 and question.topology.num_devices > ways:
            rest = question.topology.num_devices // ways // question.topology.num_slices
            if question.job.train.rows_per_step % (rest * question.topology.num_slices) == 0:
                slices = question.topology.num_slices
                yield MeshConfig(data=slices, fsdp=rest, context=1, tensor=ways)
                yield MeshConfig(data=slices, fsdp=rest, context=ways, tensor=1)


def remats(wanted: str) -> tuple[str, ...]:
    """The recipe's policy where it fixes one, otherwise all but the slowest."""
    return planner.REMAT_ORDER[:-1] if wanted == "auto" else (wanted,)


def front(found: list[Estimate]) -> list[Estimate]:
    """Those that no other beats in both time and cost."""
    point = lambda e: (e.usd if e.usd is not None else e.step_seconds * e.num_chips, e.step_seconds)
    beats = lambda a, b: a != b and a[0] <= b[0] and a[1] <= b[1]
    return [e for e in found if not any(beats(point(other), point(e)) for other in found)]


def paste(e: Estimate) -> str:
    """The winner as words for the command line."""
    axes = " ".join(f"mesh.{axis}={size}" for axis, size in e.mesh.items())
    return f"--topology {e.topology} {axes} train.remat={e.remat}"


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

    priced = all(e.usd is not None for e in found)
    point = lambda e: (e.hours, e.usd) if priced else (e.step_seconds, e.step_seconds * e.num_chips)
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for name in dict.fromkeys(e.topology for e in found):
        axes.scatter(*zip(*(point(e) for e in found if e.topology == name)), label=name)
    line = sorted(point(e) for e in best)
    axes.plot(*zip(*line), color="0.5", linewidth=1, zorder=0, label="nothing beats these")
    axes.set_xlabel("hours" if priced else "seconds per step")
    axes.set_ylabel("US dollars" if priced else "chip-seconds per step")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _shape(mesh: MeshConfig) -> str:
    return "/".join(str(size) for size in dataclasses.astuple(mesh)) if any(dataclasses.astuple(mesh)) else "auto"
