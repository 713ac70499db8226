"""Plans one run on one topology: picks what is left to `auto`, compiles, estimates, and says what would fit instead.

In: a `Question`. Out: an `Estimate`, or a `Refusal` with changes that were tried and found to fit.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping

from stratos_jax.model import flops
from stratos_jax.model.config import architecture_of
from stratos_jax.plan import cache
from stratos_jax.plan.estimate import PUBLISHED, Estimate, Ratio, estimate
from stratos_jax.plan.program import Facts, Job, compile_train
from stratos_jax.plan.target import Topology

# From the most memory and least work to the least memory: `auto` takes the first that fits.
REMAT_ORDER = ("dots", "context_qkv", "context", "full", "offload")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked of the planner."""

    job: Job
    topology: Topology
    num_rows: int | None = None  # of the shards; None: hours and dollars stay open
    usd_per_chip_hour: float | None = None
    ratio: Ratio = PUBLISHED


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """A change under which the run fits, tried with the compiler."""

    change: str  # words to paste
    hbm_peak_gib: float
    topology: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Why a run does not fit, and what would."""

    fits: bool
    topology: str
    num_chips: int
    mesh: Mapping[str, int]
    remat: str
    refusal: str
    hbm_needed_gib: float | None
    hbm_limit_gib: float
    remedies: tuple[Remedy, ...]


def plan(question: Question, *, folder: pathlib.Path, say: Say, find_remedy: bool = True) -> Estimate | Refusal:
    """Compile (or recall) the step under the best policy that fits, and estimate it."""
    facts = fit(question.job, question.topology, folder=folder, say=say)
    if facts.fits:
        return estimated(question, facts)
    remedies = tuple(remedy(question, folder=folder, say=say)) if find_remedy else ()
    return Refusal(
        fits=False,
        topology=question.topology.full_name,
        num_chips=question.topology.num_chips,
        mesh=facts.mesh,
        remat=facts.remat,
        refusal=facts.refusal,
        hbm_needed_gib=facts.needed_gib,
        hbm_limit_gib=question.topology.chip.hbm_gib,
        remedies=remedies,
    )


def fit(job: Job, topology: Topology, *, folder: pathlib.Path, say: Say) -> Facts:
    """Facts of the recipe's remat policy, or of the first of `REMAT_ORDER` that fits; the last refusal otherwise."""
    wanted = job.train.remat
    facts = None
    for remat in REMAT_ORDER if wanted == "auto" else (wanted,):
        say(f"compiling for {topology.full_name}, remat {remat}")
        facts = cache.facts(job, topology, remat, folder, lambda: compile_train(job, topology, remat)[0])  # noqa: B023
        if facts.fits:
            break
    assert facts is not None
    return facts


def estimated(question: Question, facts: Facts) -> Estimate:
    """The estimate of a program that fits."""
    job, arch = question.job, architecture_of(question.job.model)
    rows = job.train.rows_per_step
    num_steps = job.train.max_steps
    if question.num_rows is not None:
        full = int(question.num_rows * job.train.epochs) // rows
        num_steps = full if num_steps is None else min(num_steps, full)
    return estimate(
        facts,
        question.topology,
        rows_per_step=rows,
        row_tokens=job.row_tokens,
        model_flops=rows * flops.train_flops(arch, [job.row_tokens]),
        num_steps=num_steps,
        usd_per_chip_hour=question.usd_per_chip_hour,
        ratio=question.ratio,
    )


def remedy(question: Question, *, folder: pathlib.Path, say: Say) -> Iterator[Remedy]:
    """The nearest change that fits, found by trying changes in order of how little they change."""
    for change, job, topology in candidates(question.job, question.topology):
        if _too_small(job, topology):
            continue
        facts = fit(job, topology, folder=folder, say=say)
        if facts.fits:
            yield Remedy(change=change, hbm_peak_gib=facts.peak_bytes / 2**30, topology=topology.full_name)
            return


def candidates(job: Job, topology: Topology) -> Iterator[tuple[str, Job, Topology]]:
    """Changes to try, each with the words that make it: recompute more, more chips, smaller moments, shorter rows."""
    change = lambda **train: dataclasses.replace(job, train=dataclasses.replace(job.train, **train))
    if job.train.remat != "auto":
        yield "train.remat=auto", change(remat="auto"), topology
    full = change(remat="full")
    for larger in topology.larger():
        if larger.num_chips <= 4 * topology.num_chips:
            yield f"--topology {larger.name} train.remat=full", full, larger
    small = dataclasses.replace(job.train.optimizer, moments="bfloat16")
    yield "train.remat=full train.optimizer.moments=bfloat16", change(remat="full", optimizer=small), topology
    half = dataclasses.replace(full, row_tokens=job.row_tokens // 2)
    yield f"train.remat=full shards.row_tokens={half.row_tokens}", half, topology


def _too_small(job: Job, topology: Topology) -> bool:
    """Whether weights, moments and gradients alone, evenly split, leave no room: no need to ask the compiler."""
    arch = architecture_of(job.model)
    width = {"float32": 4, "bfloat16": 2}[job.model.param_dtype]
    moment = {"float32": 8, "bfloat16": 4, "int8": 2}[job.train.optimizer.moments]
    trained = 0 if job.train.lora else 1
    per_weight = width + trained * (moment + width)
    return flops.matmul_params(arch) * per_weight / topology.num_devices > topology.chip.hbm_gib * 2**30
