"""Rational values of trees without symbols, and why a tree may have no value.

In: a `Node`. Out: a `Fraction`, or None where there is none that is cheap to find.
"""

from fractions import Fraction
from math import comb, factorial

from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_tree import Node, replace

MAX_TERMS = 5_000
MAX_BITS = 100_000  # of an exact number


class Undefined(Exception):
    """No value at this point: a pole, a domain error, a non-integer index."""


class NoCase(Undefined):
    """No condition of a piecewise function holds here."""


class Huge(Exception):
    """Too large to be held as a floating number."""


class TooLarge(Exception):
    """Numbers of which we cannot tell whether they differ, for they are too large."""


def exact(node: Node) -> Fraction | None:
    """The rational value of a tree without symbols; None if it has none that is cheap to find."""
    if node.op == "num":
        return node.value[0]
    if node.op == "base":
        digits, base = node.value
        try:
            return Fraction(int(digits, base))
        except ValueError:
            raise Unreadable("digits of a base") from None
    if node.op == "fn" and node.value in ("factorial", "binom"):
        return _exact_function(node)
    if node.op in ("sum", "prod"):
        return _exact_series(node)
    if node.op not in ("add", "neg", "mul", "div", "pow", "paren", "approx"):
        return None
    args = []
    for arg in node.args:
        value = exact(arg)
        if value is None or value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
            return None
        args.append(value)
    if node.op == "pow":
        return _exact_power(*args)
    if node.op == "div" and args[1] == 0:
        raise Undefined("division by zero")
    value = args[0]
    for other in args[1:]:
        value = value + other if node.op == "add" else value * other if node.op == "mul" else value / other
    return -value if node.op == "neg" else value


def _exact_series(node: Node) -> Fraction | None:
    """A sum or product of rational terms between whole bounds."""
    low, high = (exact(bound) if bound.op != "infty" else None for bound in node.args[1:])
    if low is None or high is None or low.denominator != 1 or high.denominator != 1 or high - low > MAX_TERMS:
        return None
    total = Fraction(node.op == "prod")
    for index in range(int(low), int(high) + 1):
        term = exact(replace(node.args[0], node.value, Node("num", value=(Fraction(index), None))))
        if term is None or total.numerator.bit_length() + total.denominator.bit_length() > MAX_BITS:
            return None
        total = total + term if node.op == "sum" else total * term
    return total


def _exact_function(node: Node) -> Fraction | None:
    args = [exact(arg) for arg in node.args]
    if any(a is None or a.denominator != 1 or not 0 <= a <= 5000 for a in args):
        return None
    whole = [int(a) for a in args if a is not None]
    return Fraction(factorial(whole[0]) if node.value == "factorial" else comb(whole[0], whole[1]))


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(exponent) * size > MAX_BITS:
        return None
    if base == 0 and exponent < 0:
        raise Undefined("division by zero")
    return base ** int(exponent)
