"""Families over the integers: x = pi/2 + 2 pi k, n = 3k + 1, n = 1 (mod 3), all even integers.

In: two trees. Out: True, False, or None where a side is not such a family. A family is listed for small parameters and
each element is looked for in the other family, over a wider range of parameters.
"""

import dataclasses
import itertools
import re
from fractions import Fraction
from typing import Any

from mpmath import mp

from stratos_jax.grading.math_eval import Env, evaluate, same_number
from stratos_jax.grading.math_exact import Huge, Undefined, exact
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_tree import Node, has, symbols

PARAMETERS = frozenset("k n m l j t N K p q s".split())
UNDECLARED = frozenset("k n m l j N K".split())  # letters that are integers beside a period without being said to be
INNER, OUTER = 7, 45
DOMAINS = {"INTEGERS": None, "NATURALS": 1, "NONNEGATIVE_INTEGERS": 0}
NAMED = {"INTEGERS": (1, 0, None), "EVENS": (2, 0, None), "ODDS": (2, 1, None), "NATURALS": (1, 1, 0),
         "NONNEGATIVE_INTEGERS": (1, 0, 0)}  # fmt: skip
ALL_OF = (
    r"(?:[a-z] (?:is|are|must be) )?(?:all |any |every |a |the )?(?P<positive>positive )?(?:integers? |numbers? )?"
    r"(?:[a-z] )?(?:that are |which are )?"
)
MULTIPLES = re.compile(ALL_OF + r"(?:multiples? of|divisible by) \$?(\d+)")
POWERS = re.compile(ALL_OF + r"(?:(?:non-?negative )?integer )?powers? of (\d{1,3})")
PARITIES = re.compile(r"(?:all |any |every |the )?(?:positive (odd|even)|(odd|even) positive) (?:integers?|numbers?)")
PRIME = re.compile(r"(?:all )?(?:[a-z] is (?:a |any )?prime(?: number)?|[a-z] prime|primes? [a-z])")
SQUARES = re.compile(ALL_OF + r"(?:a )?perfect (square|cube)s?")


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """A value with one integer parameter; `least` is where the parameter starts, None for all integers."""

    value: Node
    parameter: str | None
    least: int | None
    declared: bool  # the text says that the parameter is an integer


def number(value: int) -> Node:
    return Node("num", value=(Fraction(value), None))


def named_family(text: str) -> Node | None:
    """Multiples of 3, numbers divisible by 3; powers of 2; perfect squares."""
    text = " ".join(text.lower().strip(" .").split())
    index = Node("sym", value="_k")
    found = MULTIPLES.fullmatch(text)
    if found and found["positive"]:
        least = Node("rel", (index, number(1)), (">=",))
        return Node("given", (Node("mul", (number(int(found.group(2))), index)), least))
    if found:
        return Node("cong", (Node("missing"), number(0), number(int(found.group(2)))))
    least = Node("rel", (index, number(0)), (">=",))
    if found := PARITIES.fullmatch(text):
        return Node("given", (_progression(number(1 if "odd" in found.groups() else 2), number(2)), least))
    if (found := POWERS.fullmatch(text)) and not found["positive"]:
        return Node("given", (Node("pow", (number(int(found.group(2))), index)), least))
    if found := SQUARES.fullmatch(text):
        least = Node("rel", (index, number(1 if found["positive"] else 0)), (">=",))
        return Node("given", (Node("pow", (index, number(2 if found.group(2) == "square" else 3))), least))
    if PRIME.fullmatch(text):
        return Node("special", value="PRIMES")
    return None


def families(node: Node) -> list[Family] | None:
    """The families whose union a tree describes; None if it describes something else."""
    conditions: tuple[Node, ...] = ()
    if node.op == "given":
        node, conditions = node.args[0], node.args[1:]
    if node.op == "builder":
        node, conditions = node.args[0], (*conditions, *node.args[1:])
        if node.op == "rel" and node.value == ("in",):
            node, conditions = node.args[0], (node, *conditions)
    listed = _listed(node) if not conditions else None
    if listed:
        return [listed]
    if node.op == "set" and len(node.args) == 1:
        node = node.args[0]
    if (
        node.op == "list"
        and node.args[-1].op == "rel"
        and (node.args[-1].value == ("in",) or _starts(node.args[-1]) and node.args[0].op != "rel")
    ):
        conditions = (*conditions, node.args[-1])
        node = node.args[0] if len(node.args) == 2 else Node("list", node.args[:-1], node.value)
    if not all(_about_parameter(c) for c in conditions):
        return None
    if node.op == "union":
        parts = [families(Node("given", (arg, *conditions)) if conditions else arg) for arg in node.args]
        return None if any(p is None for p in parts) else [f for p in parts if p for f in p]
    found = []
    for item in node.args if node.op == "list" else (node,):
        for variant in (v for residue in _residues(item) for v in expand_signs(residue)):
            family = _family(variant, conditions)
            if family is None:
                return None
            found.append(family)
    return found


def _starts(condition: Node) -> bool:
    """The k >= 0 of 2k + 1, k >= 0."""
    return (
        condition.value in ((">=",), (">",)) and condition.args[0].op == "sym" and condition.args[0].value in PARAMETERS
    )


def _about_parameter(condition: Node) -> bool:
    """It says which integers a parameter runs over, and nothing that would cut the family short."""
    if condition.op != "rel":
        return condition.op in ("words", "sym")
    if condition.value == ("in",):
        return condition.args[1].op == "special"
    return condition.value in ((">=",), (">",)) and condition.args[0].op == "sym" and not symbols(condition.args[1])


def _residues(node: Node) -> list[Node]:
    """n = 1, 5 (mod 6) as two congruences."""
    if node.op == "cong" and node.args[1].op == "set":
        return [Node("cong", (node.args[0], residue, node.args[2])) for residue in node.args[1].args]
    return [node]


def _family(node: Node, conditions: tuple[Node, ...]) -> Family | None:
    if node.op == "special" and node.value in NAMED:
        step, start, least = NAMED[node.value]
        return Family(_progression(number(start), number(step)), "_k", least, True)
    if node.op == "cong":
        if node.args[1].op == "set" or node.args[0].op not in ("sym", "missing"):
            return None
        return Family(_progression(node.args[1], node.args[2]), "_k", None, True)
    if node.op == "rel" and node.value in (("=",), ("in",)) and node.args[0].op in ("sym", "missing"):
        if node.value == ("in",) and node.args[1].op == "special" and node.args[1].value in NAMED:
            return _family(node.args[1], ())
        if node.value == ("in",) and node.args[1].op not in ("set", "builder", "tuple"):
            return None
        if node.value == ("in",):
            inner = families(node.args[1])
            return inner[0] if inner and len(inner) == 1 else None
        label, node = node.args
        if label.op == "sym" and label.value in symbols(node):
            return None
    if node.op in ("rel", "list", "set", "special", "words", "union", "builder", "cases", "given"):
        return None
    free = symbols(node)
    for name in sorted(free):
        domain = _domain(name, conditions)
        if domain is not None:
            return Family(node, name, domain[0], True)
    if any("integer" in str(c.value) for c in conditions if c.op == "words") and len(free) == 1:
        return Family(node, next(iter(free)), None, True)
    if len(free) == 1 and free <= PARAMETERS and not conditions:
        return Family(node, next(iter(free)), None, False)
    return Family(node, None, None, False) if not free else None


def _progression(start: Node, step: Node) -> Node:
    return Node("add", (start, Node("mul", (step, Node("sym", value="_k")))))


def _listed(node: Node) -> Family | None:
    """2, 3, 4, ... or ..., -3, 0, 3, ...: a progression without end, of at least three members or two and a set."""
    args = node.args
    if node.op == "rel" and node.value in (("=",), ("in",)) and node.args[0].op == "sym":
        return _listed(node.args[1])
    if node.op == "list" and args[0].op == "rel" and args[0].value == ("=",) and args[0].args[0].op == "sym":
        args = (args[0].args[1], *args[1:])
    if node.op not in ("list", "set") or args[-1].op != "ldots":
        return None
    both = args[0].op == "ldots"
    values = [exact(a) if a.op != "ldots" else None for a in args[both:-1]]
    known = [v for v in values if v is not None]
    if len(known) < 3 or len(known) != len(values):
        return None
    if not both and len(known) > 3 and known[0] and len({b / a if a else None for a, b in zip(known, known[1:])}) == 1:
        power = Node("pow", (Node("num", value=(known[1] / known[0], None)), Node("sym", value="_k")))
        return Family(Node("mul", (Node("num", value=(known[0], None)), power)), "_k", 0, True)
    if len({b - a for a, b in zip(known, known[1:])}) != 1:
        return None
    start, step = (Node("num", value=(v, None)) for v in (known[0], known[1] - known[0]))
    return Family(_progression(start, step), "_k", None if both else 0, True) if known[1] != known[0] else None


def _half_line(node: Node) -> Family | None:
    """The n >= 2 that stands for the integers from 2 on, where the other side lists integers."""
    if node.op == "given" and all(c.op in ("words", "sym") or c.value == ("in",) for c in node.args[1:]):
        node = node.args[0]
    if node.op != "rel" or len(node.args) != 2 or node.value not in ((">=",), (">",), ("<=",), ("<",)):
        return None
    name, bound = node.args if node.args[0].op == "sym" else node.args[::-1]
    value = exact(bound) if not symbols(bound) else None
    upward = (node.value[0][0] == ">") == (name is node.args[0])
    if name.op != "sym" or name.value not in PARAMETERS | {"a", "b", "c", "d"} or not upward or value is None:
        return None
    if value.denominator != 1:
        return None
    return Family(name, name.value, int(value) + ("=" not in node.value[0]), True)


def _domain(name: str, conditions: tuple[Node, ...]) -> tuple[int | None] | None:
    """(least,) if the conditions say that `name` is an integer; None if none does."""
    integer, least = False, None

    def start_at(value: int | None) -> None:
        nonlocal least
        if value is not None:
            least = value if least is None else max(least, value)

    for condition in conditions:
        if condition.op == "rel" and condition.value == ("in",) and Node("sym", value=name) in (
            condition.args[0], *condition.args[0].args
        ):  # fmt: skip
            if condition.args[1].op == "special" and condition.args[1].value in DOMAINS:
                integer = True
                start_at(DOMAINS[condition.args[1].value])
        if (
            condition.op == "rel"
            and condition.value in ((">=",), (">",))
            and condition.args[0] == Node("sym", value=name)
        ):
            bound = exact(condition.args[1])
            if bound is not None and bound.denominator == 1 and name in PARAMETERS | {"_k"}:
                integer = True
                start_at(int(bound) + (condition.value == (">",)))
        if condition.op == "words" and "integer" in condition.value and "real" not in condition.value:
            words = condition.value
            integer = True
            start_at(1 if "positive" in words else 0 if "negative" in words else None)
    return (least,) if integer else None


def expand_signs(node: Node) -> list[Node]:
    """The two readings of +-, all signs together; one tree if there is no such sign."""
    if not has(node, "pm"):
        return [node]
    return [_signed(node, plus) for plus in (True, False)]


def _signed(node: Node, plus: bool) -> Node:
    args = tuple(_signed(arg, plus) for arg in node.args)
    if node.op != "pm":
        return Node(node.op, args, node.value) if node.args else node
    positive = plus == (node.value == "pm")
    last = args[-1]
    if not positive:
        tuples = last.op == "tuple"
        last = (
            Node("tuple", tuple(Node("neg", (a,)) for a in last.args), last.value) if tuples else Node("neg", (last,))
        )
    return last if len(args) == 1 else Node("add", (args[0], last))


def independent_signs(node: Node) -> list[Node]:
    """(+-1, +-2) as four points: the signs of two coordinates have nothing to do with each other."""
    if node.op != "tuple" or has(node, "mp") or sum(has(a, "pm") for a in node.args) < 2:
        return []
    rows = itertools.product(*(expand_signs(arg) for arg in node.args))
    return [Node("tuple", row, node.value) for row in rows]


def same_families(gold: Node, answer: Node) -> bool | None:
    """Whether two trees describe the same union of families; None if that is not what they are."""
    left, right = families(gold), families(answer)
    names = [_unknowns(node) for node in (gold, answer)]
    if left and right and names[0] and names[1] and names[0] != names[1]:
        return False  # x = k pi is no y = k pi
    if left is None and right is not None and all(f.declared for f in right):
        left = [line] if (line := _half_line(gold)) else None
    if right is None and left is not None and all(f.declared for f in left):
        right = [line] if (line := _half_line(answer)) else None
    if left is None or right is None:
        return None
    left, right = _adopt_domain(left, right), _adopt_domain(right, left)
    counts = [sum(f.parameter is not None for f in members) for members in (left, right)]
    if not counts[0] or not counts[1]:  # without end against finite
        return False if any(f.parameter and _certain(f) for f in (*left, *right)) else None
    listed = max(counts) > 1 and min(counts) == min(len(left), len(right))
    if not any(map(_certain, left)) and not ((listed or any(f.declared for f in right)) and _stepped(left)):
        return None
    try:
        return _contains(left, right) and _contains(right, left)
    except (Unreadable, Undefined, Huge, ZeroDivisionError, OverflowError):
        return None


def _unknowns(node: Node) -> frozenset[str]:
    """The names of coordinates that a family is said to be the values of."""
    if node.op == "rel" and node.value == ("=",) and node.args[0].op == "sym":
        return frozenset((node.args[0].value,)) & {"x", "y", "z", "theta"}
    if node.op in ("list", "given", "union", "rel"):
        return frozenset().union(*map(_unknowns, node.args))
    return frozenset()


def _adopt_domain(members: list[Family], others: list[Family]) -> list[Family]:
    """Where only the other side says from where its parameter runs, the same is meant."""
    starts = {f.least for f in others if f.declared}
    named = all(f.parameter == "_k" and f.least == 0 and f.value.op == "pow" for f in members)
    if len(starts) != 1 or any(_certain(f) for f in members) and not (named and starts == {1}):
        return members  # perfect squares: whether 0 is one of them is for the other side to say
    return [dataclasses.replace(f, least=next(iter(starts))) for f in members]


def _certain(family: Family) -> bool:
    """Declared to run over the integers, or linear with a period in pi or degrees, which says the same."""
    return family.declared or (family.parameter in UNDECLARED and _periodic(family.value) and _linear(family))


def _periodic(node: Node) -> bool:
    return (
        node.op == "unit"
        and node.value == "degree"
        or node == Node("sym", value="pi")
        or any(map(_periodic, node.args))
    )


def _linear(family: Family) -> bool:
    """Equal steps, not all of them zero, in every part."""
    rows = [values for _, values in _elements(family, 3)]
    if _alternates(family.value):  # (-1)^k: every second member
        rows = rows[::2]
    steps = [[b - a for a, b in zip(row, after)] for row, after in zip(rows, rows[1:])]
    return all(same_number(a, b) for step in steps for a, b in zip(steps[0], step)) and any(
        abs(s) > 1e-9 for s in steps[0]
    )


def _alternates(node: Node) -> bool:
    if node.op == "pow" and symbols(node.args[1]) and not symbols(node.args[0]):
        return exact(node.args[0]) == -1
    return any(map(_alternates, node.args))


def _stepped(members: list[Family]) -> bool:
    """A linear family with a step of two or more, which is no expression in a given k."""
    for family in members:
        values = [v[1][0] for v in _elements(family, 3)]
        steps = [b - a for a, b in zip(values, values[1:])]
        if not steps or any(abs(s - steps[0]) > 1e-20 for s in steps) or abs(steps[0]) < 2:
            return False
    return True


def _elements(family: Family, reach: int) -> list[tuple[str, list[Any]]]:
    """Brackets and values of each element: one number, or the numbers of a tuple or an interval."""
    start = -reach if family.least is None else family.least
    span = range(start, reach + 1) if family.parameter else range(1)
    parts = family.value.args if family.value.op == "tuple" else (family.value,)
    brackets = family.value.value if family.value.op == "tuple" else ""
    found = []
    for index in span:
        env = Env({family.parameter: mp.mpf(index)} if family.parameter else {})
        found.append((brackets, [evaluate(part, env) for part in parts]))
    return found


def _contains(outer: list[Family], inner: list[Family]) -> bool:
    pool = list(itertools.chain.from_iterable(_elements(f, OUTER) for f in outer))
    keys = {_key(element) for element in pool}
    return all(_key(element) in keys for f in inner for element in _elements(f, INNER))


def _key(element: tuple[str, list[Any]]) -> tuple:
    return element[0], tuple(mp.nstr(v if abs(v) > 1e-20 else mp.mpf(0), 18) for v in element[1])
