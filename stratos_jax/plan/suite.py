"""Hours and dollars of the evaluation suite and of a conversion, by arithmetic at a stated share of full speed.

In: a recipe's tasks, engine and model, a chip. Out: `SuitePlan` and `ConvertPlan`. Decoding is a matter of the memory's
speed: each token of a batch reads all weights and, as this engine is made, the whole cache. Lengths of answers are
assumed unless they are given.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from stratos_jax import store
from stratos_jax.engine.config import SamplingConfig
from stratos_jax.model import flops
from stratos_jax.model.config import ModelConfig, architecture_of
from stratos_jax.plan import guess, serving
from stratos_jax.plan.target import Topology, smallest

GIB = 2**30
# Public benchmarks: how many problems they have, and the tokens that a reasoning model is assumed to answer with.
KNOWN = {
    **{"AIME24": (30, 12_000), "MATH500": (500, 4_000)},
    **{"GPQA-Diamond": (198, 8_000), "LiveCodeBench v2": (511, 9_000)},
}
OTHER = (500, 6_000)
ROOFLINE = 0.4  # other engines reach 37 to 51 % of the memory's speed on v6e, by their published figures
DISK_GB_S = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One task of the suite."""

    name: str
    path: str  # of its problems; "curate": made by the run itself
    max_problems: int | None
    sampling: SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SuitePlan:
    """The whole evaluation, on one device."""

    fits: bool
    what: str = "evaluate"
    topology: str
    num_chips: int
    batch_size: int  # that fits
    cache_tokens: int
    samples: Mapping[str, int]
    answer_tokens: Mapping[str, int]
    roofline: float
    tokens_per_second: float
    hours: float
    usd: float | None
    usd_per_chip_hour: float | None
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConvertPlan:
    """Reading one format and writing the other, both ways of a run together."""

    fits: bool = True
    what: str = "convert"
    read_gib: float
    written_gib: float
    disk_gb_s: float
    roofline: float
    hours: float


def evaluate(
    tasks: Sequence[Part],
    job: serving.Serve,
    topology: Topology,
    *,
    answer_tokens: int | None,
    roofline: float,
    price: float | None,
) -> SuitePlan:
    """Hours and dollars of all tasks, sampled one after another."""
    arch, chip = architecture_of(job.model), topology.chip
    weights = guess.num_params(arch) * (4 if job.engine.compute_dtype == "float32" else 2)
    whole = dataclasses.replace(job, sampling=_longest(tasks))
    room = 0.9 * chip.hbm_gib * GIB - weights
    batch = min(job.engine.batch_size, int(room // (serving.cache_tokens(whole) * serving.token_bytes(whole))))
    sizes = {task.name: num_problems(task) * task.sampling.samples for task in tasks}
    assumed = lambda task: answer_tokens or KNOWN.get(task.name, OTHER)[1]
    lengths = {task.name: min(assumed(task), task.sampling.max_tokens) for task in tasks}
    fits = batch > 0
    held = dataclasses.replace(whole, engine=dataclasses.replace(job.engine, batch_size=max(1, batch)))
    step = (weights + serving.cache_bytes(held)) / (chip.hbm_gb_s * 1e9) / roofline
    rate = max(1, batch) / step
    decoded = sum(sizes[name] * lengths[name] for name in sizes)
    prompt_flops = sum(sizes.values()) * flops.forward_flops(arch, [job.prompt_tokens])
    hours = (decoded / rate + prompt_flops / (chip.peak_tflops * 1e12 * roofline)) / 3600
    price = chip.usd_per_chip_hour if price is None else price
    return SuitePlan(
        fits=fits,
        topology=topology.full_name,
        num_chips=topology.num_chips,
        batch_size=max(0, batch),
        cache_tokens=serving.cache_tokens(whole),
        samples=sizes,
        answer_tokens=lengths,
        roofline=roofline,
        tokens_per_second=rate if fits else 0.0,
        hours=hours if fits else 0.0,
        usd=None if price is None or not fits else hours * topology.num_chips * price,
        usd_per_chip_hour=price,
        notes=(*_alone(topology, hours if fits else 0.0, price), *_notes(tasks, job, batch, answer_tokens)),
    )


def convert(model: ModelConfig, *, disk_gb_s: float, roofline: float) -> ConvertPlan:
    """Hugging Face weights into a checkpoint before training, and back after it."""
    both = guess.num_params(architecture_of(model)) * (2 + guess.WIDTH[model.param_dtype]) / GIB  # bfloat16 and ours
    hours = 2 * both * GIB / (disk_gb_s * 1e9 * roofline) / 3600
    return ConvertPlan(read_gib=both, written_gib=both, disk_gb_s=disk_gb_s, roofline=roofline, hours=hours)


def lines(s: SuitePlan | ConvertPlan) -> list[str]:
    """The report."""
    if isinstance(s, ConvertPlan):
        return [
            f"converting there and back: {s.hours:.2f} h at {s.roofline:.0%} of {s.disk_gb_s} GB/s, by arithmetic",
            f"  reads        {s.read_gib:.1f} GiB",
            f"  writes       {s.written_gib:.1f} GiB",
        ]
    notes = [f"  note         {note}" for note in s.notes]
    if not s.fits:
        return [f"evaluation does not fit on one device of {s.topology}: weights and one sequence need more", *notes]
    cost = "no price listed" if s.usd is None else f"${s.usd:,.0f} at ${s.usd_per_chip_hour:.2f} per chip-hour"
    out = [f"evaluation on {s.topology}: {s.hours:.1f} h, {cost}, at {s.roofline:.0%} of the memory's speed"]
    for name, samples in s.samples.items():
        out.append(f"  {name:<18}{samples:>6,} samples of {s.answer_tokens[name]:,} tokens")
    speed = f"{s.tokens_per_second:,.0f} tokens/s, {s.batch_size} sequences of {s.cache_tokens:,} positions"
    return [*out, f"  speed        {speed}", *notes]


def num_problems(task: Part) -> int:
    """As many as the file has, else as the public benchmark of that name."""
    count = KNOWN.get(task.name, OTHER)[0]
    if task.path != "curate" and store.exists(task.path):
        count = sum(1 for _ in store.jsonl.read_jsonl(task.path))
    return count if task.max_problems is None else min(count, task.max_problems)


def _longest(tasks: Sequence[Part]) -> SamplingConfig:
    """The engine makes its cache for the longest request."""
    return max((task.sampling for task in tasks), key=lambda sampling: sampling.max_tokens)


def _alone(topology: Topology, hours: float, price: float | None) -> list[str]:
    """The engine uses one device: what the smallest slice of its kind would cost instead."""
    if topology.num_devices == 1:
        return []
    small = smallest(topology.chip.name)
    cost = "" if not hours or price is None else f", ${hours * small.num_chips * price:,.0f} on {small.name}"
    return [f"the engine uses one device of the slice, the others idle{cost if small.name != topology.name else ''}"]


def _notes(tasks: Sequence[Part], job: serving.Serve, batch: int, given: int | None) -> list[str]:
    notes = []
    if batch < job.engine.batch_size:
        notes.append(f"engine.batch_size={job.engine.batch_size} does not fit: planned with {max(0, batch)}")
    unknown = [t.name for t in tasks if t.name not in KNOWN and (t.path == "curate" or not store.exists(t.path))]
    if unknown:
        notes.append(f"{', '.join(unknown)}: number of problems not known, {OTHER[0]} assumed")
    if given is None:
        notes.append("lengths of answers are assumed; --answer-tokens gives your own")
    return notes
