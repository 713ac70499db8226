"""Is what a program gave what was expected? Declared per problem, never guessed.

In: a record's `checker` (a name, or an object with `kind` and its settings) and two texts or two JSON values.
Out: a bool. `custom` is code, so it runs in the sandbox: `code.py` does that.

    lines      (default) texts line by line; white space at line ends and blank lines at the end do not count.
               Values: equal as JSON (1 and 1.0 are one number, 1 and true are not).
    exact      texts byte for byte but for one newline at the end
    tokens     texts as sequences of words
    floats     words (or numbers in values) may differ by `abs` or `rel` (both `tolerance` where not given)
    unordered  lines (or the items of a list) in any order; `nested`: the items of lists inside as well
    custom     `code` defines `check(input, output, expected)`, true where the answer is right
"""

import collections
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from stratos_jax.types import Json

KINDS = ("lines", "exact", "tokens", "floats", "unordered", "custom")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checker:
    """How the answers to one problem are compared."""

    kind: str = "lines"
    tolerance: float = 1e-6
    abs: float | None = None
    rel: float | None = None
    nested: bool = False
    code: str = ""


def parse(declared: str | Mapping[str, Any] | None) -> Checker:
    """A record's `checker`; ValueError says what is wrong with it."""
    fields: dict[str, Any] = {"kind": declared} if isinstance(declared, str) else dict(declared or {})
    known = {field.name for field in dataclasses.fields(Checker)}
    if unknown := sorted(set(fields) - known):
        raise ValueError(f"checker: unknown {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    checker = Checker(**fields)
    if checker.kind not in KINDS:
        raise ValueError(f"checker: got kind {checker.kind!r}, wanted one of {', '.join(KINDS)}")
    if (checker.kind == "custom") != bool(checker.code):
        raise ValueError("checker: `code` belongs to kind `custom`, and to it alone")
    for name in ("tolerance", "abs", "rel"):
        value = getattr(checker, name)
        if value is not None and not (isinstance(value, (int, float)) and 0 <= value < 1):
            raise ValueError(f"checker: got {name} {value!r}, wanted a number from 0 to below 1")
    return checker


def same_text(checker: Checker, output: str, expected: str) -> bool:
    """Compare what a program printed with what it should have printed."""
    if checker.kind == "exact":
        return output.removesuffix("\n") == expected.removesuffix("\n")
    if checker.kind == "tokens":
        return output.split() == expected.split()
    if checker.kind == "floats":
        got, wanted = output.split(), expected.split()
        return len(got) == len(wanted) and all(_close_word(checker, g, w) for g, w in zip(got, wanted))
    if checker.kind == "unordered":
        count = lambda text: collections.Counter(" ".join(line.split()) for line in _lines(text))
        return count(output) == count(expected)
    return _lines(output) == _lines(expected)


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _close_word(checker: Checker, got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    try:
        return _close(checker, float(got), float(wanted))
    except ValueError:
        return False


def _close(checker: Checker, got: float, wanted: float) -> bool:
    if math.isinf(wanted):
        return got == wanted
    absolute = checker.tolerance if checker.abs is None else checker.abs
    relative = checker.tolerance if checker.rel is None else checker.rel
    return abs(got - wanted) <= max(absolute, relative * abs(wanted))


def same_value(checker: Checker, value: Json, expected: Json) -> bool:
    """Compare what a call returned (as the sandbox wrote it) with the expected JSON value."""
    if checker.kind == "unordered":
        value, expected = _without_sets(value), _without_sets(expected)
        if isinstance(value, list) and isinstance(expected, list):
            return _same_items(checker, value, expected)
    return _equal(checker, value, expected)


def _equal(checker: Checker, value: Json, expected: Json) -> bool:
    if isinstance(value, bool) or isinstance(expected, bool):
        return value is expected
    if isinstance(value, (int, float)) and isinstance(expected, (int, float)):
        return value == expected or (checker.kind == "floats" and _close(checker, value, expected))
    if isinstance(value, list) and isinstance(expected, list):
        if checker.nested:
            return _same_items(checker, value, expected)
        return len(value) == len(expected) and all(_equal(checker, v, e) for v, e in zip(value, expected))
    if isinstance(value, dict) and isinstance(expected, dict):
        return value.keys() == expected.keys() and all(_equal(checker, value[k], expected[k]) for k in value)
    return type(value) is type(expected) and value == expected


def _same_items(checker: Checker, value: list, expected: list) -> bool:
    """Each expected item is met by one item; quadratic, but exact for numbers and nested values alike."""
    left = list(value)
    if len(left) != len(expected):
        return False
    for wanted in expected:
        place = next((i for i, item in enumerate(left) if _equal(checker, item, wanted)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def _without_sets(value: Json) -> Json:
    """The sandbox marks sets, which have no order to compare; here they are lists."""
    if isinstance(value, dict):
        if value.keys() == {"__set__"}:
            return [_without_sets(item) for item in value["__set__"]]
        return {key: _without_sets(item) for key, item in value.items()}
    return [_without_sets(item) for item in value] if isinstance(value, list) else value
