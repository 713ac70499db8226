"""Whether two expressions have the same value: exactly, by rounding where it is allowed, or at sampled points.

In: two trees, gold first. Out: True, False, or None where it cannot be told.
Two analytic expressions that agree to 22 digits at a dozen pseudo-random points are the same; the points are fixed, so
a verdict never changes from run to run.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from mpmath import mp

from stratos_jax.grading import math_words
from stratos_jax.grading.config import MathConfig
from stratos_jax.grading.math_eval import Env, Matrix, evaluate, opaque, same_number
from stratos_jax.grading.math_exact import Huge, NoCase, TooLarge, Undefined, exact
from stratos_jax.grading.math_size import surely_different
from stratos_jax.grading.math_tree import Node, has, symbols, uses

POWER_ASKED = re.compile(r"\b(?:how many|in|nearest)\s+(square|sq\.?|cubic)\s+([A-Za-z]+)", re.I)
PERCENT_ASKED = re.compile(r"\b(?:what|as a|in|how many|the) percent(?:age)?\b", re.I)
MAX_WHOLE_DIGITS = 400
INTEGER_FUNCTIONS = frozenset(("factorial", "factorial2", "binom", "floor", "ceil", "gcd", "lcm"))
REAL_LETTERS = frozenset("x y z w u v r theta phi t".split())


@dataclasses.dataclass(frozen=True, slots=True)
class Context:
    """What both sides share while they are compared."""

    config: MathConfig
    problem: str = ""
    rough: bool = False  # the problem or the gold asks for an approximation
    answer_rough: bool = False  # the answer says that it is one


def same_value(gold: Node, answer: Node, context: Context) -> bool | None:
    """Equal as expressions, with or without the units that only one side has."""
    if gold == answer:
        return True
    if has(gold, "ldots") or has(answer, "ldots"):
        return None
    if gold.op == "base" or answer.op == "base":
        return _same_base(gold, answer, context.problem)
    asked = units_asked_for(gold, answer, context.problem)
    if asked and (found := _same_unit_asked(gold, answer, asked, context)) is not None:
        return found
    for env in _readings(gold, answer, context.problem):
        same = _same_reading(gold, answer, env, context)
        if same or same is None:
            return same
    return False


def _same_base(gold: Node, answer: Node, problem: str) -> bool | None:
    """Digits in a written base: the base may be left out, but an answer in another base is not what was asked for."""
    digits = [n.value[0] if n.op == "base" else str(n.value[0]) if n.op == "num" else None for n in (gold, answer)]
    if None in digits:
        return False
    if gold.op == answer.op:
        return gold.value == answer.value
    if gold.op == "num":
        asked = re.search(r"\bbase[- ]\$?(\w+)", problem)
        if asked and asked.group(1) in (str(answer.value[1]), math_words.BASE_WORDS.get(answer.value[1])):
            return digits[0] == digits[1]
        return exact(gold) == exact(answer)
    return digits[0] == digits[1]


def _readings(gold: Node, answer: Node, problem: str) -> Iterator[Env]:
    """Units as quantities; without them if only one side has any; the bare logarithm as natural, then to base 10."""
    units = [has(node, "unit", "noun") for node in (gold, answer)]
    bare = units[0] != units[1] and not (units[1] and _percent_of_nothing(gold, answer, problem))
    modes = ["physical", "stripped"] if bare else ["physical"]
    bare_log = any(uses(n, lambda m: m.op == "fn" and m.value == "log") for n in (gold, answer))
    for mode in modes:
        yield Env({}, mode)
        if bare_log:
            yield Env({}, mode, 10)


def _percent_of_nothing(gold: Node, answer: Node, problem: str) -> bool:
    """42 against 42%: a percentage that the problem does not ask for; without a problem, one of a value below 1."""
    if "%" not in used_units(answer):
        return False
    value = _try_exact(gold)
    if value is not None and abs(value) < 1:
        return not PERCENT_ASKED.search(problem)
    return bool(problem) and "percent" not in problem.lower() and "%" not in problem


def units_asked_for(gold: Node, answer: Node, problem: str) -> frozenset[str] | None:
    """Units in the problem, where only the answer has one; None where the problem decides nothing."""
    if not problem or not has(answer, "unit") or has(gold, "unit", "noun"):
        return None
    words = re.findall(r"[A-Za-z]+", problem) + (["USD"] if "\\$" in problem else [])
    words += ["hour"] * bool(re.search(r"/\s*h\b", problem)) + ["second"] * bool(re.search(r"/\s*s\b", problem))
    asked = {u for w in words if w not in ("in", "a", "A", "I", "C", "h", "s") and (u := math_words.unit(w))}
    return frozenset(asked - {"%", "degree"}) or None


def _units_of(node: Node) -> list[Node]:
    """The units of an amount, with their powers."""
    if node.op == "unit" or node.op == "pow" and node.args[0].op == "unit":
        return [node]
    return [unit for arg in node.args for unit in _units_of(arg)]


def _same_unit_asked(gold: Node, answer: Node, asked: frozenset[str], context: Context) -> bool | None:
    """The gold is in a unit of the problem: the answer's must be one of them, or convert to one; None if it is one."""
    problem = context.problem
    used = sorted({n for n in used_units(answer) if n not in ("%", "degree")})
    power = POWER_ASKED.search(problem)
    if power and math_words.unit(power.group(2)) in used:
        wanted = 2 if power.group(1).lower().startswith("sq") else 3
        if all(n.op != "pow" or exact(n.args[1]) != wanted for n in _units_of(answer)):
            return False  # 64 inches are no area
    if not used or set(used) <= asked:
        return None
    if not set().union(*map(dimensions, used)) <= set().union(*map(dimensions, asked)):
        return False
    alike = [u for u in sorted(asked) if len(used) == 1 and dimensions(u) == dimensions(used[0])]
    return (
        any(same_value(Node("mul", (gold, Node("unit", value=u))), answer, context) for u in alike) if alike else None
    )


def used_units(node: Node) -> frozenset[str]:
    own = frozenset((node.value,)) if node.op == "unit" else frozenset()
    return own.union(*(used_units(arg) for arg in node.args))


def dimensions(unit: str) -> dict[str, int]:
    return {} if unit in ("%", "degree") else math_words.unit_parts(unit)[1]


def _same_reading(gold: Node, answer: Node, env: Env, context: Context) -> bool | None:
    names = symbols(gold) | symbols(answer)
    if not names and not has(gold, "unit", "noun") and not has(answer, "unit", "noun"):
        left, right = _try_exact(gold), _try_exact(answer)
        if left is not None and right is not None:
            return left == right or rounds_to(gold, answer, env, context)
    if not names:
        same = _same_at(gold, answer, env)
        return same or (same is False and rounds_to(gold, answer, env, context))
    return same_everywhere(gold, answer, env, sorted(names))


def _try_exact(node: Node) -> Fraction | None:
    try:
        return exact(node)
    except Undefined:
        return None


def _same_at(gold: Node, answer: Node, env: Env) -> bool | None:
    """Equal at one point; a tiny difference is looked at again with more digits."""
    sizes = []
    for node in (gold, answer):
        try:
            sizes.append(evaluate(node, env))
        except Huge:
            sizes.append(None)
        except (Undefined, ZeroDivisionError, ValueError, mp.NoConvergence):
            return None
    if sizes[0] is None or sizes[1] is None:
        if surely_different(gold, answer):
            return False
        raise TooLarge
    same = _same_entries(sizes[0], sizes[1], same_number)
    if same and _tiny(sizes[0]) and _tiny(sizes[1]):
        with mp.workdps(120):  # what is zero in truth shrinks with the precision; what is merely small does not
            again = abs(evaluate(gold, env) - evaluate(answer, env))
        return again <= abs(sizes[0] - sizes[1]) * mp.mpf(10) ** -60
    if same and not isinstance(sizes[0], Matrix) and (digits := _whole_digits(sizes[0])):
        with mp.workdps(digits):  # two whole numbers of many digits may part in the last
            return _same_entries(evaluate(gold, env), evaluate(answer, env), _same_to_the_last)
    return same


def _whole_digits(value: Any) -> int | None:
    """Digits that show the last whole digit of a large value; None where it is not large."""
    size = abs(value)
    if size < mp.mpf(10) ** 20 or size > mp.mpf(10) ** MAX_WHOLE_DIGITS:
        return None
    return int(mp.log10(size)) + 40


def _same_to_the_last(a: Any, b: Any) -> bool:
    return abs(a - b) <= max(mp.mpf(10) ** -10, mp.mpf(10) ** (20 - mp.dps) * abs(a))


def _tiny(value: Any) -> bool:
    return not isinstance(value, Matrix) and abs(value) < mp.mpf(10) ** -20


def _same_entries(left: Any, right: Any, same: Any) -> bool:
    if isinstance(left, Matrix) != isinstance(right, Matrix):
        return False
    if isinstance(left, Matrix):
        a, b = left.entries, right.entries
        if left.shape != right.shape:
            vectors = all(1 in m.shape for m in (left, right))
            if not vectors or abs(len(a) - len(b)) > 1:
                return False
            longest = max(len(a), len(b))  # i, j without k is a plane vector
            if {len(a), len(b)} == {2, 3}:
                a, b = (v + [mp.mpf(0)] * (longest - len(v)) for v in (a, b))
            if len(a) != len(b):
                return False
        return all(same(x, y) for x, y in zip(a, b))
    if not (mp.isfinite(left) and mp.isfinite(right)):
        return False
    return same(left, right)


def same_everywhere(gold: Node, answer: Node, env: Env, names: list[str]) -> bool | None:
    """Equal at sampled reals, or at sampled integers where the expression lives on integers."""
    counted = 0
    complex_answers: list[bool] = []
    imaginary = any(uses(n, lambda m: m == Node("sym", value="i")) for n in (gold, answer))
    different = False
    points = real_points(names)
    if has(gold, "cases") or has(answer, "cases"):
        points = itertools.chain(points, _corners(names))
    for values in points:
        pair = values_at(gold, answer, dataclasses.replace(env, values=values))
        if pair is None:
            continue
        if pair is GAP:
            return False
        left, right = pair
        real = [not isinstance(v, Matrix) and abs(mp.im(v)) < 1e-25 for v in pair]
        equal = _same_entries(left, right, same_number)
        if imaginary or all(real) or isinstance(left, Matrix) or isinstance(right, Matrix):
            counted += 1
            if not equal:
                different = True
                break
        else:
            complex_answers.append(equal)
    agree = not different and counted >= 3
    if agree and not _steps(gold, answer):
        return True
    if agree or _lives_on_integers(gold, answer, names):  # floors that agree almost everywhere part at integers
        at_integers = _same_at_integers(gold, answer, env, names)
        return at_integers is not False if agree else at_integers
    if different:
        return False
    if not counted and len(complex_answers) >= 3:
        return all(complex_answers)
    return True if counted and not different and all(complex_answers) and counted + len(complex_answers) >= 3 else None


def _corners(names: list[str]) -> Iterator[dict[str, Any]]:
    """Small integers, where the pieces of a function meet."""
    for value in range(-6, 11):
        yield {name: mp.mpf(value + place) for place, name in enumerate(names)}


GAP = (None, None)  # one side has a case for this point, the other has none


def values_at(gold: Node, answer: Node, env: Env) -> tuple[Any, Any] | None:
    """Both values at a point; None where there are none, GAP where a case is missing on one side."""
    gaps = []
    for node in (gold, answer):
        try:
            evaluate(node, env) if has(node, "cases") else None
            gaps.append(False)
        except NoCase:
            gaps.append(True)
        except (Undefined, Huge, ZeroDivisionError, OverflowError, ValueError, mp.NoConvergence):
            gaps.append(False)
    if gaps[0] != gaps[1]:
        return GAP
    try:
        left, right = evaluate(gold, env), evaluate(answer, env)
    except (Undefined, Huge, ZeroDivisionError, OverflowError, ValueError, mp.NoConvergence):
        return None
    for value in (left, right):
        if not isinstance(value, Matrix) and not mp.isfinite(value):
            return None
    return left, right


def real_points(names: list[str]) -> Iterator[dict[str, Any]]:
    """Fixed pseudo-random points: positive, signed, then large."""
    for low, high, count in ((0.3, 2.7, 4), (-3, 3, 4), (3, 20, 3), (0, 1, 2)):
        for index in range(count):
            yield {
                name: low + (high - low) * (opaque(f"{name} {index} {low}", []) - 1) for name in names
            }  # fmt: skip


def _lives_on_integers(gold: Node, answer: Node, names: list[str]) -> bool:
    return _steps(gold, answer) and not all(name.split("_")[0] in REAL_LETTERS for name in names)


def _steps(gold: Node, answer: Node) -> bool:
    """A side has floors, factorials, sums or powers of -1, which speak of integers."""

    def counts(node: Node) -> bool:
        if node.op in ("sum", "prod", "cong"):
            return True
        if node.op == "fn" and node.value in INTEGER_FUNCTIONS:
            return True
        if node.op == "pow" and symbols(node.args[1]) and not symbols(node.args[0]):
            base = _try_exact(node.args[0])
            return base is not None and base < 0
        return False

    return uses(gold, counts) or uses(answer, counts)


def _same_at_integers(gold: Node, answer: Node, env: Env, names: list[str]) -> bool | None:
    counted = 0
    for index in range(24):
        values = {name: _integer_point(name, place, index) for place, name in enumerate(names)}
        pair = values_at(gold, answer, dataclasses.replace(env, values=values))
        if pair is None:
            continue
        counted += 1
        if pair is GAP or not _same_entries(*pair, same_number):
            return False
    return True if counted >= 6 else None


def _integer_point(name: str, place: int, index: int) -> Any:
    """Small powers first, for floors and logarithms part company there; then anything up to 30."""
    special = (2, 4, 1, 8, 3, 16, 9, 27)
    if index < len(special):
        return mp.mpf(special[(index + place) % len(special)])
    return mp.mpf(1 + int((opaque(f"{name} integer {index}", []) - 1) * (7 + index)))


# --- decimals -------------------------------------------------------------------------------------------------------


def rounds_to(gold: Node, answer: Node, env: Env, context: Context) -> bool:
    """A decimal gold accepts a value that rounds to it; a decimal answer with many digits stands for an exact gold."""
    gold_decimal, answer_decimal = decimal(gold), decimal(answer)
    try:
        left, right = evaluate(gold, env), evaluate(answer, env)
    except (Undefined, Huge, ZeroDivisionError, ValueError):
        return False
    if isinstance(left, Matrix) or isinstance(right, Matrix) or left == 0 or right == 0:
        return False
    distance = abs(left - right)
    rough = context.rough
    digits = 3 if rough else 4 if context.answer_rough else context.config.answer_digits
    if gold_decimal and gold_decimal[1] >= (2 if rough else context.config.gold_digits):
        finer = answer_decimal is None or answer_decimal[1] > gold_decimal[1]
        if finer and distance <= _half_unit(gold_decimal, left):
            return True
    if answer_decimal and answer_decimal[1] >= digits:
        if gold.op == "num" and gold_decimal is None:  # a recurring decimal is not its first digits
            return False
        coarser = gold_decimal is None or gold_decimal[1] > answer_decimal[1]
        return coarser and distance <= _half_unit(answer_decimal, right)
    return False


def _half_unit(literal: tuple[Fraction, int], value: Any) -> Any:
    """Half a unit of the last digit that was written, scaled to the whole value."""
    number = mp.mpf(literal[0].numerator) / literal[0].denominator
    last = mp.mpf(10) ** (mp.floor(mp.log10(abs(number))) - literal[1] + 1)
    return last / 2 * abs(value / number) * (1 + mp.mpf(10) ** -12)


def decimal(node: Node) -> tuple[Fraction, int] | None:
    """The one decimal literal that a number is written with (3.14, -3.14 cm, 3.14 * 10^5), and its digits."""
    if node.op == "num":
        return (node.value[0], node.value[1]) if node.value[1] and node.value[0] else None
    if node.op in ("neg", "paren", "approx"):
        return decimal(node.args[0])
    if node.op == "mul":
        first = decimal(node.args[0])
        rest = node.args[1]
        ten = rest.op == "pow" and _try_exact(rest.args[0]) == 10
        return first if first and (ten or not symbols(rest) and _is_unit(rest)) else None
    if node.op == "div" and _is_unit(node.args[1]):
        return decimal(node.args[0])
    return None


def _is_unit(node: Node) -> bool:
    if node.op in ("unit", "noun"):
        return True
    return node.op in ("mul", "div", "pow", "paren") and all(_is_unit(a) or a.op in ("num", "neg") for a in node.args)


# --- names ----------------------------------------------------------------------------------------------------------
