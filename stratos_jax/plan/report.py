"""A plan as a person reads it, in 80 columns, and one sentence on each figure.

In: an `Estimate` or a `Refusal`. Out: lines of text.
"""

import dataclasses
import textwrap
from typing import Any

from stratos_jax.plan.estimate import Estimate
from stratos_jax.plan.planner import Refusal
from stratos_jax.plan.serving import ServePlan

EXPLAIN = {
    "peak": "The most memory in use at once, as the compiler schedules it; less than arguments + temporaries, which "
    "need not live at the same time.",
    "weights": "The parameters that this device holds: all of them, divided by the mesh axes that split them.",
    "optimizer": "The moments of AdamW, split like the weights.",
    "activations": "What the forward pass keeps for the backward pass, under the remat policy.",
    "temporaries": "Everything else that is alive at the peak: gathered weights, gradients, one layer's work.",
    "cycles": "The compiler's own estimate for every scheduled instruction, times how often its loop runs. Kernels and "
    "collectives have none and are counted apart.",
    "attention": "Matmul FLOPs of the attention kernels, causal half, counted from their shapes.",
    "model FLOPs": "What the mathematics needs: 2 per weight and token forward, 4 backward, and causal attention; "
    "recomputation counts nothing.",
    "wire": "Bytes that each device sends per step; hidden ones run beside compute.",
    "step": "Cycles at the nominal clock + attention at peak + collectives that nothing hides, times the ratio of "
    "measured to estimated time.",
    "MFU": "Model FLOPs over what the chips could do at peak in that time.",
}


def lines(result: Estimate | Refusal, *, explain: bool = False) -> list[str]:
    """The report."""
    out = _refusal(result) if isinstance(result, Refusal) else _estimate(result)
    if explain:
        out += ["", "what the figures mean:"]
        for name, text in EXPLAIN.items():
            out += textwrap.wrap(f"{name}: {text}", 78, initial_indent="  ", subsequent_indent="    ")
    return out


def _estimate(e: Estimate) -> list[str]:
    margin = e.hbm_limit_gib - e.hbm_peak_gib
    mesh = " x ".join(f"{axis} {size}" for axis, size in e.mesh.items() if size > 1) or "one device"
    split = "  ".join(f"{name} {value:.2f}" for name, value in e.hbm_split_gib.items() if value >= 0.005)
    parts = "  ".join(f"{name} {value:.3f}" for name, value in e.step_seconds_parts.items() if value >= 0.0005)
    out = [
        f"fits on {e.topology} ({e.num_chips} chips), {margin:.1f} GiB per device to spare",
        f"  mesh         {mesh}; remat {e.remat}",
        f"  step         {e.rows_per_step} rows of {e.row_tokens:,} tokens",
        f"  HBM          peak {e.hbm_peak_gib:.2f} of {e.hbm_limit_gib:.2f} GiB per device",
        f"               {split}",
    ]
    if e.ratio.memory:
        out.append(f"               a run of yours used {e.ratio.memory:.2f} times what was planned")
    if e.host_gib:
        out.append(f"  host memory  {e.host_gib:.1f} GiB per device")
    for buffer in e.largest_buffers[:3]:
        out.append(f"               {buffer['gib']:.2f} GiB {buffer['shape']}  {_short(str(buffer['source']))}")
    out += [
        f"  FLOPs        model {e.model_tflops:,.0f} TF per device, done {e.matmul_tflops + e.attention_tflops:,.0f}"
        f" ({e.attention_tflops:,.0f} of it attention)",
        f"  cycles       {e.estimated_cycles:.4g} ({', '.join(f'{k} {v:.3g}' for k, v in e.cycles_by_kind.items())})",
        f"  wire         {e.wire_gib:.1f} GiB sent per device, {e.wire_async_gib:.1f} hidden, {e.dcn_gib:.1f} by DCN",
    ]
    for c in e.collectives[:4]:
        kind = f"{c['kind']} over {c['group'] or 'pairs'} ({c['mode']})"
        out.append(f"               {c['wire_bytes'] / 2**30:7.1f} GiB  {kind}, {c['executions']} times")
    out += [
        f"  step time    {e.step_seconds:.2f} s, +-{e.ratio.error:.0%} (x{e.ratio.value:.2f}: {e.ratio.source})",
        f"               {parts}",
        f"  speed        {e.tokens_per_second_per_chip:,.0f} tokens/s per chip, MFU {e.mfu:.1%}",
    ]
    if e.hours is not None:
        cost = f"${e.usd:,.0f} at ${e.usd_per_chip_hour:.2f} per chip-hour" if e.usd is not None else "no price listed"
        out.append(f"  run          {e.num_steps:,} steps, {e.hours:.1f} h, {cost}")
    else:
        out.append("  run          hours and dollars: give --rows, the number of rows that the shards have")
    return out + [f"  note         {note}" for note in e.notes]


def _refusal(r: Refusal) -> list[str]:
    mesh = " x ".join(f"{axis} {size}" for axis, size in r.mesh.items() if size > 1) or "one device"
    needed = f"wants {r.hbm_needed_gib:.1f} GiB of " if r.hbm_needed_gib else "wants more than "
    out = [
        f"does not fit on {r.topology} ({r.num_chips} chips): {needed}{r.hbm_limit_gib:.2f} GiB per device",
        f"  mesh {mesh}, remat {r.remat}",
        *textwrap.wrap(f"compiler: {r.refusal}", 78, initial_indent="  ", subsequent_indent="    "),
    ]
    if not r.remedies:
        return [*out, "  no change of remat, moments, row length or chips (up to four times as many) was found to fit"]
    for remedy in r.remedies:
        if remedy.checked:
            out.append(f"  fits instead: {remedy.change}  (peak {remedy.hbm_peak_gib:.1f} GiB)")
            continue
        out.append(f"  fits instead: {remedy.change}")
        out.append(f"                about {remedy.hbm_peak_gib:.1f} GiB by arithmetic; --check asks the compiler")
    return out


def serving_lines(s: ServePlan) -> list[str]:
    """The report of a prefill or decode step."""
    head = f"{s.what} of {s.batch_size} sequences on one device of {s.topology}"
    if not s.fits:
        needed = f"wants {s.hbm_needed_gib:.1f} GiB of " if s.hbm_needed_gib else "wants more than "
        out = [
            f"{head} does not fit: {needed}{s.hbm_limit_gib:.2f} GiB",
            *textwrap.wrap(f"compiler: {s.refusal}", 78, initial_indent="  ", subsequent_indent="    "),
        ]
        return out + ([f"  fits instead: {r}" for r in s.remedies] or ["  no smaller batch and no other chip fits"])
    split = "  ".join(f"{name} {value:.2f}" for name, value in s.hbm_split_gib.items() if value >= 0.005)
    unit = "a token of each" if s.what == "decode" else f"{s.prompt_tokens:,} tokens of each"
    cost = "no price listed" if s.usd_per_million_tokens is None else f"${s.usd_per_million_tokens:,.2f} per million"
    parts = "  ".join(f"{name} {value * 1000:.2f}" for name, value in s.step_seconds_parts.items())
    return [
        f"{head} fits, {s.hbm_limit_gib - s.hbm_peak_gib:.1f} GiB to spare",
        f"  HBM          peak {s.hbm_peak_gib:.2f} of {s.hbm_limit_gib:.2f} GiB; cache of {s.cache_tokens:,} positions",
        f"               {split}",
        f"  cycles       {s.estimated_cycles:.4g}",
        f"  step time    {s.step_seconds * 1000:.2f} ms for {unit}; not measured (ms: {parts})",
        f"  speed        {s.tokens_per_second:,.0f} tokens/s, "
        f"{s.bandwidth_share:.0%} of the memory's speed, MFU {s.mfu:.1%}",
        f"  cost         {cost} tokens, of {s.num_chips} chip(s), of which the engine uses one device",
    ]


def _short(path: str) -> str:
    """A source line without the folder of the installation."""
    return path.split("stratos_jax/")[-1].split("site-packages/")[-1]


def table(rows: list[Estimate]) -> list[str]:
    """Several plans side by side, in the order given."""
    head = f"{'topology':<13}{'mesh d/f/c/t':<14}{'remat':<12}{'rows of':>8}{'at once':>8}{'peak GiB':>9}{'step s':>8}"
    out = [head + f"{'hours':>8}{'usd':>9}{'MFU':>7}"]
    for e in rows:
        hours = "-" if e.hours is None else f"{e.hours:.1f}"
        usd = "-" if e.usd is None else f"{e.usd:,.0f}"
        shape = "/".join(str(e.mesh[axis]) for axis in ("data", "fsdp", "context", "tensor"))
        at_once = "auto" if e.rows_per_device is None else str(e.rows_per_device)
        row = f"{e.topology:<13}{shape:<14}{e.remat:<12}{e.row_tokens:>8,}{at_once:>8}"
        row += f"{e.hbm_peak_gib:>9.1f}{e.step_seconds:>8.2f}"
        out.append(row + f"{hours:>8}{usd:>9}{e.mfu:>7.1%}")
    return out


def to_plain(result: Any) -> dict:
    """Plain JSON of any plan."""
    return dataclasses.asdict(result)
