"""GPU targets, by arithmetic alone: no compiler for them runs here.

In: a `Question`'s job and a name such as `h100:8`. Out: `GpuPlan`, marked as an analytic estimate. Memory is that of
`guess`; a step takes its model FLOPs at a share of the peak: what `--calibrate` measured, or else one published figure.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Mapping

from stratos_jax.model import flops
from stratos_jax.model.config import architecture_of
from stratos_jax.plan import guess
from stratos_jax.plan.estimate import Ratio, num_steps_of
from stratos_jax.plan.program import Job, mesh_for
from stratos_jax.types import UserError

USABLE = 0.9  # of the memory: what XLA takes at most without further settings, and room for the guess's error
REMAT_ORDER = ("dots", "context_qkv", "context", "full", "offload")
PUBLISHED = Ratio(value=1 / 0.37, error=0.3, source="37% of peak: TorchTitan's 8B on 8 H100 at 8k tokens, not ours")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """One kind."""

    name: str
    peak_tflops: float
    hbm_gib: float
    usd_per_chip_hour: float | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GpuPlan:
    """What is printed; per GPU where nothing else is said."""

    analytic: bool = True
    fits: bool
    topology: str
    num_chips: int
    mesh: Mapping[str, int]
    remat: str
    rows_per_step: int
    row_tokens: int
    hbm_peak_gib: float
    hbm_limit_gib: float
    model_tflops: float
    step_seconds: float
    step_seconds_parts: Mapping[str, float]
    ratio: Ratio
    tokens_per_second_per_chip: float
    mfu: float
    num_steps: int | None
    hours: float | None
    usd: float | None
    usd_per_chip_hour: float | None
    notes: tuple[str, ...] = ("an analytic estimate: neither the memory nor the time was compiled or measured here",)


@functools.cache
def gpus() -> dict[str, Gpu]:
    """The table."""
    table = json.loads((pathlib.Path(__file__).parent / "gpus.json").read_text())
    return {name: Gpu(name=name, **row) for name, row in table.items() if name != "note"}


def is_gpu(name: str) -> bool:
    """Whether a topology's name is about GPUs."""
    return name.partition(":")[0] in gpus()


def parse(name: str) -> tuple[Gpu, int]:
    """Kind and number from a name such as `h100:8`."""
    match = re.fullmatch(r"(\w+):(\d+)", name)
    if not match or int(match[2]) < 1:
        raise UserError("unknown GPU topology", got=name, wanted="KIND:NUMBER, for example h100:8")
    return gpus()[match[1]], int(match[2])


def plan(job: Job, name: str, *, num_rows: int | None, price: float | None, ratio: Ratio) -> GpuPlan:
    """The estimate for so many GPUs."""
    gpu, number = parse(name)
    arch, train = architecture_of(job.model), job.train
    shape, _ = mesh_for(job.model, job.mesh, train, number)
    policies = REMAT_ORDER if train.remat == "auto" else (train.remat,)
    size = lambda remat: guess.peak_gib(arch, train, job.model.param_dtype, job.row_tokens, shape, remat)
    limit = USABLE * gpu.hbm_gib
    remat = next((remat for remat in policies if size(remat) <= limit), policies[-1])
    model_flops = train.rows_per_step * flops.train_flops(arch, [job.row_tokens])
    ideal = model_flops / number / (gpu.peak_tflops * 1e12)
    seconds, num_steps = ideal * ratio.value, num_steps_of(train, num_rows)
    hours = None if num_steps is None else num_steps * seconds / 3600
    price = gpu.usd_per_chip_hour if price is None else price
    return GpuPlan(
        fits=size(remat) <= limit,
        topology=name,
        num_chips=number,
        mesh=shape,
        remat=remat,
        rows_per_step=train.rows_per_step,
        row_tokens=job.row_tokens,
        hbm_peak_gib=size(remat),
        hbm_limit_gib=limit,
        model_tflops=model_flops / number / 1e12,
        step_seconds=seconds,
        step_seconds_parts={"model FLOPs at peak": ideal},
        ratio=ratio,
        tokens_per_second_per_chip=train.rows_per_step * job.row_tokens / seconds / number,
        mfu=1 / ratio.value,
        num_steps=num_steps,
        hours=hours,
        usd=None if hours is None or price is None else hours * number * price,
        usd_per_chip_hour=price,
    )


def lines(g: GpuPlan) -> list[str]:
    """The report."""
    mesh = " x ".join(f"{axis} {size}" for axis, size in g.mesh.items() if size > 1) or "one GPU"
    verdict = "should fit on" if g.fits else "should not fit on"
    out = [
        f"ANALYTIC ESTIMATE: {verdict} {g.topology} ({g.num_chips} GPUs)",
        f"  mesh         {mesh}; remat {g.remat}",
        f"  step         {g.rows_per_step} rows of {g.row_tokens:,} tokens",
        f"  memory       about {g.hbm_peak_gib:.1f} of {g.hbm_limit_gib:.1f} GiB usable per GPU",
    ]
    if not g.fits:
        return out
    out += [
        f"  step time    {g.step_seconds:.2f} s, +-{g.ratio.error:.0%} ({g.ratio.source})",
        f"  speed        {g.tokens_per_second_per_chip:,.0f} tokens/s per GPU, MFU {g.mfu:.1%}",
    ]
    if g.hours is not None:
        cost = "no price listed" if g.usd is None else f"${g.usd:,.0f} at ${g.usd_per_chip_hour:.2f} per GPU-hour"
        out.append(f"  run          {g.num_steps:,} steps, {g.hours:.1f} h, {cost}")
    return out + [f"  note         {note}" for note in g.notes]
