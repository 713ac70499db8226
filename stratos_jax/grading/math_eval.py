"""Evaluate a tree: exactly where it is rational, else to 40 digits at given values of its symbols.

In: a `Node` and an `Env`. Out: an mpmath number or a `Matrix`; `Undefined` where there is no value at this point,
`Huge` where the magnitude is past any comparison, `Unreadable` where the tree is not an expression.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from math import gcd
from typing import Any

import mpmath
from mpmath import mp

from stratos_jax.grading import math_words
from stratos_jax.grading.math_exact import MAX_TERMS, Huge, NoCase, Undefined, exact
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_tree import Node, symbols

DIGITS = 40
ANGLED = frozenset(("sin", "cos", "tan", "cot", "sec", "csc", "cis"))
MAX_LOG2 = mpmath.mpf(10) ** 9  # of a floating one


@dataclasses.dataclass(slots=True)
class Env:
    """Values of symbols, and how units and the bare logarithm are read."""

    values: Mapping[str, Any]
    units: str = "physical"  # physical | stripped
    log_base: int | None = None  # None: natural


@dataclasses.dataclass(slots=True)
class Matrix:
    """Entries row by row."""

    shape: tuple[int, int]
    entries: list[Any]


# --- exact ----------------------------------------------------------------------------------------------------------


# --- numeric --------------------------------------------------------------------------------------------------------


def evaluate(node: Node, env: Env) -> Any:
    """The value at `env`; a finite mpmath number or a `Matrix`."""
    handler = HANDLERS.get(node.op)
    if handler is None:
        raise Unreadable(f"no value: {node.op}")
    return handler(node, env)


def _number(node: Node, env: Env) -> Any:
    value = node.value[0]
    return mp.mpf(value.numerator) / value.denominator


def _symbol(node: Node, env: Env) -> Any:
    if node.value in env.values:
        return env.values[node.value]
    if node.value == "pi":
        return +mp.pi
    if node.value == "e":
        return +mp.e
    if node.value == "i":
        return mp.mpc(0, 1)
    raise Unreadable(f"no value for {node.value}")


def _unit(node: Node, env: Env) -> Any:
    if node.value == "degree":
        return mp.mpf(1) if env.units == "stripped" else mp.pi / 180
    if node.value == "%":
        return mp.mpf(1) if env.units == "stripped" else mp.mpf(1) / 100
    if env.units == "stripped":
        return mp.mpf(1)
    factor, powers = math_words.unit_parts(node.value)
    value = mp.mpf(Fraction(factor).numerator) / Fraction(factor).denominator
    for dimension, power in powers.items():
        value *= opaque(f"unit {dimension}", []) ** power
    return value


def _noun(node: Node, env: Env) -> Any:
    return mp.mpf(1) if env.units == "stripped" else opaque(f"noun {node.value}", [])


def opaque(name: str, args: list[Any]) -> Any:
    """A fixed value, between 1 and 2, of a name that we know nothing of; smooth and injective in its arguments."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:12], "big")
    value = 1 + mp.mpf(seed) / mp.mpf(2) ** 96
    for position, arg in enumerate(args):
        value += mp.sin(arg * (value + position + 1)) * mp.mpf("0.7310585786") + arg * (position + 3) / 7
    return value


def _call(node: Node, env: Env) -> Any:
    if node.value in ("zeta", "Gamma") and len(node.args) == 1:
        value = scalar(node.args[0], env)
        return mp.zeta(value) if node.value == "zeta" else _factorial(value - 1)
    return opaque(f"call {node.value}", [scalar(arg, env) for arg in node.args])


def scalar(node: Node, env: Env) -> Any:
    value = evaluate(node, env)
    if isinstance(value, Matrix):
        raise Unreadable("matrix as a number")
    return value


def _add(node: Node, env: Env) -> Any:
    left, right = (evaluate(arg, env) for arg in node.args)
    if isinstance(left, Matrix) or isinstance(right, Matrix):
        if not (isinstance(left, Matrix) and isinstance(right, Matrix) and left.shape == right.shape):
            raise Undefined("shapes")
        return Matrix(left.shape, [a + b for a, b in zip(left.entries, right.entries)])
    return left + right


def _neg(node: Node, env: Env) -> Any:
    value = evaluate(node.args[0], env)
    return Matrix(value.shape, [-a for a in value.entries]) if isinstance(value, Matrix) else -value


def _mul(node: Node, env: Env) -> Any:
    left, right = (evaluate(arg, env) for arg in node.args)
    if isinstance(left, Matrix) and isinstance(right, Matrix):
        return _matmul(left, right)
    if isinstance(right, Matrix):
        left, right = right, left
    if isinstance(left, Matrix):
        return Matrix(left.shape, [a * right for a in left.entries])
    return left * right


def _matmul(left: Matrix, right: Matrix) -> Matrix:
    (n, m), (m2, k) = left.shape, right.shape
    if m != m2:
        raise Undefined("shapes")
    rows = [sum((left.entries[i * m + t] * right.entries[t * k + j] for t in range(m)), mp.mpf(0))
            for i in range(n) for j in range(k)]  # fmt: skip
    return Matrix((n, k), rows)


def _div(node: Node, env: Env) -> Any:
    left, right = evaluate(node.args[0], env), scalar(node.args[1], env)
    if right == 0:
        raise Undefined("division by zero")
    if isinstance(left, Matrix):
        return Matrix(left.shape, [a / right for a in left.entries])
    return left / right


def _pow(node: Node, env: Env) -> Any:
    base, exponent = evaluate(node.args[0], env), scalar(node.args[1], env)
    if isinstance(base, Matrix):
        return _matrix_power(base, exponent)
    if base == 0:
        if mp.re(exponent) <= 0 and exponent != 0:
            raise Undefined("division by zero")
        return mp.mpf(1) if exponent == 0 else mp.mpf(0)
    root = _odd_root(node.args[1])
    if root and mp.im(base) == 0 and mp.re(base) < 0:  # the real cube root of a negative number
        return (-1) ** (root.numerator % 2) * mp.power(-base, exponent)
    if abs(exponent) * abs(mp.log(abs(base), 2)) > MAX_LOG2:
        raise Huge("power")
    return mp.power(base, exponent)


def _matrix_power(base: Matrix, exponent: Any) -> Matrix:
    size = base.shape[0]
    if base.shape != (size, size) or exponent != mp.nint(mp.re(exponent)) or not -1 <= exponent <= 64:
        raise Unreadable("power of a matrix")
    whole = mp.matrix([base.entries[i * size : (i + 1) * size] for i in range(size)]) ** int(exponent)
    return Matrix(base.shape, [whole[i, j] for i in range(size) for j in range(size)])


def _odd_root(node: Node) -> Fraction | None:
    value = exact(node) if not symbols(node) else None
    return value if value is not None and value.denominator > 1 and value.denominator % 2 else None


def _function(node: Node, env: Env) -> Any:
    name = node.value
    if name == "det":
        return _determinant(evaluate(node.args[0], env))
    if name == "abs":
        value = evaluate(node.args[0], env)
        if isinstance(value, Matrix):
            return _determinant(value)
        return abs(value)
    if name in ANGLED and env.units == "stripped":  # sin 75 and sin 75 degrees are two numbers
        env = dataclasses.replace(env, units="physical")
    args = [scalar(arg, env) for arg in node.args]
    if name == "log":
        name = "ln"
        if env.log_base:
            return FUNCTIONS["ln"](args[0]) / mp.log(env.log_base)
    try:
        return FUNCTIONS[name](*args)
    except KeyError:
        raise Unreadable(f"function {name}") from None
    except TypeError:
        raise Unreadable(f"arguments of {name}") from None


def _determinant(value: Any) -> Any:
    if not isinstance(value, Matrix) or value.shape[0] != value.shape[1]:
        raise Unreadable("determinant")
    size = value.shape[0]
    return mp.det(mp.matrix(size, size) + mp.matrix([value.entries[i * size : (i + 1) * size] for i in range(size)]))


def _whole(value: Any) -> int:
    if mp.im(value) != 0 or abs(value - mp.nint(mp.re(value))) > mp.mpf(10) ** -25 or abs(value) > 10**12:
        raise Undefined("not an integer")
    return int(mp.nint(mp.re(value)))


def _real(value: Any) -> Any:
    if mp.im(value) != 0:
        raise Undefined("not real")
    return mp.re(value)


def _floor(value: Any) -> Any:
    value, near = _real(value), mp.nint(_real(value))
    return near if abs(value - near) < mp.mpf(10) ** -25 else mp.floor(value)


def _factorial(value: Any) -> Any:
    if abs(value) > 10**8:
        raise Huge("factorial")
    if mp.im(value) == 0 and value < 0 and value == mp.nint(value):
        raise Undefined("pole")
    return mp.factorial(value)


def _factorial2(value: Any) -> Any:
    if abs(value) > 10**6:
        raise Huge("factorial")
    return mp.fac2(value)


def _ln(value: Any) -> Any:
    if value == 0:
        raise Undefined("log of zero")
    return mp.log(value)


def _exp(value: Any) -> Any:
    if abs(value) > MAX_LOG2:
        raise Huge("exp")
    return mp.exp(value)


def _lcm(*values: Any) -> Any:
    result = 1
    for value in map(_whole, values):
        result = result * value // gcd(result, value) if value else 0
    return mp.mpf(result)


def _over(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def reciprocal(value: Any) -> Any:
        below = function(value)
        if below == 0:
            raise Undefined("pole")
        return 1 / below

    return reciprocal


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": mp.sin, "cos": mp.cos, "tan": mp.tan, "cot": _over(mp.tan), "sec": _over(mp.cos), "csc": _over(mp.sin),
    "arcsin": mp.asin, "arccos": mp.acos, "arctan": mp.atan, "arccot": lambda x: mp.pi / 2 - mp.atan(x),
    "arcsec": lambda x: mp.acos(_over(lambda y: y)(x)), "arccsc": lambda x: mp.asin(_over(lambda y: y)(x)),
    "sinh": mp.sinh, "cosh": mp.cosh, "tanh": mp.tanh, "coth": _over(mp.tanh), "sech": _over(mp.cosh),
    "csch": _over(mp.sinh), "arcsinh": mp.asinh, "arccosh": mp.acosh, "arctanh": mp.atanh,
    "ln": _ln, "lg": lambda x: _ln(x) / mp.log(10), "exp": _exp, "sgn": lambda x: mp.sign(_real(x)),
    "floor": _floor, "ceil": lambda x: -_floor(-x), "factorial": _factorial, "factorial2": _factorial2,
    "gamma": lambda x: _factorial(x - 1), "arg": mp.arg, "Re": mp.re, "Im": mp.im,
    "conj": mp.conj, "cis": lambda x: mp.expj(_real(x)),
    "binom": lambda n, k: mp.binomial(n, k), "max": lambda *v: max(map(_real, v)), "min": lambda *v: min(map(_real, v)),
    "gcd": lambda *v: mp.mpf(gcd(*map(_whole, v))), "lcm": _lcm,
}  # fmt: skip


def _matrix(node: Node, env: Env) -> Matrix:
    return Matrix(node.value, [scalar(arg, env) for arg in node.args])


def _vector(node: Node, env: Env) -> Matrix:
    return Matrix((len(node.args), 1), [scalar(arg, env) for arg in node.args])


def _unit_vector(node: Node, env: Env) -> Matrix:
    return Matrix((3, 1), [mp.mpf(letter == node.value) for letter in "ijk"])


def _series(node: Node, env: Env) -> Any:
    body, low, high = node.args
    start = _whole(scalar(low, env))
    if high.op == "infty":
        return _infinite(node, env, start)
    stop = _whole(scalar(high, env))
    if stop - start > MAX_TERMS:
        raise Unreadable("long series")
    total = mp.mpf(node.op == "prod")
    for index in range(start, stop + 1):
        term = scalar(body, dataclasses.replace(env, values={**env.values, node.value: mp.mpf(index)}))
        total = total + term if node.op == "sum" else total * term
    return total


def _infinite(node: Node, env: Env, start: int) -> Any:
    if node.op != "sum":
        raise Unreadable("infinite product")

    def term(index: Any) -> Any:
        return scalar(node.args[0], dataclasses.replace(env, values={**env.values, node.value: mp.mpf(index)}))

    return mp.nsum(term, [start, mp.inf])


def _integral(node: Node, env: Env) -> Any:
    body, low, high = node.args
    if "empty" in (low.op, high.op):
        raise Unreadable("indefinite integral")
    ends = [mp.inf if n.op == "infty" else -mp.inf if n.op == "neg" and n.args[0].op == "infty" else scalar(n, env)
            for n in (low, high)]  # fmt: skip
    return mp.quad(
        lambda t: scalar(body, dataclasses.replace(env, values={**env.values, node.value: t})), ends, maxdegree=8
    )


def _cases(node: Node, env: Env) -> Any:
    for case in node.args:
        if all(holds(condition, env) for condition in case.args[1:]):
            return evaluate(case.args[0], env)
    raise NoCase("no case holds")


def holds(node: Node, env: Env) -> bool:
    """Whether a condition is true at this point."""
    if node.op == "words":
        if node.value in ("otherwise", "else"):
            return True
        raise Unreadable(f"condition {node.value!r}")
    if node.op == "paren":
        return holds(node.args[0], env)
    if node.op == "list":
        test = any if node.value == "or" else all
        return test(holds(arg, env) for arg in node.args)
    if node.op == "cong":
        value, residue, modulus = (_whole(scalar(arg, env)) for arg in node.args)
        return (value - residue) % modulus == 0
    if node.op != "rel" or any(op not in ORDER for op in node.value):
        raise Unreadable(f"condition {node.op}")
    values = [_real(scalar(arg, env)) for arg in node.args]
    return all(ORDER[op](a, b) for op, a, b in zip(node.value, values, values[1:]))


def same_number(a: Any, b: Any) -> bool:
    """Equal to 25 of 40 digits."""
    return abs(a - b) <= mp.mpf(10) ** -22 * max(abs(a), abs(b)) or (abs(a) < 1e-28 and abs(b) < 1e-28)


ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b and not same_number(a, b),
    ">": lambda a, b: a > b and not same_number(a, b),
    "<=": lambda a, b: a < b or same_number(a, b),
    ">=": lambda a, b: a > b or same_number(a, b),
    "=": same_number,
    "!=": lambda a, b: not same_number(a, b),
}

HANDLERS: dict[str, Callable[[Node, Env], Any]] = {
    "num": _number, "sym": _symbol, "unit": _unit, "noun": _noun, "call": _call, "add": _add, "neg": _neg, "mul": _mul,
    "div": _div, "pow": _pow, "fn": _function, "matrix": _matrix, "vector": _vector, "unitvector": _unit_vector,
    "sum": _series, "prod": _series, "int": _integral, "cases": _cases,
    "paren": lambda node, env: evaluate(node.args[0], env), "approx": lambda node, env: evaluate(node.args[0], env),
    "base": lambda node, env: mp.mpf(int(exact(node) or 0)),
}  # fmt: skip
