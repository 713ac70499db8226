"""The text of an optimized, scheduled HLO module as computations of instructions.

In: what `compiled.as_text()` gives. Out: `Module`, with trip counts of loops, shapes, and the source line of each
instruction. Only what a cost walk needs is read; nothing is simulated.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {"pred": 1, "token": 0, "opaque": 0, "s4": 0.5, "u4": 0.5, "bf16": 2, "f8e4m3fn": 1, "f8e5m2": 1, "c64": 8}
SHAPE = re.compile(r"\b(pred|token|opaque|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")
HEAD = re.compile(r"^(ENTRY\s+)?%?([\w.\-]+)\s+\(.*\{\s*$")
START = re.compile(r"^\s+(ROOT\s+)?%?([\w.\-]+)\s=\s(.*)$", re.S)


@dataclasses.dataclass(frozen=True, slots=True)
class Shape:
    """One array of an instruction's result."""

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> float:
        """Bytes of the elements, without the padding of tiles."""
        width = BYTES.get(self.dtype) or int(re.sub(r"\D", "", self.dtype.split("e")[0]) or 32) / 8
        return self.size * (0 if self.dtype in ("token", "opaque") else width)

    @property
    def in_hbm(self) -> bool:
        """False where the compiler put it into on-chip (S(1), S(6) ...) or host (S(5)) memory."""
        return not re.search(r"S\([1-9]\d*\)", self.layout)


@dataclasses.dataclass(frozen=True, slots=True)
class Instruction:
    """One line of a computation."""

    name: str
    type: str
    op: str
    operands: tuple[str, ...]  # names; of a constant, its text
    attrs: str
    is_root: bool

    @property
    def shapes(self) -> list[Shape]:
        """The result's arrays."""
        return parse_shapes(self.type)

    @property
    def bytes(self) -> float:
        """Bytes of the result."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def cycles(self) -> int | None:
        """The compiler's own estimate; None where it makes none."""
        found = re.search(r'"estimated_cycles":"?(-?\d+)', self.attrs)
        cycles = int(found.group(1)) if found else -1
        return cycles if cycles >= 0 else None

    def attribute(self, pattern: str) -> str:
        """First group of a pattern in the attributes, or the empty string."""
        found = re.search(pattern, self.attrs)
        return found.group(1) if found else ""

    @property
    def op_name(self) -> str:
        """The path of jax primitives that made it."""
        return self.attribute(r'op_name="([^"]*)"')

    @property
    def called(self) -> list[str]:
        """Computations that it calls (not a loop's body, not a branch)."""
        names = [name for key in ("calls", "to_apply") for name in re.findall(key + r"=%?([\w.\-]+)", self.attrs)]
        for group in re.findall(r"called_computations=\{([^}]*)\}", self.attrs):
            names += re.findall(r"%?([\w.\-]+)", group)
        return names


Computation = dict[str, Instruction]


@functools.lru_cache(maxsize=1 << 16)
def _shapes(text: str) -> tuple[Shape, ...]:
    found = SHAPE.findall(text)
    return tuple(Shape(dtype, tuple(int(x) for x in dims.split(",") if x), layout) for dtype, dims, layout in found)


def parse_shapes(text: str) -> list[Shape]:
    """All arrays of a type, `(bf16[2,3]{1,0}, f32[])` say."""
    return list(_shapes(text))


@dataclasses.dataclass(frozen=True, slots=True)
class Module:
    """A parsed module."""

    computations: dict[str, Computation]
    entry: str
    frames: dict[int, str]  # stack frame id -> "file:line"

    def inside(self, instruction: Instruction) -> Iterator[tuple[str, Instruction]]:
        """(computation, instruction) of everything fused into an instruction, at any depth."""
        seen: set[str] = set()
        waiting = re.findall(r"calls=%?([\w.\-]+)", instruction.attrs)
        while waiting:
            name = waiting.pop()
            if name in seen or name not in self.computations:
                continue
            seen.add(name)
            for inner in self.computations[name].values():
                yield name, inner
                waiting += re.findall(r"calls=%?([\w.\-]+)", inner.attrs)

    def source(self, instruction: Instruction) -> str:
        """The line of code that made an instruction, where the compiler kept it."""
        frame = instruction.attribute(r"stack_frame_id=(\d+)")
        return self.frames.get(int(frame), "") if frame else ""


def parse(text: str) -> Module:
    """Read a module's text."""
    computations: dict[str, Computation] = {}
    entry, current, buffer = "", None, []

    def flush() -> None:
        instruction = _instruction("".join(buffer)) if buffer and current is not None else None
        buffer.clear()
        if instruction:
            computations[current][instruction.name] = instruction  # type: ignore[index]

    for line in text.splitlines(keepends=True):
        head = HEAD.match(line) if not line[:1].isspace() and not line.startswith("HloModule") else None
        if head:
            flush()
            current = head.group(2)
            computations[current] = {}
            entry = current if head.group(1) else entry
        elif line.rstrip() == "}":
            flush()
            current = None
        elif current is not None:
            if START.match(line):
                flush()
            buffer.append(line)
    return Module(computations, entry, _frames(text))


def _instruction(text: str) -> Instruction | None:
    start = START.match(text)
    if not start:
        return None
    rest = start.group(3)
    end = _closing(rest, 0) + 1 if rest[0] == "(" else rest.index(" ")
    kind, rest = rest[:end], rest[end:].lstrip()
    op = re.match(r"([\w\-]+)\(", rest)
    if not op:
        return None
    close = _closing(rest, op.end() - 1)
    inner = rest[op.end() : close]
    operands = (inner,) if op.group(1) == "constant" else tuple(re.findall(r"%([\w.\-]+)", inner))
    return Instruction(start.group(2), kind, op.group(1), operands, rest[close + 1 :], bool(start.group(1)))


def _closing(text: str, start: int) -> int:
    """Index of the parenthesis that closes the one at `start`."""
    depth = 0
    for found in re.finditer(r"[()]", text[start:]):
        depth += 1 if found.group() == "(" else -1
        if not depth:
            return start + found.start()
    return len(text) - 1


def _frames(text: str) -> dict[int, str]:
    """Resolve the tables FileNames, FileLocations and StackFrames on top of the text."""
    top = text[: text.find("\n%")] if "\nStackFrames" in text else ""
    files = dict(re.findall(r'^(\d+) "([^"]*)"$', top.partition("FunctionNames")[0], re.M))
    lines = re.findall(r"^(\d+) \{file_name_id=(\d+) function_name_id=\d+ line=(\d+)", top, re.M)
    location = {number: f"{files.get(file, '?')}:{line}" for number, file, line in lines}
    frames = re.findall(r"^(\d+) \{file_location_id=(\d+)", top, re.M)
    return {int(frame): location.get(place, "") for frame, place in frames}


def trip_count(module: Module, scope: Computation, loop: Instruction) -> int | None:
    """How often a while loop runs, read from its bounds; None where they are not constants."""
    known = loop.attribute(r'known_trip_count"?:?=?\{"?n"?:"?(\d+)')
    if known:
        return int(known)
    condition = module.computations[loop.attribute(r"condition=%?([\w.\-]+)")]
    body = module.computations[loop.attribute(r"body=%?([\w.\-]+)")]
    compare, inner, renamed = _compare(module, condition)
    if compare is None:
        return None
    limit = index = None
    for operand in compare.operands:
        name = renamed.get(operand, operand)
        value = _constant(condition, name)
        value = _constant(inner, name) if value is None else value
        if value is not None:
            limit = value
        elif name in condition and condition[name].op == "get-tuple-element":
            index = int(condition[name].attribute(r"index=(\d+)"))
    if limit is None or index is None:
        return None
    start = _tuple_constant(scope.get(loop.operands[0]), scope, index)
    step = _step(body, index)
    inclusive = compare.attribute(r"direction=(\w+)") in ("LE", "GE")
    return max(0, math.ceil(abs(limit - start + inclusive) / abs(step)))


def _compare(module: Module, condition: Computation) -> tuple[Instruction | None, Computation, dict[str, str]]:
    """The comparison that ends a condition, the computation it stands in, and its parameters' names outside."""
    root = next(i for i in condition.values() if i.is_root)
    if root.op != "fusion":
        return (root if root.op == "compare" else None), condition, {}
    inner = module.computations[root.called[0]]
    last = next(i for i in inner.values() if i.is_root)
    parameters = sorted(i.name for i in inner.values() if i.op == "parameter")
    return (last if last.op == "compare" else None), inner, dict(zip(parameters, root.operands))


def _constant(scope: Computation, name: str) -> int | None:
    """The value of a scalar constant, seen through copies and reshapes."""
    for _ in range(8):
        instruction = scope.get(name)
        if instruction is None:
            return None
        if instruction.op == "constant":
            text = instruction.operands[0].strip("{} ")
            return int(text) if re.fullmatch(r"-?\d+", text) else None
        if instruction.op not in ("copy", "bitcast", "convert", "broadcast", "reshape") or not instruction.operands:
            return None
        name = instruction.operands[0]
    return None


def _tuple_constant(made: Instruction | None, scope: Computation, index: int) -> int:
    """Where a loop counter starts; 0 where the text does not say."""
    if made is None or made.op != "tuple" or index >= len(made.operands):
        return 0
    return _constant(scope, made.operands[index]) or 0


def _step(body: Computation, index: int) -> int:
    """What a loop adds to its counter; 1 where the text does not say."""
    root = next((i for i in body.values() if i.is_root), None)
    if root is None or root.op != "tuple" or index >= len(root.operands):
        return 1
    added = body.get(root.operands[index])
    if added is None or added.op != "add":
        return 1
    return next((v for v in (_constant(body, operand) for operand in added.operands) if v), 1)
