"""Names that may differ: arguments of functions, arbitrary constants, free parameters.

In: two trees, gold first. Out: whether they are the same up to such names, and the renamings to try.
"""

import itertools
import re
from collections.abc import Iterator

from mpmath import mp

from stratos_jax.grading.math_eval import Env, Matrix
from stratos_jax.grading.math_same import GAP, Context, real_points, same_value, values_at
from stratos_jax.grading.math_tree import Node, rename, replace, symbols

CONSTANT = re.compile(r"[CcKkABDab](_\{?\d\}?)?")


INTEGRATION = re.compile(r"[Cc](_\{?\d\}?)?")


def renamings(gold: frozenset[str], answer: frozenset[str]) -> Iterator[dict[str, str]]:
    """Ways to give the names that only the answer has the names that only the gold has."""
    ours, theirs = sorted(gold - answer), sorted(answer - gold)
    if ours and len(ours) == len(theirs) <= 3:
        for order in itertools.permutations(ours):
            yield dict(zip(theirs, order))


def same_up_to_constants(gold: Node, answer: Node, context: Context) -> bool:
    """Equal after renaming arbitrary constants (C, C_1, A, B), an additive one free to take up any number."""
    names = [symbols(gold), symbols(answer)]
    if any({"a", "b", "c"} <= side for side in names):  # a, b, c are given numbers
        return False
    marked = [{n for n in side if INTEGRATION.fullmatch(n)} for side in names]
    free = [{n for n in side if CONSTANT.fullmatch(n)} for side in names]
    ours = sorted(marked[0] or free[0] - names[1])
    theirs = sorted(marked[1] | (free[1] - names[0]) if marked[0] else marked[1])
    if not ours or len(ours) != len(theirs) or len(ours) > 4:
        return False
    for order in itertools.permutations(ours):
        moved = rename(answer, dict(zip(theirs, order)))
        if same_value(gold, moved, context):
            return True
    if len(ours) > 1:
        return False
    opposite = replace(answer, theirs[0], Node("neg", (Node("sym", value=ours[0]),)))
    if marked[0] and _shifts(gold, ours[0]) and same_value(gold, opposite, context):
        return True
    moved = rename(answer, {theirs[0]: ours[0]})
    return _additive(gold, ours[0]) and _additive(moved, ours[0]) and _differ_by_constant(gold, moved, ours[0])


def _shifts(node: Node, name: str) -> bool:
    """The constant stands beside a term: C - x."""
    if node.op == "add" and Node("sym", value=name) in (*node.args, *(a.args[0] for a in node.args if a.op == "neg")):
        return True
    return any(_shifts(arg, name) for arg in node.args)


def _additive(node: Node, name: str) -> bool:
    """The constant stands as + C on top."""
    if node.op == "add":
        return any(a == Node("sym", value=name) or _additive(a, name) for a in node.args)
    return False


def _differ_by_constant(gold: Node, answer: Node, name: str) -> bool:
    names = sorted((symbols(gold) | symbols(answer)) - {name})
    differences = []
    for values in real_points(names):
        pair = values_at(gold, answer, Env({**values, name: mp.mpf(0)}))
        moved = values_at(gold, answer, Env({**values, name: mp.mpf(1)}))
        if not pair or not moved or GAP in (pair, moved) or any(isinstance(v, Matrix) for v in (*pair, *moved)):
            continue
        if any(abs(b - a - 1) > mp.mpf(10) ** -20 for a, b in zip(pair, moved)):
            return False  # the constant stands elsewhere too
        if pair and all(not isinstance(v, Matrix) and abs(mp.im(v)) < 1e-25 for v in pair):
            differences.append(pair[0] - pair[1])
    return len(differences) >= 4 and all(abs(d - differences[0]) < mp.mpf(10) ** -22 for d in differences)


def same_call(answer_label: Node, gold_label: Node) -> dict[str, str] | None:
    """How to rename the arguments of f(t) to those of f(x); None if they cannot be matched."""
    if len(answer_label.args) != len(gold_label.args):
        return None
    if any(a.op != "sym" for a in (*answer_label.args, *gold_label.args)):
        return None if answer_label.args != gold_label.args else {}
    return {a.value: g.value for a, g in zip(answer_label.args, gold_label.args)}
