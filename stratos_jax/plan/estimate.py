"""From a compiled program to seconds, tokens per second, hours and dollars.

In: the `Facts` of a program, the chip's figures, the model's FLOPs. Out: `Estimate`, plain JSON.

A step is taken to last: the compiler's cycles at the nominal clock + attention kernels at peak + collectives that
nothing hides, at link speed; collectives inside compute only where they outlast it. What is measured is longer than
that sum by a ratio: 1.18 on the one published run that could be compiled the same way (8B, 8k tokens, 256 v6e chips:
4.55 s against 3.86 s), until `--calibrate` has seen a run of yours.
"""

import dataclasses
from collections.abc import Mapping

from stratos_jax.plan.program import Facts
from stratos_jax.plan.target import Topology
from stratos_jax.train.config import TrainConfig
from stratos_jax.types import Json

GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """Measured over estimated, and how far to trust it."""

    value: float
    error: float  # relative
    source: str
    memory: float | None = None  # measured over estimated peak; None: not measured


PUBLISHED = Ratio(value=1.18, error=0.25, source="one published run of an 8B on v6e; an order of size, not a bound")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Everything that `stratos plan` prints, per device where nothing else is said."""

    fits: bool
    topology: str
    num_slices: int
    num_chips: int
    mesh: Mapping[str, int]
    mesh_reason: str
    remat: str
    rows_per_step: int
    row_tokens: int
    rows_per_device: int | None = None  # of a micro-batch, where it was searched
    hbm_arguments_gib: float
    hbm_temporaries_gib: float
    hbm_peak_gib: float
    hbm_limit_gib: float
    hbm_split_gib: Mapping[str, float]
    host_gib: float
    largest_buffers: tuple[Mapping[str, Json], ...]
    heaviest: tuple[Mapping[str, Json], ...]
    estimated_cycles: int
    cycles_by_kind: Mapping[str, int]
    matmul_tflops: float
    attention_tflops: float
    model_tflops: float
    wire_gib: float
    wire_async_gib: float
    dcn_gib: float
    collectives: tuple[Mapping[str, Json], ...]
    step_seconds: float
    step_seconds_parts: Mapping[str, float]
    ratio: Ratio
    tokens_per_second_per_chip: float
    mfu: float
    num_steps: int | None
    hours: float | None
    usd: float | None
    usd_per_chip_hour: float | None
    compile_seconds: float
    notes: tuple[str, ...] = ()


def estimate(
    facts: Facts,
    topology: Topology,
    *,
    rows_per_step: int,
    row_tokens: int,
    model_flops: float,
    num_steps: int | None = None,
    usd_per_chip_hour: float | None = None,
    ratio: Ratio = PUBLISHED,
    notes: tuple[str, ...] = (),
) -> Estimate:
    """Put the figures of one program together; `model_flops` is of the whole step, all devices."""
    chip, parts = topology.chip, seconds(facts, topology)
    step_seconds = ratio.value * sum(parts.values())
    sent = facts.collectives
    hours = None if num_steps is None else num_steps * step_seconds / 3600
    price = chip.usd_per_chip_hour if usd_per_chip_hour is None else usd_per_chip_hour
    device_flops = topology.num_devices * chip.peak_tflops * 1e12
    return Estimate(
        fits=facts.fits,
        topology=topology.name,
        num_slices=topology.num_slices,
        num_chips=topology.num_chips,
        mesh=facts.mesh,
        mesh_reason=facts.mesh_reason,
        remat=facts.remat,
        rows_per_step=rows_per_step,
        row_tokens=row_tokens,
        hbm_arguments_gib=facts.argument_bytes / GIB,
        hbm_temporaries_gib=facts.temporary_bytes / GIB,
        hbm_peak_gib=facts.peak_bytes / GIB,
        hbm_limit_gib=chip.hbm_gib,
        hbm_split_gib=_split(facts),
        host_gib=facts.host_bytes / GIB,
        largest_buffers=facts.largest_buffers,
        heaviest=facts.heaviest,
        estimated_cycles=sum(facts.cycles_by_kind.values()),
        cycles_by_kind=facts.cycles_by_kind,
        matmul_tflops=facts.matmul_flops / 1e12,
        attention_tflops=facts.attention_flops / 1e12,
        model_tflops=model_flops / topology.num_devices / 1e12,
        wire_gib=sum(c.wire_bytes for c in sent) / GIB,
        wire_async_gib=sum(c.wire_bytes for c in sent if c.mode != "sync") / GIB,
        dcn_gib=sum(c.wire_bytes for c in sent if c.crosses_slices) / GIB,
        collectives=tuple(dataclasses.asdict(c) for c in sent),
        step_seconds=step_seconds,
        step_seconds_parts=parts,
        ratio=ratio,
        tokens_per_second_per_chip=rows_per_step * row_tokens / step_seconds / topology.num_chips,
        mfu=model_flops / step_seconds / device_flops,
        num_steps=num_steps,
        hours=hours,
        usd=None if hours is None or price is None else hours * topology.num_chips * price,
        usd_per_chip_hour=price,
        compile_seconds=facts.compile_seconds,
        notes=(*notes, *(f"a loop of unknown length was counted once: {name}" for name in facts.unknown_loops)),
    )


def num_steps_of(train: TrainConfig, num_rows: int | None) -> int | None:
    """Optimizer steps of a run over so many rows; None where nothing says."""
    if num_rows is None:
        return train.max_steps
    full = int(num_rows * train.epochs) // train.rows_per_step
    return full if train.max_steps is None else min(train.max_steps, full)


def seconds(facts: Facts, topology: Topology) -> dict[str, float]:
    """What a step is made of, before the ratio."""
    chip = topology.chip
    compute = sum(facts.cycles_by_kind.values()) / (chip.clock_ghz * 1e9)
    attention = facts.attention_flops / (chip.peak_tflops * 1e12)
    exposed = {"ici": 0.0, "dcn": 0.0}
    hidden = {"ici": 0.0, "dcn": 0.0}
    for collective in facts.collectives:
        link = "dcn" if collective.crosses_slices else "ici"
        speed = (chip.dcn_gb_s if link == "dcn" else chip.ici_gb_s) * 1e9
        (exposed if collective.mode == "sync" else hidden)[link] += collective.wire_bytes / speed
    outlasting = sum(max(0.0, time - compute - attention) for time in hidden.values())
    return {"compute": compute, "attention": attention, **exposed, "not_hidden": outlasting}


def _split(facts: Facts) -> dict[str, float]:
    """Where the peak goes; all but the code add up to it."""
    state = facts.weights_bytes + facts.optimizer_bytes + facts.batch_bytes
    saved = min(facts.saved_bytes, max(0, facts.peak_bytes - state))
    parts = {
        "weights": facts.weights_bytes,
        "optimizer": facts.optimizer_bytes,
        "batch": facts.batch_bytes,
        "activations": saved,
        "temporaries": max(0.0, facts.peak_bytes - state - saved),
        "code": facts.code_bytes,
    }
    return {name: value / GIB for name, value in parts.items()}
