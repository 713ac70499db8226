"""The largest arrays of a compiled program, with the line of code that makes them.

In: a parsed module. Out: rows of plain JSON. Arrays in on-chip or host memory do not count; arguments are not listed.
"""

from collections.abc import Mapping

from stratos_jax.plan.hlo import Module, trip_count
from stratos_jax.types import Json

GIB = 2**30

ALIASES = {"parameter", "get-tuple-element", "tuple", "bitcast", "while", "conditional", "constant", "call"}


def largest(module: Module, count: int = 5) -> tuple[Mapping[str, Json], ...]:
    """The largest results of single instructions, one row for each shape and place."""
    found: dict[tuple[str, str], tuple[float, str]] = {}
    fused = {
        name for scope in module.computations.values() for i in scope.values() if i.op == "fusion" for name in i.called
    }
    for name, scope in module.computations.items():
        if name in fused:
            continue
        for i in scope.values():
            if i.op in ALIASES or i.op.endswith(("-done", "-start")):
                continue
            for shape in i.shapes:
                if shape.in_hbm and shape.bytes >= 2**20:
                    text = f"{shape.dtype}[{','.join(map(str, shape.dims))}]"
                    found[(text, module.source(i))] = (shape.bytes, i.op_name)
    rows = sorted(found.items(), key=lambda row: -row[1][0])[:count]
    return tuple(
        {"gib": size / GIB, "shape": text, "source": source, "made_by": op} for (text, source), (size, op) in rows
    )


def saved_for_backward(module: Module, num_layers: int) -> float:
    """Bytes per device that the loop over layers stacks up for the backward pass.

    They are the arrays with a leading axis of all layers that a forward loop carries and did not get as an argument.
    """
    entry = module.computations[module.entry]
    given = {(s.dtype, s.dims) for i in entry.values() if i.op == "parameter" for s in i.shapes}
    most = 0.0
    for scope in module.computations.values():
        for i in scope.values():
            if i.op != "while" or "transpose" in i.op_name or trip_count(module, scope, i) != num_layers:
                continue
            stacked = [s for s in i.shapes if len(s.dims) >= 3 and s.dims[0] == num_layers and s.in_hbm]
            own = [s for s in stacked if (s.dtype, s.dims) not in given]
            most = max(most, sum(s.bytes for s in own))
    return most
