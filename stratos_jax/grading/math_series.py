"""Sums and products with dots: 1 + 2 + ... + n as a sum with a bound.

In: the terms before the dots and the one behind them. Out: a `sum` or `prod` node. The last term, as a function of one
of its symbols, must give the terms before the dots, one after another.
"""

from fractions import Fraction

from mpmath import mp

from stratos_jax.grading.math_eval import DIGITS, Env, evaluate, opaque, same_number
from stratos_jax.grading.math_exact import Huge, Undefined, exact
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_tree import Node, replace, symbols

INDEX = "_j"
STARTS = (0, 1, 2, 3)
ERRORS = (Undefined, Huge, ZeroDivisionError, OverflowError, ValueError)


def series(first: list[Node], last: Node, op: str) -> Node:
    """`first[0] + first[1] + ... + last`."""
    if len(first) < 2:
        raise Unreadable("series")
    if not any(symbols(node) for node in (*first, last)):
        try:
            return _progression(first, last, op)
        except Unreadable:
            pass
    for name in sorted(symbols(last)):
        for start in STARTS:
            if all(_same(replace(last, name, number(start + i)), term) for i, term in enumerate(first)):
                return Node(
                    op, (replace(last, name, Node("sym", value=INDEX)), number(start), Node("sym", value=name)), INDEX
                )
    for end in sorted(_whole_numbers(last)):  # 1 + x + ... + x^8
        body = _with_index(last, end)
        for start in STARTS:
            if end > start and all(
                _same(replace(body, INDEX, number(start + i)), term) for i, term in enumerate(first)
            ):
                return Node(op, (body, number(start), number(end)), INDEX)
    raise Unreadable("series")


def _whole_numbers(node: Node) -> set[Fraction]:
    own = {node.value[0]} if node.op == "num" and node.value[0].denominator == 1 and node.value[0] > 2 else set()
    return own.union(*map(_whole_numbers, node.args))


def _with_index(node: Node, number: Fraction) -> Node:
    """The number, and what stands a step or two beside it, as a function of the index."""
    if node.op == "num" and (node.value[0] == number or number > 9 and abs(node.value[0] - number) <= 3):
        shift = Node("num", value=(abs(node.value[0] - number), None))
        index = Node("sym", value=INDEX)
        if node.value[0] == number:
            return index
        return Node("add", (index, shift if node.value[0] > number else Node("neg", (shift,))))
    return Node(node.op, tuple(_with_index(arg, number) for arg in node.args), node.value) if node.args else node


def number(value: int | Fraction) -> Node:
    return Node("num", value=(Fraction(value), None))


def _progression(first: list[Node], last: Node, op: str) -> Node:
    """1 + 2 + ... + 100, 1 + 3 + 9 + ... + 729."""
    values = [exact(node) for node in (*first, last)]
    known = [v for v in values if v is not None]
    if len(known) != len(values):
        raise Unreadable("series")
    *head, end = known
    step = head[1] - head[0]
    if step and all(b - a == step for a, b in zip(head, head[1:])) and (len(head) > 2 or abs(step) == 1 or op == "sum"):
        count = (end - head[0]) / step
        body = Node("add", (number(head[0]), Node("mul", (number(step), Node("sym", value=INDEX)))))
        if count.denominator == 1 and count > 0 and not _geometric(head, end):
            return Node(op, (body, number(0), number(count)), INDEX)
    if _geometric(head, end):
        ratio, count, value = head[1] / head[0], 0, head[0]
        while value != end:
            value, count = value * ratio, count + 1
        body = Node("mul", (number(head[0]), Node("pow", (number(ratio), Node("sym", value=INDEX)))))
        return Node(op, (body, number(0), number(count)), INDEX)
    raise Unreadable("series")


def _geometric(head: list[Fraction], end: Fraction) -> bool:
    if (
        len(head) < 3
        or 0 in head
        or head[0] == head[1]
        or any(b * head[0] != a * head[1] for a, b in zip(head, head[1:]))
    ):
        return False
    value, ratio = head[-1], head[1] / head[0]
    for _ in range(400):
        value *= ratio
        if value == end:
            return True
    return False


def _same(left: Node, right: Node) -> bool:
    """Equal at three points."""
    names = sorted(symbols(left) | symbols(right))
    with mp.workdps(DIGITS):
        for point in range(3 if names else 1):
            env = Env({name: opaque(f"{name} {point}", []) for name in names})
            try:
                if not same_number(evaluate(left, env), evaluate(right, env)):
                    return False
            except (*ERRORS, TypeError):
                return False
    return True
