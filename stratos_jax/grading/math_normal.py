"""One form for what answers say in many: labels apart from values, conditions apart from lists, dots filled in.

In: a tree. Out: a plainer tree, its label, or the items of a collection.
"""

import re

from stratos_jax.grading import math_families
from stratos_jax.grading.math_exact import exact
from stratos_jax.grading.math_phrases import NEUTRAL
from stratos_jax.grading.math_same import decimal
from stratos_jax.grading.math_tree import Node, has, replace, symbols

MAX_ITEMS = 400


def plain(node: Node) -> Node:
    if node.op == "list":
        node = _grouped(_split_conditions(node))
    if node.op in ("list", "builder"):
        node = _enumerated(node)
    if node.op in ("add", "mul", "neg", "div") and has(node, "tuple") and not _is_point(node):
        node = _as_vectors(node)  # (1, 3, 0) + t(2, -1, 4)
    if _is_chain(node):
        node = _chain(node)
    if node.op == "rel" and node.value == ("=",) and not symbols(node) and not has(node, "words", "missing", "call"):
        if _contradicts(node.args):
            return node
        node = node.args[0]  # 1/6 = 0.1667: the value as it was found
    while node.op in ("paren", "approx") or (node.op == "set" and len(node.args) == 1 and node.args[0].op == "set"):
        node = node.args[0]
    if node.op == "rel" and node.args[0].op == "missing" and len(node.args) == 2 and node.value in (("=",), ("in",)):
        return plain(node.args[1])
    return node


def _contradicts(parts: tuple[Node, ...]) -> bool:
    """1/6 = 1.167: no rounding explains it."""
    values = [exact(part) for part in parts]
    known = [v for v in values if v is not None]
    return len(known) == len(values) and any(abs(v - known[0]) > abs(known[0]) / 20 for v in known)


def _is_point(node: Node) -> bool:
    return node.op == "mul" and node.args[0].op == "sym" and node.args[0].value.isupper()


def _as_vectors(node: Node) -> Node:
    if node.op == "tuple" and node.value == "()" and len(node.args) > 1:
        return Node("vector", node.args)
    return Node(node.op, tuple(map(_as_vectors, node.args)), node.value) if node.args else node


def _enumerated(node: Node) -> Node:
    """2k + 1, k = 0, 1, 2 and {2k + 1 : k = 0, 1, 2}: the values one by one."""
    head, conditions = node.args[0], node.args[1:]
    first = conditions[0] if conditions else head
    if len(symbols(head)) != 1 or head.op in ("sym", "rel", "list", "tuple") or first.op != "rel":
        return node
    name = first.args[0]
    if first.value not in (("=",), ("in",)) or name.op != "sym" or symbols(head) != {name.value}:
        return node
    values = first.args[1].args if first.args[1].op == "set" else (first.args[1], *conditions[1:])
    listed = [v for v in _fill_dots(tuple(values)) or [] if exact(v) is not None] if not has(node, "words") else []
    if len(listed) < 2 or len(listed) < len(values):
        return node
    return Node("set", tuple(replace(head, name.value, v) for v in listed))


def _is_chain(node: Node) -> bool:
    return node.op == "rel" and len(node.args) > 2 and set(node.value) == {"="}


def _chain(node: Node) -> Node:
    """a = b = 3 says a = 3, b = 3; x = 13/4 = 3.25 says x = 13/4; S = n(n+1)/2 = 55 says S = 55."""
    head, last = list(node.args[:-1]), node.args[-1]
    if all(a.op == "sym" for a in head) and last.op != "sym" and not any(symbols(a) & symbols(last) for a in head):
        return Node("list", tuple(Node("rel", (a, last), ("=",)) for a in head), "comma")
    exact_middle = decimal(last) is not None and decimal(head[1]) is None and not symbols(head[1])
    if not symbols(node):
        return head[0]
    if all(a.op == "sym" for a in node.args) and len(set(node.args)) == len(node.args):  # x = y = z in any order
        first, *rest = sorted(node.args, key=lambda a: a.value)
        return Node("rel", (first, *rest), ("=",) * len(rest))
    if last.op == "sym" and any(symbols(a) - symbols(last) for a in head[1:]):  # x = -y = z
        return Node("list", tuple(Node("rel", pair, ("=",)) for pair in zip(node.args, node.args[1:])), "and")
    return Node("rel", (head[0], head[1] if exact_middle else last), ("=",))


def _grouped(node: Node) -> Node:
    """x = 1, y = 2 or x = 2, y = 1: two tuples."""
    if node.op != "list" or any(a.op != "rel" or a.value != ("=",) or a.args[0].op != "sym" for a in node.args):
        return node
    names = [a.args[0].value for a in node.args]
    size = len(dict.fromkeys(names))
    if size < 2 or size == len(names) or names != names[:size] * (len(names) // size):
        return node
    groups = [node.args[i : i + size] for i in range(0, len(names), size)]
    return Node("list", tuple(Node("tuple", tuple(a.args[1] for a in group), "()") for group in groups), "or")


def _split_conditions(node: Node) -> Node:
    """x = k pi, k in Z: the membership is a condition on what stands before it."""
    conditions = [a for a in node.args if _membership(a) or _range_of_parameter(a, node)]
    first = next((i for i, a in enumerate(node.args) if a in conditions), 0)
    while first > 1 and conditions and node.args[first - 1].op == "sym" and node.args[0].op == "rel":
        first -= 1  # the k of "k, b in R"
        conditions.append(node.args[first])
    rest = [a for a in node.args if a not in conditions]
    if not conditions or not rest:
        return node
    body = rest[0] if len(rest) == 1 else Node("list", tuple(rest), node.value)
    return Node("given", (body, *conditions))


def _membership(node: Node) -> bool:
    return (
        node.op == "rel"
        and node.value == ("in",)
        and node.args[1].op == "special"
        and node.args[0].op in ("sym", "list")
    )


def _range_of_parameter(node: Node, whole: Node) -> bool:
    """The k >= 0 of n = 2^k, k >= 0."""
    if node.op != "rel" or node.value not in ((">=",), (">",)) or node.args[0].op != "sym":
        return False
    name = node.args[0].value
    users = [a for a in whole.args if a.op == "rel" and a.value == ("=",) and name in symbols(a.args[1])]
    return name in math_families.PARAMETERS and bool(users)


def shape_of(node: Node) -> str:
    """set, tuple, list, or one."""
    node = strip_tuple_label(node)
    if node.op == "matrix" and 1 in node.value or node.op == "vector":
        return "vector"
    return node.op if node.op in ("set", "tuple", "list") else "one"


def word_label(node: Node) -> str | None:
    """The word before a set or an interval: decreasing on (0, 1)."""
    if node.op == "rel" and node.value == ("=",) and node.args[0].op == "sym":
        name = node.args[0].value
        return name.lower() if len(name) > 2 and name.isalpha() else None
    return None


def strip_tuple_label(node: Node) -> Node:
    """(x, y) = (1, 2), A(1, 2), n in {1, 2}, x = {1, 2}: what is on the right."""
    if node.op == "rel" and len(node.args) == 2 and node.value in (("=",), ("in",)):
        if node.args[1].op in ("set", "tuple", "vector", "matrix") or node.value == ("in",):
            return node.args[1]
    if node.op == "mul" and node.args[0].op == "sym" and node.args[1].op == "tuple" and node.args[0].value.isupper():
        return node.args[1]
    if node.op == "call" and len(node.args) > 1 and node.value.isupper():
        return Node("tuple", node.args, "()")
    return node


def items_of(node: Node) -> list[Node] | None:
    """The values of a collection, with signs spread out and a shared label on each."""
    node = strip_tuple_label(node)
    if node.op == "set" and len(node.args) == 1 and node.args[0].op == "list":
        node = node.args[0]
    if node.op not in ("list", "set"):
        return spread(node)
    found: list[Node] = []
    args = _fill_dots(node.args)
    if args is None:
        return None
    shared = None
    for arg in args:
        arg = plain(arg)
        if arg.op == "rel" and arg.value == ("=",) and arg.args[0].op in ("sym", "call"):
            shared = arg.args[0]
        elif arg.op == "rel" and arg.value == ("in",) and arg.args[1].op == "special":
            continue
        elif shared is not None and arg.op not in ("rel", "words") and node.op == "list":
            arg = Node("rel", (shared, arg), ("=",))
        found += spread(arg)
    return found


def spread(node: Node) -> list[Node]:
    """One tree for each reading of +-; a relation with such a sign becomes several relations."""
    if node.op == "rel" and node.value == ("=",) and node.args[1].op in ("set", "list") and node.args[0].op == "sym":
        return [Node("rel", (node.args[0], n), ("=",)) for arg in node.args[1].args for n in spread(arg)]
    return math_families.expand_signs(node)


def _fill_dots(args: tuple[Node, ...]) -> list[Node] | None:
    """1, 2, ..., 9 written out, where the numbers around the dots make a progression."""
    places = [i for i, a in enumerate(args) if a.op == "ldots"]
    if not places:
        return list(args)
    place = places[0]
    values = [exact(a) if a.op != "ldots" else None for a in args]
    if len(places) > 1 or place < 2 or place == len(args) - 1:
        return None
    before, after = values[place - 1], values[place + 1]
    first = values[place - 2]
    if before is None or after is None or first is None or before == first:
        return None
    step = before - first
    count = (after - before) / step
    known = [v for v in values[:place] if v is not None]
    steady = all(b - a == step for a, b in zip(known, known[1:]))
    if count.denominator != 1 or not 0 < count <= MAX_ITEMS or not steady or len(known) != place:
        return None
    middle = [Node("num", value=(before + step * n, None)) for n in range(1, int(count))]
    signed = [Node("neg", (Node("num", value=(-m.value[0], None)),)) if m.value[0] < 0 else m for m in middle]
    return [*args[:place], *signed, *args[place + 1 :]]


def label_name(node: Node) -> str | None:
    label = label_of(node)
    if label is None:
        return None
    return label.value if label.op in ("sym", "words", "call") else spelled(label)


def distinct(names: list[str | None]) -> bool:
    return len(names) > 1 and all(names) and len(set(names)) == len(names)


def label_of(node: Node) -> Node | None:
    """The x of x = 5, the f(x) of f(x) = x + 1, the P(A) of P(A) = 1/2."""
    if node.op == "ratio" and node.args[0].op == "sym" and len(node.args[0].value) > 1 and len(node.args) == 2:
        return node.args[0]
    if node.op != "rel" or set(node.value) != {"="} or len(node.args) != 2:
        return None
    first, last = node.args[0], node.args[-1]
    if is_label(first) and not (symbols(first) & symbols(last) and first.op == "sym"):
        return first
    if len(node.args) == 2 and is_label(last) and not symbols(first):
        return last
    return None


def is_label(node: Node) -> bool:
    if node.op in ("sym", "words", "missing"):
        return True
    if node.op in ("paren", "tuple", "vector") or node.op == "fn" and node.value in ("abs", "min", "max", "det"):
        return all(is_label(arg) for arg in node.args)
    if node.op == "call":
        return True
    if node.op == "mul":  # AB, P(A), a_n(x)
        return all(is_label(arg) for arg in node.args) and all(a.op != "sym" or a.value != "e" for a in node.args)
    return False


def unlabelled(node: Node) -> Node:
    label = label_of(node)
    if label is None:
        return node
    other = node.args[-1] if node.args[0] == label else node.args[0]
    return plain(other)


def spelled(node: Node) -> str:
    """The letters of a label: AB for A times B and for the segment AB; the m of an angle's measure is dropped."""
    if node.op == "mul" and node.args[0] == Node("sym", value="m"):
        return spelled(node.args[1])
    if node.op == "fn" and node.value == "abs" and node.args[0].op == "mul":  # |AB|
        return spelled(node.args[0])
    if node.op == "mul" and all(a.op == "sym" and len(a.value) == 1 and a.value.isupper() for a in node.args):
        return "".join(sorted(a.value for a in node.args))
    if node.op == "sym":
        return node.value.removesuffix("_overline").removesuffix("_bar")
    return "".join(map(spelled, node.args)) if node.op in ("mul", "paren") else f"<{node.op} {node.value}>"


def shortened(ours: Node, theirs: Node) -> bool:
    """m for m_max; never a_1 for a_2, nor a_n for a_{n+1}."""
    stems = [_label_stem(label) for label in (ours, theirs)]
    bare = any("_" not in str(label.value) for label in (ours, theirs))
    return stems[0] is not None and stems[0] == stems[1] and bare


def same_quantity(ours: Node, theirs: Node) -> bool:
    """y(x) and y; f(x) and y."""
    call, name = (ours, theirs) if ours.op == "call" else (theirs, ours)
    if call.op != "call" or name.op != "sym" or any(a.op != "sym" for a in call.args):
        return False
    if call.value == name.value:
        return True
    return name.value == "y" and call.value.removesuffix("^-1") in ("f", "g", "h") and len(call.args) == 1


def same_index(ours: Node, theirs: Node) -> tuple[str, str] | None:
    """The index of a_k that is called n in a_n."""
    if ours.op != "sym" or theirs.op != "sym":
        return None
    names = [re.fullmatch(r"([A-Za-z]+)_([a-z])", label.value) for label in (ours, theirs)]
    if not names[0] or not names[1] or names[0].group(1) != names[1].group(1):
        return None
    return names[1].group(2), names[0].group(2)


def _label_stem(label: Node) -> str | None:
    return label.value.split("_")[0] if label.op == "sym" else None


def loose_label(label: Node) -> bool:
    """A name for the quantity that was asked for (S, Area, P(A)), not a coordinate or an unknown."""
    if label.op == "mul" and all(arg.op == "sym" for arg in label.args):
        return False  # AB is no AC
    if label.op == "sym":
        return label.value in NEUTRAL or len(label.value.split("_")[0]) == 1 and label.value[0].isupper()
    return True
