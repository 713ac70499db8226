"""Bounds on numbers too large to be written down: towers of powers, factorials of large numbers.

In: two trees without symbols. Out: whether they are surely different. A size `(height, low, high)` says that a value
lies between exp(exp(...exp(low))) and the same of `high`; sizes that do not overlap prove that two values differ.
Nothing here ever proves that two values are equal.
"""

from typing import Any

from mpmath import mp

from stratos_jax.grading.math_eval import Env, Matrix, evaluate
from stratos_jax.grading.math_exact import Huge, Undefined, exact
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_tree import Node

Size = tuple[int, Any, Any]
ROUNDING = mp.mpf(10) ** -20
ERRORS = (Undefined, Huge, Unreadable, ZeroDivisionError, OverflowError, ValueError, mp.NoConvergence)


def surely_different(gold: Node, answer: Node) -> bool:
    """Both sizes are known and do not overlap."""
    signs = [node.op == "neg" for node in (gold, answer)]
    bodies = [node.args[0] if node.op == "neg" else node for node in (gold, answer)]
    sizes = [size(node) for node in bodies]
    if sizes[0] is None or sizes[1] is None:
        return False
    if signs[0] != signs[1]:
        return all(s[0] > 0 or s[1] > 0 for s in sizes if s)
    return _apart(sizes[0], sizes[1]) or _apart(sizes[1], sizes[0])


def _apart(small: Size, large: Size) -> bool:
    """The first lies below the second as a whole."""
    (h, _, high), (k, low, _) = small, large
    while h < k and high > 1:
        h, high = h + 1, mp.log(high)
    while k < h:
        if low <= 0:
            return False
        k, low = k + 1, mp.log(low)
    if h < k:  # at most 1, against exp of something
        return low > 0
    return low - high > ROUNDING * max(1, abs(low))


def size(node: Node) -> Size | None:
    """Of a positive value; None where it is not known."""
    if node.op in ("paren", "approx"):
        return size(node.args[0])
    plain = _plain(node)
    if plain is not None:
        return (0, plain * (1 - ROUNDING), plain * (1 + ROUNDING)) if plain > 0 else None
    if node.op in ("pow", "mul"):
        left, right = (size(arg) for arg in node.args)
        if left is None or right is None:
            return None
        if node.op == "mul":
            return _times(left, right) if _past_one(left) and _past_one(right) else None
        log = _log(left)
        product = _times(right, log) if log is not None and _past_one(right) else None
        return _exp(product) if product else None
    if node.op == "fn" and node.value == "factorial":
        inner = size(node.args[0])
        if inner is None or not _past_one(inner):
            return None
        product, log = None, _log(inner)
        if inner[0] == 0:
            return (1, *(mp.loggamma(end + 1) for end in inner[1:])) if inner[1] > 100 else None
        product = _times(inner, log) if log is not None else None
        return (max(product[0], inner[0]) + 1, *_ends(inner, product)) if product else None  # exp(n) < n! < n^n
    return None


def _ends(low: Size, high: Size) -> tuple[Any, Any]:
    """The low end of one and the high end of the other, brought to the greater height."""
    (h, bottom, _), (k, _, top) = low, high
    while h < k:
        h, bottom = h + 1, mp.log(bottom) if bottom > 0 else -mp.inf
    while k < h:
        k, top = k + 1, mp.log(max(top, 1))
    return bottom, top


def _plain(node: Node) -> Any:
    """The value, where it is an ordinary real number."""
    try:
        value = exact(node)
        if value is not None:
            return mp.mpf(value.numerator) / value.denominator
        found = evaluate(node, Env({}))
    except ERRORS:
        return None
    if isinstance(found, Matrix) or mp.im(found) != 0 or not mp.isfinite(found):
        return None
    return mp.re(found)


def _past_one(value: Size) -> bool:
    return value[1] >= 1 or value[0] > 0 and value[1] >= 0


def _log(value: Size) -> Size | None:
    height, low, high = value
    if height:
        return height - 1, low, high
    return (0, mp.log(low), mp.log(high)) if low > 1 else None


def _exp(value: Size) -> Size:
    return value[0] + 1, value[1], value[2]


def _times(left: Size, right: Size) -> Size | None:
    if left[0] == right[0] == 0:
        return 0, left[1] * right[1], left[2] * right[2]
    logs = [_log(left), _log(right)]
    if logs[0] is None or logs[1] is None:
        return None
    tall, other = sorted((logs[0], logs[1]), key=lambda s: s[0], reverse=True)
    if tall[0] == 0:
        return 1, tall[1] + other[1], tall[2] + other[2]
    if other[0] < tall[0]:  # adds less than a factor e to the taller, and takes less away
        height, high = other[0], other[2]
        while height < tall[0]:
            height, high = height + 1, mp.log(max(high, 1))
        other = (height, -mp.inf, high)
    low = max(tall[1], other[1]) - 1
    return (tall[0] + 1, low, max(tall[2], other[2]) + 1) if low >= 0 else None
