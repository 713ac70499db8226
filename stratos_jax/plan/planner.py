"""Plans one run on one topology: picks what is left to `auto`, compiles, estimates, and says what would fit instead.

In: a `Question`. Out: an `Estimate`, or a `Refusal` with changes that were tried and found to fit.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model import flops
from stratos_jax.model.config import architecture_of
from stratos_jax.plan import cache, guess
from stratos_jax.plan.estimate import PUBLISHED, Estimate, Ratio, estimate, num_steps_of
from stratos_jax.plan.program import Facts, Job, compile_train, mesh_of, read
from stratos_jax.plan.target import Topology
from stratos_jax.train.config import LossConfig, TrainConfig
from stratos_jax.types import UserError

# From the most memory and least work to the least memory: `auto` takes the first that fits.
REMAT_ORDER = ("dots", "context_qkv", "context", "full", "offload")
SURE, HOPELESS = 0.85, 1.15  # of the limit: a guess below it most likely fits, one above it cannot
NOT_OF_THE_PROGRAM = (
    *("epochs", "max_steps", "seed", "checkpoint", "log_every_steps", "sinks", "held_out_fraction"),
    *("eval_every_steps", "profile_steps", "on_bad_step", "watchdog_seconds"),
    *("sample_every_steps", "sample_problems", "sample_max_tokens"),
)
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """What is asked of the planner."""

    job: Job
    topology: Topology
    num_rows: int | None = None  # of the shards; None: hours and dollars stay open
    usd_per_chip_hour: float | None = None
    ratio: Ratio = PUBLISHED
    packing: bool = False  # whether rows of another length would be another number of rows


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Remedy:
    """A change under which the run fits."""

    change: str  # words to paste
    hbm_peak_gib: float
    checked: bool  # with the compiler; else by arithmetic
    topology: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Remedies:
    """The changes that were found, for the cache."""

    found: tuple[Remedy, ...]


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


def plan(question: Question, *, folder: pathlib.Path, say: Say, check: bool = False) -> Estimate | Refusal:
    """Compile (or recall) the step under the best policy that fits, and estimate it."""
    facts = fit(question.job, question.topology, folder=folder, say=say)
    if facts.fits:
        return estimated(question, facts)
    remedies = remedies_of(question, folder=folder, say=say, check=check).found
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


def remedies_of(question: Question, *, folder: pathlib.Path, say: Say, check: bool) -> Remedies:
    """Kept like a compilation: a refused plan that is asked for again is instant too."""
    parts = ["remedies", question.job, question.topology.full_name, check]
    make = lambda: remedy(question, folder=folder, say=say, check=check)
    return cache.recall(Remedies, parts, folder, make, cache.REMEDIES)


def fit(job: Job, topology: Topology, *, folder: pathlib.Path, say: Say) -> Facts:
    """Facts of the recipe's remat policy, or of the first of `REMAT_ORDER` that fits; a refusal otherwise."""
    make = lambda: _fit(job, topology, folder, say)
    return cache.recall(Facts, [job, topology.full_name], folder, make, cache.PROGRAM)


def compiled(job: Job, topology: Topology, remat: str, *, folder: pathlib.Path, say: Say) -> Facts:
    """Facts of one policy's program."""

    job = canonical(job, topology, remat)

    parts = [job, topology.full_name, remat]

    def make() -> tuple[Facts, str]:
        usual = cache.usual_seconds(folder)
        hint = f", usually {usual:.0f} s here" if usual else ""
        say(f"compiling for {topology.full_name}, remat {remat}{hint}")
        return compile_train(job, topology, remat)

    def understand() -> Facts:  # a better reader of ours needs no compilation
        bare, text = cache.recall_text(Facts, ["program", *parts], folder, make, cache.STEP)
        return read(bare, text, job, topology)

    return cache.recall(Facts, parts, folder, understand, cache.PROGRAM)


def canonical(job: Job, topology: Topology, remat: str) -> Job:
    """The same program, with what does not decide it set to one value: equal programs are compiled once."""
    model = dataclasses.replace(job.model, source="") if job.model.hf else job.model
    mesh = MeshConfig(**mesh_of(job, topology)[0])
    plain = TrainConfig(rows_per_step=1)
    loss = LossConfig(chunk_tokens=job.train.loss.chunk_tokens)  # its reductions are weights of the batch
    same = {name: getattr(plain, name) for name in NOT_OF_THE_PROGRAM}
    train = dataclasses.replace(job.train, remat=remat, loss=loss, **same)
    return dataclasses.replace(job, model=model, mesh=mesh, train=train)


def _fit(job: Job, topology: Topology, folder: pathlib.Path, say: Say) -> Facts:
    """Ask the compiler, beginning with the policy that should fit by arithmetic, until the best one is found."""
    ask = lambda remat: compiled(job, topology, remat, folder=folder, say=say)
    if job.train.remat != "auto":
        return ask(job.train.remat)
    limit = topology.chip.hbm_gib
    sizes = [guessed_gib(job, topology, remat) for remat in REMAT_ORDER]
    last = len(REMAT_ORDER) - 1
    index = next((i for i, size in enumerate(sizes) if size <= limit), last)
    facts = ask(REMAT_ORDER[index])
    while not facts.fits and index < last:
        index += 1
        facts = ask(REMAT_ORDER[index])
        if facts.fits:
            return facts
    while facts.fits and index and sizes[index - 1] <= HOPELESS * limit:
        index -= 1
        better = ask(REMAT_ORDER[index])
        if not better.fits:
            break
        facts = better
    return facts


def guessed_gib(job: Job, topology: Topology, remat: str) -> float:
    """The peak by arithmetic, on the mesh that the step would use."""
    arch = architecture_of(job.model)
    return guess.peak_gib(arch, job.train, job.model.param_dtype, job.row_tokens, mesh_of(job, topology)[0], remat)


def estimated(question: Question, facts: Facts) -> Estimate:
    """The estimate of a program that fits."""
    job, arch = question.job, architecture_of(question.job.model)
    rows = job.train.rows_per_step
    return estimate(
        facts,
        question.topology,
        rows_per_step=rows,
        row_tokens=job.row_tokens,
        model_flops=rows * flops.train_flops(arch, [job.row_tokens]),
        num_steps=num_steps_of(job.train, question.num_rows),
        usd_per_chip_hour=question.usd_per_chip_hour,
        ratio=question.ratio,
        notes=_notes(job, facts),
    )


def _notes(job: Job, facts: Facts) -> tuple[str, ...]:
    notes = []
    if job.train.remat == "auto":
        notes.append(f"on the chips `auto` is decided by arithmetic: train.remat={facts.remat} makes it this very step")
    if facts.host_bytes:
        notes.append("the step time leaves out what moving activations to host memory and back may add")
    return tuple(notes)


def remedy(question: Question, *, folder: pathlib.Path, say: Say, check: bool) -> Remedies:
    """The nearest change that fits: by arithmetic, or, with `check`, the first that the compiler takes."""
    limit = question.topology.chip.hbm_gib
    for change, job, topology in itertools.islice(likely(question.job, question.topology, limit), 3):
        peak = guessed_gib(job, topology, job.train.remat)
        if check:
            say(f"trying {change}")
            facts = compiled(job, topology, job.train.remat, folder=folder, say=say)
            if not facts.fits:
                continue
            peak = facts.peak_bytes / 2**30
        found = Remedy(change=change, hbm_peak_gib=peak, topology=topology.full_name, checked=check)
        return Remedies(found=(found,))
    return Remedies(found=())


def likely(job: Job, topology: Topology, limit: float) -> Iterator[tuple[str, Job, Topology]]:
    """Changes that should fit by arithmetic, those that change least first."""
    for change, other, place in candidates(job, topology):
        try:
            size = guessed_gib(other, place, other.train.remat)
        except UserError:  # no such mesh
            continue
        if size <= SURE * limit:
            yield change, other, place


def candidates(job: Job, topology: Topology) -> Iterator[tuple[str, Job, Topology]]:
    """Changes to try, each with the words that make it: mesh and remat, then more chips, smaller moments, shorter rows.

    Settings that the recipe fixes stay, except the remat policy, which may become one that keeps less.
    """
    train, wanted = job.train, job.train.remat
    policies = [p for p in ("full", "offload") if wanted == "auto" or order(p) > order(wanted)]
    if wanted != "auto" and order(wanted) < order("full"):
        policies.insert(0, "context")
    same = [*([wanted] if wanted != "auto" else []), *policies]
    places = [topology, *(t for t in topology.larger() if t.num_chips <= 4 * topology.num_chips)]
    small = dataclasses.replace(train, optimizer=dataclasses.replace(train.optimizer, moments="bfloat16"))
    shorter = dataclasses.replace(job, row_tokens=job.row_tokens // 2)
    bases = [("", job, place) for place in places]
    if train.optimizer.moments == "float32" and not train.lora:
        bases.append(("train.optimizer.moments=bfloat16", dataclasses.replace(job, train=small), topology))
    bases.append((f"shards.row_tokens={shorter.row_tokens}", shorter, topology))
    for words, base, place in bases:
        for remat in same:
            for mesh_words, mesh in meshes(base.mesh):
                changed = dataclasses.replace(base, mesh=mesh, train=dataclasses.replace(base.train, remat=remat))
                where = "" if place == topology else f"--topology {place.name}"
                told = "" if remat == wanted else f"train.remat={remat}"
                text = " ".join(filter(None, (where, mesh_words, told, words)))
                if text:
                    yield text, changed, place


def order(remat: str) -> int:
    """A policy's place from the most memory to the least."""
    return REMAT_ORDER.index(remat) if remat in REMAT_ORDER else -1


def meshes(mesh: MeshConfig) -> Iterator[tuple[str, MeshConfig]]:
    """The mesh as it is, and, where it is left open, ways to share a row among devices."""
    yield "", mesh
    if mesh.data or mesh.fsdp or mesh.context or mesh.tensor:
        return
    for tensor, context in ((2, 0), (4, 0), (0, 2), (0, 4)):
        words = f"mesh.tensor={tensor}" if tensor else f"mesh.context={context}"
        yield words, dataclasses.replace(mesh, tensor=tensor, context=context)
