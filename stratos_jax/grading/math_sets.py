"""Sets of reals: intervals, inequalities, unions, set-builders, finite sets; and relations of several variables.

In: two trees. Out: True, False, or None where a tree is not a set of reals. A set is a membership test with its
critical points (endpoints and elements); two sets are equal if the tests agree on the critical points of both, between
them and beyond them, which decides open against closed as well.
"""

import dataclasses
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

from mpmath import mp

from stratos_jax.grading.math_curves import ERRORS, difference, real, roots
from stratos_jax.grading.math_eval import ORDER, Env, holds, same_number
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_same import real_points
from stratos_jax.grading.math_tree import Node, symbols

ORDERED = frozenset(("<", ">", "<=", ">=", "!="))
PROBES = (
    -97.3,
    -31.7,
    -7.3,
    -2.9,
    -1.1,
    -0.6,
    -0.23,
    0.0,
    0.19,
    0.55,
    1.2,
    1.9,
    3.3,
    8.1,
    29.9,
    103.7,
    -3,
    -2,
    -1,
    1,
    2,
    3,
)
HALF_LINES = {"POSITIVE_REALS": ">", "NEGATIVE_REALS": "<", "NONNEGATIVE_REALS": ">=", "NONPOSITIVE_REALS": "<="}
WHOLE = {"INTEGERS": None, "NATURALS": 1, "NONNEGATIVE_INTEGERS": 0}


@dataclasses.dataclass(frozen=True, slots=True)
class Reals:
    """A set of reals whose bounds may hold other symbols."""

    name: str | None  # of the variable, if it was named
    member: Callable[[Any, Env], bool]
    bounds: tuple[Node, ...]  # critical points
    curves: tuple[tuple[Node, str], ...] = ()  # expressions whose zeros are critical points


def as_reals(node: Node) -> Reals | None:
    """The set that a tree describes, or None."""
    if node.op == "paren":
        return as_reals(node.args[0])
    if node.op == "tuple" and len(node.args) == 2:
        return _interval(node)
    if node.op == "special":
        return _special(node.value)
    if node.op == "set":
        return _finite(node)
    if node.op in ("union", "inter", "diff"):
        return _combine(node.op, [_operand(arg) for arg in node.args])
    if node.op == "rel":
        return _relation(node)
    if node.op == "cong":
        return _congruent(node)
    if node.op == "given":
        return _all_of(list(node.args))
    if node.op == "builder":
        return _builder(node)
    if node.op == "list":
        return _list(node)
    return None


def _operand(node: Node) -> Reals | None:
    return as_reals(node)


def _interval(node: Node) -> Reals | None:
    low, high = node.args
    if any(n.op in ("tuple", "rel", "words", "list", "set") for n in node.args):
        return None
    left, right = node.value

    def member(x: Any, env: Env) -> bool:
        above = low_open = _minus_infinity(low)
        if not low_open:
            bound = real(low, env)
            above = x > bound and not same_number(x, bound) or (left == "[" and same_number(x, bound))
        if not above:
            return False
        if high.op == "infty":
            return True
        bound = real(high, env)
        return x < bound and not same_number(x, bound) or (right == "]" and same_number(x, bound))

    return Reals(None, member, tuple(n for n in node.args if not _infinite(n)))


def _minus_infinity(node: Node) -> bool:
    return node.op == "neg" and node.args[0].op == "infty"


def _infinite(node: Node) -> bool:
    return node.op == "infty" or _minus_infinity(node)


def _special(name: str) -> Reals | None:
    zero = Node("num", value=(Fraction(0), None))
    if name == "REALS":
        return Reals(None, lambda x, env: True, ())
    if name == "EMPTY":
        return Reals(None, lambda x, env: False, ())
    if name in HALF_LINES:
        op = HALF_LINES[name]
        return Reals(None, lambda x, env: bool(ORDER[op](x, mp.mpf(0))), (zero,))
    if name in WHOLE:
        least = WHOLE[name]
        ends = tuple(Node("num", value=(Fraction(n), None)) for n in range(-20, 61))
        return Reals(
            None, lambda x, env: same_number(x, mp.nint(x)) and (least is None or mp.nint(x) >= least), ends
        )  # fmt: skip
    return None


def _congruent(node: Node) -> Reals | None:
    """n = 1 (mod 2), n is odd."""
    value, residue, modulus = node.args
    if value.op != "sym" or symbols(residue) or symbols(modulus) or residue.op == "set":
        return None
    ends = tuple(Node("num", value=(Fraction(n), None)) for n in range(-20, 61))

    def member(x: Any, env: Env) -> bool:
        return same_number(x, mp.nint(x)) and (mp.nint(x) - real(residue, env)) % real(modulus, env) == 0

    return Reals(value.value, member, ends)


def _finite(node: Node) -> Reals | None:
    if any(n.op in ("tuple", "rel", "words", "list", "set", "special", "ldots") for n in node.args):
        return None
    return Reals(None, lambda x, env: any(same_number(x, real(n, env)) for n in node.args), node.args)


def _combine(op: str, parts: list[Reals | None]) -> Reals | None:
    known = [p for p in parts if p is not None]
    names = {p.name for p in known if p.name}
    if len(known) != len(parts) or len(names) > 1:
        return None
    first, rest = known[0], known[1:]
    tests: dict[str, Callable[[Any, Env], bool]] = {
        "union": lambda x, env: any(p.member(x, env) for p in known),
        "inter": lambda x, env: all(p.member(x, env) for p in known),
        "diff": lambda x, env: first.member(x, env) and not any(p.member(x, env) for p in rest),
    }
    bounds = tuple(b for p in known for b in p.bounds)
    return Reals(next(iter(names), None), tests[op], bounds, tuple(c for p in known for c in p.curves))


def _relation(node: Node, variable: str | None = None) -> Reals | None:
    if node.value in (("in",), ("notin",)):
        inner = as_reals(node.args[1])
        if inner is None or node.args[0].op != "sym":
            return None
        if node.value == ("in",):
            return Reals(node.args[0].value, inner.member, inner.bounds)
        return Reals(node.args[0].value, lambda x, env: not inner.member(x, env), inner.bounds)
    if not set(node.value) <= ORDERED and node.value != ("=",):
        return None
    calls = {arg for arg in node.args if arg.op == "call"}
    if len(calls) == 1:  # the range of f(x) is a set of reals as well
        node = Node("rel", tuple(Node("sym", value="_f") if a in calls else a for a in node.args), node.value)
    if any(arg.op in ("missing", "words", "tuple", "special", "set") for arg in node.args):
        return None
    node = Node("rel", tuple(Node("num", value=(Fraction(10**9), None)) if a.op == "infty" else
                             Node("num", value=(Fraction(-(10**9)), None)) if _minus_infinity(a) else a
                             for a in node.args), node.value)  # fmt: skip
    name = variable or _variable(node)
    if name is None:
        return None

    def member(x: Any, env: Env) -> bool:
        return holds(node, dataclasses.replace(env, values={**env.values, name: x}))

    shown = None if name == "_f" else name
    if all(arg == Node("sym", value=name) or name not in symbols(arg) for arg in node.args):
        return Reals(shown, member, tuple(arg for arg in node.args if name not in symbols(arg)))
    curves = tuple((difference(Node("rel", pair)), name) for pair in zip(node.args, node.args[1:]))
    return Reals(shown, member, (), curves)


def _variable(node: Node) -> str | None:
    names = symbols(node)
    if len(names) == 1:
        return next(iter(names))
    alone = [arg.value for arg in node.args if arg.op == "sym" and arg.value in names]
    if len(names) > 1 and len(alone) == 1 and len(node.args) == 3:
        middle = node.args[1]
        return middle.value if middle.op == "sym" else None
    return None


def _all_of(nodes: list[Node]) -> Reals | None:
    """A set under conditions that are themselves about its variable."""
    parts = [as_reals(node) for node in nodes]
    if parts[0] is None:
        return None
    return _combine("inter", parts)


def _builder(node: Node) -> Reals | None:
    head, conditions = node.args[0], list(node.args[1:])
    if head.op == "rel" and head.value == ("in",):
        conditions.insert(0, head)
        head = head.args[0]
    if head.op != "sym":
        return None
    found = _combine("inter", [as_reals(c) for c in conditions]) if conditions else None
    return dataclasses.replace(found, name=None) if found and found.name in (head.value, None) else None


def _list(node: Node) -> Reals | None:
    head = node.args[0]
    if head.op == "rel" and head.value == ("!=",) and all(not symbols(a) and a.op != "rel" for a in node.args[1:]):
        node = Node("list", (head, *(Node("rel", (head.args[0], a), ("!=",)) for a in node.args[1:])), "and")
    parts = [as_reals(arg) for arg in node.args]
    if any(arg.op not in ("rel", "union", "tuple", "special", "set") for arg in node.args):
        return None
    if not any(arg.op in ("rel", "union") for arg in node.args):
        return None
    if all(arg.op == "rel" and arg.value == ("=",) for arg in node.args):
        return None
    if node.value == "or":
        return _combine("union", parts)
    both = _combine("inter", parts)
    if (
        node.value == "and"
        or both is None
        or any(True for env in _environments(both) for x in _points([both], env) if _inside(both, x, env))
    ):
        return both
    return _combine("union", parts)  # "x < 1, x > 10" means either


def _inside(reals: Reals, x: Any, env: Env) -> bool:
    try:
        return bool(reals.member(x, env))
    except ERRORS:
        return False


def _environments(*sets: Reals) -> Iterator[Env]:
    names = sorted(_parameters(*sets))
    for values in real_points(names):
        yield Env(values)
        if not names:
            return


def _parameters(*sets: Reals) -> frozenset[str]:
    return frozenset().union(
        *(symbols(b) for s in sets for b in s.bounds), *(symbols(c) - {name} for s in sets for c, name in s.curves)
    )


def _bounded_below_by_symbols(node: Node) -> Reals | None:
    """x > a/2, beside an interval that says which of the two letters is the variable."""
    if node.op != "rel" or len(node.args) != 2 or not set(node.value) <= ORDERED:
        return None
    alone = [arg.value for arg in node.args if arg.op == "sym" and arg.value in ("x", "y", "z", "t")]
    return _relation(node, alone[0]) if len(alone) == 1 else None


def _points(sets: list[Reals], env: Env) -> list[Any]:
    critical = [root for s in sets for curve, name in s.curves for root in roots(curve, name, dict(env.values))]
    for bound in (b for s in sets for b in s.bounds):
        try:
            critical.append(real(bound, env))
        except ERRORS:
            continue
    critical = sorted(critical)
    between = [(a + b) / 2 for a, b in zip(critical, critical[1:])]
    edges = [critical[0] - 1, critical[-1] + 1] if critical else []
    return critical + between + edges + [mp.mpf(p) for p in PROBES]


def same_reals(gold: Node, answer: Node, integers: bool = False) -> bool | None:
    """Whether two trees describe the same set of reals, or of integers; None if one of them describes none."""
    try:
        left, right = as_reals(gold), as_reals(answer)
        left = left or (_bounded_below_by_symbols(gold) if right and not right.name else None)
        right = right or (_bounded_below_by_symbols(answer) if left and not left.name else None)
        if left is None or right is None:
            return None
        if left.name and right.name and left.name != right.name:
            return False
        if integers and left.name == right.name and left.name in ("k", "n", "m", "N") and not _parameters(left, right):
            whole = [mp.mpf(n) for n in range(-60, 201)]
            return all(_inside(left, x, Env({})) == _inside(right, x, Env({})) for x in whole)
        for env in _environments(left, right):
            if any(_inside(left, x, env) != _inside(right, x, env) for x in _points([left, right], env)):
                return False
        return True
    except Unreadable:
        return None
