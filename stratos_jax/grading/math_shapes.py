"""Compare two answers as wholes: lists, sets, tuples, labels, relations, functions, words.

In: two trees, gold first, and what the problem asks. Out: True, False, or None where it cannot be told.
Lists and sets have no order unless the problem asks for one; tuples have.
"""

import itertools
import re

from stratos_jax.grading import math_builders, math_curves, math_families, math_sets, math_words
from stratos_jax.grading.math_conditions import harmless
from stratos_jax.grading.math_exact import exact
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_meaning import same_meaning, same_symbol
from stratos_jax.grading.math_names import INTEGRATION, renamings, same_call, same_up_to_constants
from stratos_jax.grading.math_normal import (
    MAX_ITEMS,
    distinct,
    is_label,
    items_of,
    label_name,
    label_of,
    loose_label,
    plain,
    same_index,
    same_quantity,
    shape_of,
    shortened,
    spelled,
    strip_tuple_label,
    unlabelled,
    word_label,
)
from stratos_jax.grading.math_same import Context, same_value
from stratos_jax.grading.math_tree import Node, has, rename, symbols

INTEGERS_ASKED = re.compile(r"\b(?:integers?|natural numbers?|whole numbers?)\s+(?:values?\s+of\s+)?\$?[knmN]\b")
FREE_LETTERS = frozenset("k l j t s".split())  # of a parameter; n, m, p and q are given by the problem
RENAMED = frozenset("t s k n m l r a b c d u v p q j lambda mu alpha beta".split())


def same_answer(gold: Node, answer: Node, context: Context) -> bool | None:
    """The answers say the same."""
    gold, answer = plain(gold), plain(answer)
    if gold == answer:
        return True
    for compare in (
        same_meaning,
        same_symbol,
        math_builders.same_points,
        _families,
        _unconditional,
        _as_sets,
        _collections,
        _single,
    ):
        verdict = compare(gold, answer, context)
        if verdict is not None:
            return verdict
    return None


def _families(gold: Node, answer: Node, context: Context) -> bool | None:
    return math_families.same_families(gold, answer)


# --- conditions -----------------------------------------------------------------------------------------------------


def _unconditional(gold: Node, answer: Node, context: Context) -> bool | None:
    """Conditions on one side ("where k is a constant", "for all x") that the other leaves out."""
    if gold.op != "given" and answer.op != "given":
        return None
    bodies = [node.args[0] if node.op == "given" else node for node in (gold, answer)]
    conditions = [node.args[1:] if node.op == "given" else () for node in (gold, answer)]
    if not all(harmless(c, bodies[i]) for i in (0, 1) for c in conditions[i]):
        found = math_sets.same_reals(gold, answer)
        if found is not None:
            return found
        if conditions[0] and conditions[1]:
            return same_answer(bodies[0], bodies[1], context) and _same_conditions(
                conditions[0], conditions[1], context
            )
        if conditions[1]:
            return False if same_answer(bodies[0], bodies[1], context) is False else None
    return same_answer(bodies[0], bodies[1], context)


def _same_conditions(gold: tuple[Node, ...], answer: tuple[Node, ...], context: Context) -> bool:
    ours = [c for c in gold if c.op != "words"]
    theirs = [c for c in answer if c.op != "words"]
    return len(ours) == len(theirs) and all(any(same_answer(a, b, context) for b in theirs) for a in ours)


# --- sets of reals --------------------------------------------------------------------------------------------------


def _as_sets(gold: Node, answer: Node, context: Context) -> bool | None:
    """At least one side can only be a set of reals."""
    if gold.op == answer.op == "tuple":
        return None
    gold, answer = _listed_elements(gold, answer), _listed_elements(answer, gold)
    if not any(_is_region(node) for node in (gold, answer)):
        return None
    found = math_sets.same_reals(gold, answer, bool(INTEGERS_ASKED.search(context.problem)))
    if found is not None:
        return found
    if any(_is_number(node) for node in (gold, answer)):
        return False
    bodies = [
        node.args[1] if node.op == "rel" and node.value == ("in",) and is_label(node.args[0]) else node
        for node in (gold, answer)
    ]
    if bodies != [gold, answer]:
        return same_answer(bodies[0], bodies[1], context)
    return None


def _is_number(node: Node) -> bool:
    return node.op in ("num", "add", "mul", "div", "neg", "pow", "fn") and not has(node, "pm", "words", "noun")


def _listed_elements(node: Node, other: Node) -> Node:
    """1, 2, 3 beside {n in Z : 1 <= n <= 3} is a set."""
    if other.op not in ("builder", "diff", "inter") or node.op not in ("list", "rel", "pm"):
        return node
    if node.op == "rel" and (node.value != ("=",) or node.args[0].op != "sym"):
        return node
    items = [unlabelled(item) for item in items_of(node) or []]
    if items and not any(_is_region(a) or a.op in ("rel", "tuple") or symbols(a) for a in items):
        return Node("set", tuple(items))
    return node


def _is_region(node: Node) -> bool:
    if node.op == "list":
        return any(_is_region(arg) for arg in node.args)
    if node.op == "rel":
        return node.value != ("=",) and "equiv" not in node.value and "->" not in node.value
    return node.op in ("union", "inter", "diff", "builder") or node.op == "special"


# --- lists, sets and tuples -----------------------------------------------------------------------------------------


def _collections(gold: Node, answer: Node, context: Context) -> bool | None:
    """More than one value on at least one side."""
    shapes = [shape_of(node) for node in (gold, answer)]
    left, right = (items_of(node) for node in (gold, answer))
    if left is None or right is None or (len(left) == len(right) == 1 and "tuple" not in shapes):
        return None
    if len(left) > MAX_ITEMS or len(right) > MAX_ITEMS:
        return None
    words = [word_label(node) for node in (gold, answer)]
    if all(words) and words[0] != words[1]:
        return False
    if "tuple" in shapes:
        verdict = _tuples(gold, answer, left, right, shapes, context)
        if verdict is not None:
            return verdict
    labels = [[label_name(item) for item in items] for items in (left, right)]
    if all(distinct(names) for names in labels):
        if set(labels[0]) != set(labels[1]):
            return False
        order = {name: item for name, item in zip(labels[1], right)}
        return _ordered(left, [order[name] for name in labels[0]], context)
    if distinct(labels[0]) or distinct(labels[1]):
        if len(left) > 1 and not any(labels[0] if distinct(labels[1]) else labels[1]):
            if "set" in shapes and all(re.fullmatch(r"[xz]_\d", n or "") for n in labels[0]):  # x_1, x_2: the roots
                return _unordered([unlabelled(a) for a in left], right, context)
            if len(right) == 1 and distinct(labels[0]):  # one value for all that were asked for
                return all(same_answer(item, right[0], context) for item in left)
            return _ordered(left, right, context)
    curve = (
        math_curves.one_curve(left, right)
        if len(right) == 1
        else math_curves.one_curve(right, left)
        if len(left) == 1
        else None
    )
    if curve is not None:
        return curve
    if math_words.ORDER_ASKED.search(context.problem) and "set" not in shapes:
        return _ordered(left, right, context)
    return _unordered(left, right, context)


def _tuples(
    gold: Node, answer: Node, left: list[Node], right: list[Node], shapes: list[str], context: Context
) -> bool | None:
    """At least one side is a tuple (or several, spread from +-)."""
    inner = [strip_tuple_label(node) for node in (gold, answer)]
    free = math_families.independent_signs(inner[0])
    if free and len(free) == len(right):
        return _unordered(free, right, context)
    free = math_families.independent_signs(inner[1])
    if free and len(free) == len(left):
        return _unordered(left, free, context)
    if shapes == ["tuple", "tuple"]:
        if len(left) == len(right) == 1:
            return _same_tuple(inner[0], inner[1], context)
        return _unordered(left, right, context)
    other = 1 if shapes[0] == "tuple" else 0
    if shapes[other] == "list" and len(inner[1 - other].args) == 2 and inner[1 - other].value != "()":
        return False  # an interval is no list of its ends
    node, items = inner[other], (left, right)[other]
    mine = inner[1 - other]
    if shapes[other] == "vector":
        return len(node.args) == len(mine.args) and all(
            same_answer(a, b, context) for a, b in zip(inner[0].args, inner[1].args)
        )
    if len((left, right)[1 - other]) > 1:  # a tuple with +- in it
        return _unordered(left, right, context)
    if shapes[other] == "list" and len(items) == len(mine.args) and not any(shape_of(i) == "tuple" for i in items):
        names = [label_name(i) for i in items]
        if any(names):
            names_of_tuple = _tuple_labels(gold if other == 1 else answer)
            if names_of_tuple and set(names_of_tuple) == set(names):
                items = [items[names.index(name)] for name in names_of_tuple]
            elif distinct(names) and sorted(n for n in names if n) in (["x", "y"], ["x", "y", "z"]):
                items = [items[names.index(name)] for name in sorted(n for n in names if n)]
        pairs = zip(mine.args, items) if other == 1 else zip(items, mine.args)
        return all(same_answer(a, b, context) for a, b in pairs)
    if shapes[other] == "set":
        return False
    if shapes[other] == "one" and has(node, "matrix", "vector", "unitvector"):
        vector = Node("vector", mine.args)
        return same_value(vector, node, context) if other == 1 else same_value(node, vector, context)
    return _unordered(left, right, context) if shapes[other] == "list" else False


def _tuple_labels(node: Node) -> list[str] | None:
    if node.op == "rel" and node.value == ("=",) and node.args[0].op == "tuple":
        return [a.value if a.op == "sym" else "" for a in node.args[0].args]
    return None


def _same_tuple(gold: Node, answer: Node, context: Context) -> bool:
    if len(gold.args) != len(answer.args) or gold.value != answer.value:
        return False
    if _ordered(list(gold.args), list(answer.args), context):
        return True
    for names in renamings(symbols(gold), symbols(answer)):
        if set(names) | set(names.values()) <= RENAMED and not _named_in(context.problem, names):
            moved = rename(answer, names)
            if _ordered(list(gold.args), list(moved.args), context):
                return True
    return False


def _named_in(problem: str, names: dict[str, str]) -> bool:
    """The problem itself speaks of a renamed symbol: then it is not free."""
    return any(re.search(rf"(?<![A-Za-z\\]){re.escape(n)}(?![A-Za-z])", problem) for n in names.values() if len(n) == 1)


def _ordered(left: list[Node], right: list[Node], context: Context) -> bool:
    return len(left) == len(right) and all(same_answer(a, b, context) for a, b in zip(left, right))


def _unordered(left: list[Node], right: list[Node], context: Context) -> bool:
    """The same values, however often each is written; a gold that repeats a value is a sequence, not a set."""
    if len(left) > len(set(left)) and not any(symbols(a) for a in left):
        return _ordered(left, right, context)
    values = [{exact(item) if item.op == "num" else None for item in items} for items in (left, right)]
    if None not in values[0] and values[0] == values[1]:
        return True
    return all(any(same_answer(a, b, context) for b in right) for a in left) and all(
        any(same_answer(a, b, context) for a in left) for b in right
    )


# --- labels and relations -------------------------------------------------------------------------------------------


def _single(gold: Node, answer: Node, context: Context) -> bool | None:
    """One value, equation or function on each side."""
    labels = [label_of(node) for node in (gold, answer)]
    left, right = unlabelled(gold), unlabelled(answer)
    if labels[0] is not None and labels[1] is not None:
        return _both_labelled(gold, answer, labels[0], labels[1], context)
    if labels[0] is not None or labels[1] is not None:
        other = right if labels[0] is not None else left
        if other.op == "rel":
            return _relations(gold, answer, context)
        return _expressions(left, right, context, function=labels[0])
    if gold.op == "rel" or answer.op == "rel":
        return _relations(gold, answer, context)
    if gold.op == "ratio" or answer.op == "ratio":
        return _ratios(gold, answer, context)
    if gold.op == "cong" and answer.op == "cong":
        return None
    if gold.op == answer.op == "union":
        return _unordered(list(gold.args), list(answer.args), context)
    return _expressions(gold, answer, context, function=None)


def _both_labelled(gold: Node, answer: Node, ours: Node, theirs: Node, context: Context) -> bool | None:
    left, right = unlabelled(gold), unlabelled(answer)
    if ours.op == theirs.op == "call":
        names = same_call(theirs, ours)
        if names is not None and (set(names.values()) - set(names)) & symbols(right):
            return False  # f(t) = x is a constant, f(x) = x is not
        if names is None:
            return False if same_value(left, right, context) is False else None
        return _expressions(left, rename(right, names), context, function=ours)
    if ours == theirs or spelled(ours) == spelled(theirs) or shortened(ours, theirs) or same_quantity(ours, theirs):
        return _expressions(left, right, context, function=ours)
    if index := same_index(ours, theirs):
        return index[1] not in symbols(right) and _expressions(left, rename(right, dict([index])), context, ours)
    same = math_curves.same_equation(gold, answer) if not has(gold, "words") and not has(answer, "words") else False
    if same:
        return True
    loose = all(loose_label(label) for label in (ours, theirs))
    return bool(loose and same_answer(left, right, context))


def _expressions(gold: Node, answer: Node, context: Context, function: Node | None) -> bool | None:
    """Values; arbitrary constants may have other names."""
    if gold.op in ("ratio",) or answer.op in ("ratio",):
        return _ratios(gold, answer, context)
    if gold.op == "cases" and answer.op == "cases" and gold == answer:
        return True
    try:
        same = same_value(gold, answer, context)
    except Unreadable:
        return None
    if same:
        return True
    try:
        if any(INTEGRATION.fullmatch(n) for n in symbols(gold) | symbols(answer)) and same_up_to_constants(
            gold, answer, context
        ):
            return True
        if function is not None:
            arguments = frozenset().union(*(symbols(a) for a in function.args)) if function else frozenset()
            ours, theirs = symbols(gold) - arguments, symbols(answer) - arguments
            for names in renamings(ours, theirs):
                parameters = set(names.values()) <= FREE_LETTERS and set(names) <= math_families.PARAMETERS
                free = function.op == "call" or parameters
                if free and not _named_in(context.problem, names) and same_value(gold, rename(answer, names), context):
                    return True
    except Unreadable:
        return same
    return same


def _ratios(gold: Node, answer: Node, context: Context) -> bool | None:
    """3:4 against 6:8 or 3/4."""
    left, right = (node.args if node.op == "ratio" else None for node in (gold, answer))
    if left and right:
        if len(left) != len(right):
            return False
        cross = [
            (Node("mul", (left[i], right[i + 1])), Node("mul", (left[i + 1], right[i]))) for i in range(len(left) - 1)
        ]
        return all(same_value(a, b, context) for a, b in cross)
    if "probab" in context.problem and (left is None) != (right is None):  # odds are no probability
        return False
    sides = [Node("div", node.args) if node.op == "ratio" and len(node.args) == 2 else node for node in (gold, answer)]
    return same_answer(sides[0], sides[1], context) if sides[0].op != "ratio" and sides[1].op != "ratio" else False


def _relations(gold: Node, answer: Node, context: Context) -> bool | None:
    """Equations and inequalities in several variables."""
    if gold.op == "rel" and answer.op != "rel" and gold.value == ("=",):
        ratio = _ratio_label(gold)
        if ratio is not None:
            return same_answer(ratio[1], answer, context)
        return False
    if answer.op == "rel" and gold.op != "rel":
        ratio = _ratio_label(answer) if answer.value == ("=",) else None
        return same_answer(gold, ratio[1], context) if ratio is not None else False
    if gold.value == answer.value == ("=",):
        if any(has(n, "words", "ratio") for n in (gold, answer)):
            return all(same_answer(a, b, context) for a, b in itertools.zip_longest(gold.args, answer.args))
        if len(gold.args) == len(answer.args) == 2 and all(
            same_value(a, b, context) for a, b in zip(gold.args, answer.args)
        ):
            return True
        return math_curves.same_equation(*(Node("rel", n.args, n.value) for n in (gold, answer)))
    found = math_curves.same_inequality(gold, answer, context)
    return False if found is None and gold.value != answer.value else found


def _ratio_label(node: Node) -> tuple[Node, Node] | None:
    """a/b = 3/4 names a ratio; its right side is the value."""
    left, right = node.args
    if left.op in ("div", "ratio") and all(is_label(arg) for arg in left.args) and not symbols(right):
        return left, right
    return None
