"""The engine's own prefill and decode steps, compiled for a TPU that is not here, as one device runs them.

In: a `Serve` and a chip. Out: `ServeFacts`, and from them a `ServePlan`: memory, tokens per second, what they cost.

The engine keeps one model on one device: more chips of a slice cost more and add nothing. A decode step reads all
weights and all of the cache, however full: the plan takes the longer of the compiler's cycles and that read at the
memory's speed.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stratos_jax.engine.config import EngineConfig, SamplingConfig
from stratos_jax.model import flops
from stratos_jax.model.config import ModelConfig, architecture_of
from stratos_jax.plan import buffers, cache, guess, hlo
from stratos_jax.plan.program import devices, local_bytes, why_refused
from stratos_jax.plan.target import Topology, chips, smallest
from stratos_jax.plan.work import measure
from stratos_jax.types import Json

GIB = 2**30
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Serve:
    """What decides the program."""

    what: str  # prefill or decode
    model: ModelConfig
    engine: EngineConfig
    prompt_tokens: int
    sampling: SamplingConfig


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServeFacts:
    """What one compilation taught, of one device."""

    fits: bool
    refusal: str = ""
    needed_gib: float | None = None
    weights_bytes: int = 0
    cache_bytes: int = 0
    argument_bytes: int = 0
    temporary_bytes: int = 0
    peak_bytes: int = 0
    code_bytes: int = 0
    cycles_by_kind: Mapping[str, int] = dataclasses.field(default_factory=dict)
    matmul_flops: float = 0.0
    attention_flops: float = 0.0
    heaviest: tuple[Mapping[str, Json], ...] = ()
    largest_buffers: tuple[Mapping[str, Json], ...] = ()
    compile_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServePlan:
    """What is printed; per device where nothing else is said."""

    fits: bool
    what: str
    topology: str
    num_chips: int
    batch_size: int
    prompt_tokens: int
    cache_tokens: int  # positions of each sequence's cache
    hbm_limit_gib: float
    refusal: str = ""
    hbm_needed_gib: float | None = None
    remedies: tuple[str, ...] = ()
    hbm_peak_gib: float = 0.0
    hbm_arguments_gib: float = 0.0
    hbm_temporaries_gib: float = 0.0
    hbm_split_gib: Mapping[str, float] = dataclasses.field(default_factory=dict)
    largest_buffers: tuple[Mapping[str, Json], ...] = ()
    heaviest: tuple[Mapping[str, Json], ...] = ()
    estimated_cycles: int = 0
    step_seconds: float = 0.0  # of one token for each sequence, or of one prefill
    step_seconds_parts: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tokens_per_second: float = 0.0
    bandwidth_share: float = 0.0  # of the memory's speed that the weights and the cache alone make up
    mfu: float = 0.0
    usd_per_chip_hour: float | None = None
    usd_per_million_tokens: float | None = None


def compile_serve(job: Serve, topology: Topology) -> ServeFacts:
    """Lower and compile the engine's step for one device of a topology."""
    import time

    import jax
    from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

    from stratos_jax.engine.engine import Engine
    from stratos_jax.engine.request import Request
    from stratos_jax.model.params import abstract_params
    from stratos_jax.train.aot import compiler_options

    start, arch = time.monotonic(), architecture_of(job.model)
    mesh = Mesh(devices(topology)[:1], ("data",), axis_types=(AxisType.Auto,))
    place = NamedSharding(mesh, PartitionSpec())
    params = abstract_params(arch, job.engine.compute_dtype)
    request = Request(id="plan", tokens=(0,) * job.prompt_tokens, sampling=job.sampling)
    engine = Engine(params, arch, job.engine, eos_ids=(0,))
    with jax.set_mesh(mesh):  # the mesh tells attention what it will run on
        lowered = engine.lower(job.what, [request] * job.engine.batch_size, place)
        try:
            compiled = lowered.compile(compiler_options={**compiler_options(topology.chip.name)})
        except jax.errors.JaxRuntimeError as error:
            refusal, needed = why_refused(str(error), topology)
            return ServeFacts(fits=False, refusal=refusal, needed_gib=needed)
    memory: Any = compiled.memory_analysis()
    module = hlo.parse(compiled.as_text() or "")
    work = measure(module)  # decode's loop over tokens has no fixed length: it counts once, as one token
    heaviest = [{"cycles": c, "made_by": op, "source": at} for (op, at), c in work.heaviest.most_common(8)]
    return ServeFacts(
        fits=True,
        weights_bytes=local_bytes(params),
        cache_bytes=cache_bytes(job),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        cycles_by_kind=dict(work.cycles),
        matmul_flops=work.matmul_flops,
        attention_flops=work.attention_flops,
        heaviest=tuple(heaviest),
        largest_buffers=buffers.largest(module),
        compile_seconds=time.monotonic() - start,
    )


def cache_tokens(job: Serve) -> int:
    """Positions of each sequence's cache, as the engine makes it."""
    arch = architecture_of(job.model)
    return -(-min(job.prompt_tokens + job.sampling.max_tokens, arch.max_positions) // 64) * 64


def token_bytes(job: Serve) -> int:
    """Bytes of the cache for one position of one sequence."""
    arch = architecture_of(job.model)
    width = 4 if job.engine.cache_dtype == "float32" else 2
    return 2 * arch.num_layers * arch.num_kv_heads * arch.head_dim * width


def cache_bytes(job: Serve) -> int:
    """Bytes of the whole cache."""
    return job.engine.batch_size * cache_tokens(job) * token_bytes(job)


def plan(
    job: Serve, topology: Topology, facts: ServeFacts, remedies: tuple[str, ...], price: float | None
) -> ServePlan:
    """The figures of one program."""
    price = topology.chip.usd_per_chip_hour if price is None else price
    common = ServePlan(
        fits=facts.fits,
        what=job.what,
        topology=topology.full_name,
        num_chips=topology.num_chips,
        batch_size=job.engine.batch_size,
        prompt_tokens=job.prompt_tokens,
        cache_tokens=cache_tokens(job),
        hbm_limit_gib=topology.chip.hbm_gib,
        refusal=facts.refusal,
        hbm_needed_gib=facts.needed_gib,
        remedies=remedies,
        usd_per_chip_hour=price,
    )
    if not facts.fits:
        return common
    chip, arch = topology.chip, architecture_of(job.model)
    cycles = sum(facts.cycles_by_kind.values())
    parts = {"compute": cycles / (chip.clock_ghz * 1e9), "attention": facts.attention_flops / (chip.peak_tflops * 1e12)}
    read = (facts.weights_bytes + facts.cache_bytes) / (chip.hbm_gb_s * 1e9) if job.what == "decode" else 0.0
    seconds = max(sum(parts.values()), read)
    tokens = job.engine.batch_size * (1 if job.what == "decode" else job.prompt_tokens)
    rate = tokens / seconds
    lengths = [job.prompt_tokens] * job.engine.batch_size
    needed = (
        flops.forward_flops(arch, lengths)
        if job.what == "prefill"
        else 2 * flops.matmul_params(arch) * job.engine.batch_size
    )
    return dataclasses.replace(
        common,
        hbm_peak_gib=facts.peak_bytes / GIB,
        hbm_arguments_gib=facts.argument_bytes / GIB,
        hbm_temporaries_gib=facts.temporary_bytes / GIB,
        hbm_split_gib={
            "weights": facts.weights_bytes / GIB,
            "cache": facts.cache_bytes / GIB,
            "temporaries": max(0, facts.peak_bytes - facts.weights_bytes - facts.cache_bytes) / GIB,
            "code": facts.code_bytes / GIB,
        },
        largest_buffers=facts.largest_buffers,
        heaviest=facts.heaviest,
        estimated_cycles=cycles,
        step_seconds=seconds,
        step_seconds_parts={**parts, "read": read},
        tokens_per_second=rate,
        bandwidth_share=read / seconds,
        mfu=needed / seconds / (chip.peak_tflops * 1e12),
        usd_per_million_tokens=None if price is None else 1e6 / rate * topology.num_chips * price / 3600,
    )


def smaller(job: Serve, topology: Topology) -> Serve | None:
    """The same with the largest batch (a power of two) that weights and cache leave room for by arithmetic."""
    arch = architecture_of(job.model)
    width = 4 if job.engine.compute_dtype == "float32" else 2
    room = 0.9 * topology.chip.hbm_gib * GIB - guess.num_params(arch) * width
    rows = int(room // (cache_tokens(job) * token_bytes(job)))
    batch = 1 << (rows.bit_length() - 1) if rows > 0 else 0
    if not 0 < batch < job.engine.batch_size:
        return None
    return dataclasses.replace(job, engine=dataclasses.replace(job.engine, batch_size=batch))


def larger_chips(job: Serve, topology: Topology) -> Iterator[Topology]:
    """The smallest slice of each other kind of chip that holds weights and one sequence by arithmetic."""
    weights = guess.num_params(architecture_of(job.model)) * (4 if job.engine.compute_dtype == "float32" else 2)
    wanted = (weights + cache_tokens(job) * token_bytes(job)) / GIB
    for name, chip in chips().items():
        if name != topology.chip.name and wanted < 0.9 * chip.hbm_gib:
            yield smallest(name)


def answer(job: Serve, topology: Topology, *, folder: pathlib.Path, say: Say, price: float | None) -> ServePlan:
    """Compile (or recall) the step; where it does not fit, find a batch that does."""
    facts = recall(job, topology, folder, say)
    remedies = () if facts.fits else tuple(remedy(job, topology, folder, say))
    return plan(job, topology, facts, remedies, price)


def recall(job: Serve, topology: Topology, folder: pathlib.Path, say: Say) -> ServeFacts:
    """Facts from the cache or the compiler."""

    def make() -> ServeFacts:
        say(f"compiling {job.what} for one device of {topology.full_name}, {job.engine.batch_size} sequences")
        return compile_serve(job, topology)

    return cache.recall(ServeFacts, ["serve", job, topology.full_name], folder, make, cache.SERVING)


def remedy(job: Serve, topology: Topology, folder: pathlib.Path, say: Say) -> Iterator[str]:
    """A smaller batch, or else another chip; tried with the compiler."""
    for place in (topology, *larger_chips(job, topology)):
        words = "" if place == topology else f"--topology {place.name} "
        less = smaller(job, place)
        while less is not None:
            if recall(less, place, folder, say).fits:
                yield f"{words}engine.batch_size={less.engine.batch_size}"
                return
            half = less.engine.batch_size // 2
            less = dataclasses.replace(less, engine=dataclasses.replace(less.engine, batch_size=half)) if half else None
        if place != topology and recall(job, place, folder, say).fits:
            yield words.strip()
            return
