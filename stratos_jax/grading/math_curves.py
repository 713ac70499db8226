"""Relations of several variables: equations of one curve, inequalities that say the same.

In: two relations. Out: whether they hold at the same points, by ratios and roots at sampled places.
"""

from fractions import Fraction
from typing import Any

from mpmath import mp

from stratos_jax.grading.math_eval import Env, Matrix, evaluate, same_number
from stratos_jax.grading.math_exact import Huge, Undefined
from stratos_jax.grading.math_same import Context, real_points, same_value
from stratos_jax.grading.math_tree import Node, symbols

ERRORS = (Undefined, Huge, ZeroDivisionError, ValueError, OverflowError)


def real(node: Node, env: Env) -> Any:
    value = evaluate(node, env)
    if isinstance(value, Matrix) or abs(mp.im(value)) > 1e-25:
        raise Undefined("not real")
    return mp.re(value)


def same_inequality(gold: Node, answer: Node, context: Context) -> bool | None:
    """a + b > c against c - a < b; chains side by side."""
    left, right = _ascending(gold), _ascending(answer)
    if left is None or right is None or left.value != right.value:
        return None if left is None or right is None else False
    if len(left.args) == 2:
        ratio = constant_ratio(difference(left), difference(right))
        return ratio is not None and ratio > 0
    return all(same_value(a, b, context) for a, b in zip(left.args, right.args))


def _ascending(node: Node) -> Node | None:
    if node.op != "rel" or not set(node.value) <= {"<", ">", "<=", ">="}:
        return None
    if set(node.value) <= {"<", "<="}:
        return node
    if set(node.value) <= {">", ">="}:
        return Node("rel", node.args[::-1], tuple(op.replace(">", "<") for op in node.value[::-1]))
    return None


def difference(node: Node) -> Node:
    return Node("add", (node.args[0], Node("neg", (node.args[1],))))


def constant_ratio(gold: Node, answer: Node) -> Any:
    """The c with answer = c * gold at every sampled point; None if there is none."""
    names = sorted(symbols(gold) | symbols(answer))
    ratios = []
    for values in real_points(names):
        try:
            left, right = real(gold, Env(values)), real(answer, Env(values))
        except ERRORS:
            continue
        if abs(left) < 1e-12:
            continue
        ratios.append(right / left)
    if len(ratios) < 4 or not all(same_number(r, ratios[0]) for r in ratios) or abs(ratios[0]) < 1e-15:
        return None
    return ratios[0]


def same_equation(gold: Node, answer: Node) -> bool:
    """The same curve: one side is a multiple of the other, or each vanishes where the other does."""
    left, right = difference(gold), difference(answer)
    names = sorted(symbols(left))
    if names != sorted(symbols(right)) or not names:
        return False
    if constant_ratio(left, right) is not None:
        return True
    if len(names) < 2:
        return False
    return _vanishes_on(right, left, names) and _vanishes_on(left, right, names)


def _vanishes_on(other: Node, curve: Node, names: list[str]) -> bool:
    """Whether `other` is zero at real points that are found on `curve`."""
    found = 0
    for name in names[:2]:
        for values in list(real_points([n for n in names if n != name]))[:6]:
            for root in roots(curve, name, values):
                try:
                    if abs(real(other, Env({**values, name: root}))) > 1e-15:
                        return False
                except ERRORS:
                    continue
                found += 1
    return found >= 3


def roots(curve: Node, name: str, values: dict[str, Any]) -> list[Any]:
    def at(x: Any) -> Any:
        return real(curve, Env({**values, name: x}))

    grid: list[tuple[Any, Any]] = []
    found = []
    for step in range(-56, 57, 2):
        x = mp.sinh(mp.mpf(step) / 8) + mp.mpf("0.00137")
        try:
            grid.append((x, at(x)))
        except ERRORS:
            continue
    for (a, fa), (b, fb) in zip(grid, grid[1:]):
        if fa * fb < 0:
            try:
                root = mp.findroot(at, (a, b), solver="anderson", tol=1e-30, maxsteps=60)
                if abs(at(root)) < 1e-18:
                    found.append(root)
            except ERRORS:
                continue
    return found


def one_curve(branches: list[Node], whole: list[Node]) -> bool | None:
    """y = 3 + sqrt x and y = 3 - sqrt x, against (y - 3)^2 = x."""
    equations = [*branches, *whole]
    if (
        len(branches) < 2
        or len(whole) != 1
        or any(n.op != "rel" or n.value != ("=",) or len(n.args) != 2 for n in equations)
    ):
        return None
    names = {symbols(n) for n in equations}
    if len(names) != 1 or len(next(iter(names))) < 2 or len({n.args[0] for n in branches}) != 1:
        return None
    product = Node("add", (branches[0].args[0], Node("neg", (branches[0].args[1],))))
    for node in branches[1:]:
        product = Node("mul", (product, Node("add", (node.args[0], Node("neg", (node.args[1],))))))
    zero = Node("num", value=(Fraction(0), None))
    return same_equation(Node("rel", (product, zero), ("=",)), whole[0])
