"""What a compiled program does, summed over its loops: cycles, matmuls, attention, and bytes over the wire.

In: a parsed `Module`. Out: `Work`. Cycles are the compiler's own estimates times trip counts; a fusion counts once.
Kernels (custom calls) and collectives carry no estimate: their FLOPs and bytes are counted from their shapes instead.
"""

import collections
import dataclasses
import math
import re

from stratos_jax.plan.hlo import Computation, Instruction, Module, trip_count

COLLECTIVES = (
    *("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute"),
    *("collective-broadcast", "ragged-all-to-all"),
)
HEAD_SIZES = (64, 128, 192, 256)


@dataclasses.dataclass(frozen=True, slots=True)
class Collective:
    """All executions of one kind of collective over groups of one size."""

    kind: str
    mode: str  # sync, async, or fused: moved into a compute fusion
    group: int  # chips that take part; 0: pairs
    crosses_slices: bool
    executions: int
    wire_bytes: float  # that each chip sends


@dataclasses.dataclass(slots=True)
class Work:
    """Sums over one run of a program, per chip."""

    cycles: collections.Counter = dataclasses.field(default_factory=collections.Counter)  # by kind of instruction
    matmul_flops: float = 0.0
    attention_flops: float = 0.0  # of the attention kernels, causal half
    kernel_calls: collections.Counter = dataclasses.field(default_factory=collections.Counter)
    wires: dict = dataclasses.field(default_factory=dict)  # (kind, mode, group, crosses) -> [executions, bytes]
    unknown_loops: list[str] = dataclasses.field(default_factory=list)
    heaviest: collections.Counter = dataclasses.field(
        default_factory=collections.Counter
    )  # (op name, source) -> cycles

    @property
    def total_cycles(self) -> int:
        """Sum of the compiler's estimates."""
        return sum(self.cycles.values())

    @property
    def collectives(self) -> list[Collective]:
        """Largest first."""
        rows = [Collective(*key, *values) for key, values in self.wires.items()]
        return sorted(rows, key=lambda c: -c.wire_bytes)

    def add(self, other: "Work") -> None:
        """Add another sum to this one."""
        for name in ("cycles", "kernel_calls", "heaviest"):
            getattr(self, name).update(getattr(other, name))
        self.matmul_flops += other.matmul_flops
        self.attention_flops += other.attention_flops
        self.unknown_loops += other.unknown_loops
        for key, (executions, sent) in other.wires.items():
            row = self.wires.setdefault(key, [0, 0.0])
            row[0] += executions
            row[1] += sent


def measure(module: Module, *, devices_per_slice: int = 0) -> Work:
    """Walk a module from its entry."""
    work = Work()
    _walk(module, module.entry, 1, work, devices_per_slice)
    return work


def _walk(module: Module, name: str, times: int, work: Work, per_slice: int) -> None:
    scope, channels = module.computations[name], set()
    for i in scope.values():
        if i.op == "while":
            trips = trip_count(module, scope, i)
            if trips is None:
                work.unknown_loops.append(i.op_name or i.name)
            for key in ("body", "condition"):
                _walk(
                    module,
                    i.attribute(key + r"=%?([\w.\-]+)"),
                    times * (1 if trips is None else trips),
                    work,
                    per_slice,
                )
        elif i.op == "conditional":
            work.add(_costlier_branch(module, i, times, per_slice))
        elif i.op in ("call", "async-start"):
            for called in i.called:
                if called in module.computations:
                    _walk(module, called, times, work, per_slice)
        else:
            _count(module, scope, name, i, times, work, channels, per_slice)


def _costlier_branch(module: Module, i: Instruction, times: int, per_slice: int) -> Work:
    names = re.findall(r"%?([\w.\-]+)", i.attribute(r"branch_computations=\{([^}]*)\}"))
    names = names or re.findall(r"(?:true|false)_computation=%?([\w.\-]+)", i.attrs)
    branches = []
    for name in names:
        branches.append(Work())
        _walk(module, name, times, branches[-1], per_slice)
    return max(branches, key=lambda w: w.total_cycles, default=Work())


def _count(
    module: Module, scope: Computation, name: str, i: Instruction, times: int, work: Work, channels: set, per_slice: int
) -> None:
    """Add one instruction (and what is fused into it) to the sums."""
    parts = [(name, i), *(module.inside(i) if i.op == "fusion" else ())]
    flops = sum(_matmul_flops(module.computations[c], j) for c, j in parts)
    collective = False
    for computation, part in parts:
        kind = part.op.removesuffix("-start")
        if kind in COLLECTIVES:
            collective = True
            # Start, steps and end of one fused collective share a channel; inside `shard_map` all others do as well.
            channel = (part.attribute(r"channel_id=(\d+)") if computation != name else "") or part.name
            if channel not in channels:
                channels.add(channel)
                _count_wire(module, i, computation, part, flops, times, work, name, per_slice)
    if i.op == "custom-call" and i.cycles is None:
        if i.attribute(r'custom_call_target="([^"]*)"') == "tpu_custom_call":
            kernel = re.sub(r"\.\d+$", "", i.name)
            work.kernel_calls[kernel] += times
            if re.search("splash|attention|flash", i.name + i.attrs[:3000]):
                work.attention_flops += times * _attention_flops(scope, i)
        return
    work.matmul_flops += flops * times
    if i.cycles is not None:
        kind = "matmul" if flops else "collective" if collective else _kind(i.op)
        work.cycles[kind] += i.cycles * times
        work.heaviest[(i.op_name, module.source(i))] += i.cycles * times


def _kind(op: str) -> str:
    if op in ("copy", "transpose", "reshape"):
        return "copy"
    return "reduce, gather, sort" if op in ("reduce", "scatter", "gather", "sort", "reduce-window") else "elementwise"


def _matmul_flops(scope: Computation, i: Instruction) -> float:
    """2 m k n of a product, from the sizes of its two operands and its result (exact without batch dimensions)."""
    if i.op not in ("convolution", "dot") or any(o not in scope for o in i.operands[:2]):
        return 0.0
    sizes = [scope[o].shapes[0].size for o in i.operands[:2]] + [i.shapes[0].size]
    return 2 * math.sqrt(math.prod(sizes))


def _attention_flops(scope: Computation, i: Instruction) -> float:
    """Matmul FLOPs of a splash kernel, causal half: forward 2 products, fused backward 5, dq alone 3."""
    arrays = [scope[o].shapes[0] for o in i.operands if o in scope and scope[o].shapes]
    big = [s.dims for s in arrays if len(s.dims) >= 3 and s.dtype in ("bf16", "f32") and s.dims[-1] in HEAD_SIZES]
    if len(big) < 2:
        return 0.0
    q, k = big[0], big[1]
    products = 2 if "fwd" in i.name else 5 if "dkv" in i.name else 3
    return products * 2 * math.prod(q[:-2]) * q[-2] * k[-2] * q[-1] / 2


def _count_wire(
    module: Module,
    outer: Instruction,
    where: str,
    part: Instruction,
    flops: float,
    times: int,
    work: Work,
    name: str,
    per_slice: int,
) -> None:
    kind = part.op.removesuffix("-start")
    scope = module.computations[where]
    fused = where != name
    if kind == "all-reduce":
        sliced = fused and any(j.op == "dynamic-slice" for j in scope.values())
        kind = "reduce-scatter" if where.startswith("all-reduce-scatter") or sliced else kind
    group, crosses = _group(part.attrs, per_slice)
    result = part.bytes
    operand = sum(scope[o].bytes for o in part.operands if o in scope)
    if kind == "reduce-scatter" and part.op.startswith("all-reduce"):
        operand = result
    if part.op == "all-gather-start":  # its type is (operand, result)
        result -= operand
    if part.op == "collective-permute-start":
        result = operand or result / 2
    if flops or "async_collective_fusion_config" in part.attrs:
        mode = "fused"
    else:
        named = "async_collective_name" in part.attrs or (fused and "async" in outer.name)
        mode = "async" if part.op.endswith("-start") or named else "sync"
    row = work.wires.setdefault((kind, mode, group, crosses), [0, 0.0])
    row[0] += times
    row[1] += times * _sent(kind, result, operand, group)


def _sent(kind: str, result: float, operand: float, group: int) -> float:
    """Bytes that each chip of a ring must send."""
    share = (group - 1) / group if group else 1.0
    if kind == "reduce-scatter":
        return operand * share
    if kind in ("all-gather", "all-to-all"):
        return result * share
    return 2 * result * share if kind == "all-reduce" else result


def _group(attrs: str, per_slice: int) -> tuple[int, bool]:
    """How many chips take part in one group, and whether a group reaches over slices."""
    named = re.search(r"replica_groups=mesh\[([^\]]*)\](?:,\s*device_ids=\(\S*\))?\s*\{([^}]*)\}", attrs)
    if named:
        axes = dict(re.findall(r"'([\w.]+)'=(\d+)", named.group(1)))
        used = re.findall(r"'([\w.]+)'(?::\([\d]+\)(\d+))?", named.group(2))
        size = math.prod(int(part or axes.get(axis, 1)) for axis, part in used)
        return size, bool(per_slice) and any(axis == "data" for axis, _ in used)
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]", attrs)
    if iota:
        return int(iota.group(2)), bool(per_slice) and int(iota.group(2)) > per_slice
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", attrs)
    if listed:
        ids = [int(x) for x in listed.group(1).split(",")]
        return len(ids), bool(per_slice) and len({x // per_slice for x in ids}) > 1
    return 0, False
