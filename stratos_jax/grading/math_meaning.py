"""Answers that are names of things or fixed phrases, and answers that are one symbol.

In: two trees, gold first. Out: True, False, or None where neither side is of this kind.
"""

import re

from stratos_jax.grading import math_words
from stratos_jax.grading.math_normal import unlabelled
from stratos_jax.grading.math_same import Context
from stratos_jax.grading.math_tree import Node, has

SETS_OF_NUMBERS = frozenset(
    "REALS INTEGERS NATURALS EVENS ODDS POSITIVE_REALS NEGATIVE_REALS NONNEGATIVE_REALS NONPOSITIVE_REALS "
    "NONNEGATIVE_INTEGERS".split()
)


def same_meaning(gold: Node, answer: Node, context: Context) -> bool | None:
    """Names of things and fixed phrases."""
    left, right = _meaning(gold), _meaning(answer)
    if left is None and right is None:
        return None
    if left is None or right is None:
        if "EMPTY" in (left, right):
            return False if not has(gold if left is None else answer, "builder", "inter") else None
        return None if (left or right) in SETS_OF_NUMBERS else False
    return left == right


def _meaning(node: Node) -> str | None:
    node = unlabelled(node)
    if node.op == "rel" and node.value == ("in",) and node.args[0].op in ("sym", "missing"):
        node = node.args[1]
    if node.op == "words":
        return math_words.PHRASE_OF.get(node.value, node.value)
    if node.op == "special":
        return node.value
    if node.op == "infty":
        return "INFINITY"
    if node.op == "neg" and node.args[0].op == "infty":
        return "MINUS_INFINITY"
    if node.op == "tuple" and len(node.args) == 2 and node.args[0] == Node("neg", (Node("infty"),)):
        return "REALS" if node.args[1].op == "infty" else None
    return None


def same_symbol(gold: Node, answer: Node, context: Context) -> bool | None:
    """A single capital letter is compared by name."""
    if gold.op == answer.op == "sym":
        return _canonical_name(gold.value) == _canonical_name(answer.value)
    return None


def _canonical_name(name: str) -> str:
    return re.sub(r"[{}\s]", "", name)
