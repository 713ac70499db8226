"""Sets of points of the plane or of space: {(x, y) : x + y = 1}, {(t, 1 - t) : t real}, or the equation itself.

In: two trees. Out: True, False, or None where they are not of this kind. Both become one relation between the
coordinates, named after their places.
"""

from stratos_jax.grading import math_curves
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_names import renamings
from stratos_jax.grading.math_same import Context, same_value
from stratos_jax.grading.math_tree import Node, rename, replace, symbols

COORDINATES = ("x", "y", "z")


def same_points(gold: Node, answer: Node, context: Context) -> bool | None:
    """Two descriptions of one set of points."""
    if not any(_is_point_set(node) for node in (gold, answer)) and not gold.op == answer.op == "builder":
        return None
    if gold.op == answer.op == "builder" and _renamed(gold, answer, context):
        return True
    relations = [_relation(node) for node in (gold, answer)]
    left, right = relations
    if left is None or right is None or symbols(left) != symbols(right):
        return None if left is None or right is None else False
    if left.value == right.value == ("=",):
        return math_curves.same_equation(left, right)
    if len(left.args) == len(right.args) == 2 and left.value == right.value == ("!=",):
        return math_curves.same_equation(*(Node("rel", n.args, ("=",)) for n in relations if n))
    return math_curves.same_inequality(left, right, context)


def _renamed(gold: Node, answer: Node, context: Context) -> bool:
    """{2^a 3^b : a, b >= 0} with other letters."""
    if len(gold.args) != len(answer.args) or gold.args[0].op in ("rel", "sym"):
        return False
    for names in renamings(symbols(gold), symbols(answer)):
        moved = rename(answer, names)
        try:
            same = gold.args[1:] == moved.args[1:] and same_value(gold.args[0], moved.args[0], context)
        except Unreadable:
            continue
        if same:
            return True
    return False


def _is_point_set(node: Node) -> bool:
    return node.op == "builder" and _head(node).op == "tuple"


def _head(node: Node) -> Node:
    head = node.args[0]
    return head.args[0] if head.op == "rel" and head.value == ("in",) else head


def _relation(node: Node) -> Node | None:
    if node.op == "rel" and len(node.args) == 2 and symbols(node) <= set(COORDINATES):
        return node
    if not _is_point_set(node):
        return None
    head, conditions = _head(node), [c for c in node.args[1:] if not _says_real(c)]
    if head.value != "()" or len(head.args) > len(COORDINATES):
        return None
    if all(a.op == "sym" for a in head.args):
        names = {a.value: name for a, name in zip(head.args, COORDINATES)}
        if len(names) != len(head.args) or len(conditions) != 1 or not symbols(conditions[0]) <= set(names):
            return None
        only = conditions[0]
        return rename(only, names) if only.op == "rel" and len(only.args) == 2 and only.value != ("in",) else None
    if conditions or len(head.args) != 2 or len(symbols(head)) != 1:
        return None
    (name,) = symbols(head)
    for place, arg in enumerate(head.args):
        if arg == Node("sym", value=name):
            other = replace(head.args[1 - place], name, Node("sym", value=COORDINATES[place]))
            return Node("rel", (Node("sym", value=COORDINATES[1 - place]), other), ("=",))
    return None


def _says_real(condition: Node) -> bool:
    """t in R, which restricts nothing."""
    return condition.op == "rel" and condition.value == ("in",) and condition.args[1] == Node("special", value="REALS")
