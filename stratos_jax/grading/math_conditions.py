"""Conditions that say nothing new: what kind of number a symbol is, from where an index runs.

In: a condition and the body that it stands behind. Out: whether the body means the same without it.
"""

from stratos_jax.grading import math_words
from stratos_jax.grading.math_exact import exact
from stratos_jax.grading.math_tree import Node, symbols


def harmless(condition: Node, body: Node) -> bool:
    """It only says what kind of number a symbol is."""
    if condition.op == "words":
        return not any(w in math_words.DANGER - {"all", "any", "every"} for w in condition.value.split())
    if condition.op in ("sym", "missing") or _says_where(condition, body):
        return True
    if condition.op != "rel" or condition.value != ("in",) or condition.args[1].op != "special":
        return False
    return condition.args[1].value not in ("NEGATIVE_REALS", "NONPOSITIVE_REALS", "EMPTY")


def _says_where(condition: Node, body: Node) -> bool:
    """The n >= 1 of a_n = ..., the x > 0 of f(x) = ...: from where an index or an argument runs."""
    if condition.op != "rel" or condition.value not in ((">=",), (">",)) or condition.args[0].op != "sym":
        return False
    start = exact(condition.args[1]) if not symbols(condition.args[1]) else None
    if start is None or not 0 <= start <= 2 or body.op != "rel" or body.value != ("=",):
        return False
    label, name = body.args[0], condition.args[0].value
    return label.op == "sym" and label.value.endswith(f"_{name}") or label.op == "call" and name in symbols(label)
