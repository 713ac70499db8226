"""The tree of an answer, and what can be asked of any tree.

In: nothing. Out: `Node`, and look-ups and renaming over it.
"""

import dataclasses
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One operation with its operands; `value` holds what is not an operand (a name, a number, brackets)."""

    op: str
    args: "tuple[Node, ...]" = ()
    value: Any = None


def symbols(node: Node) -> frozenset[str]:
    """Free names of a tree."""
    if node.op == "sym":
        return frozenset() if node.value in ("pi", "e", "i") else frozenset((node.value,))
    found = frozenset().union(*(symbols(arg) for arg in node.args)) if node.args else frozenset()
    if node.op in ("sum", "prod", "int"):
        return found - {node.value}
    return found


def has(node: Node, *ops: str) -> bool:
    return node.op in ops or any(has(arg, *ops) for arg in node.args)


def uses(node: Node, test: Callable[[Node], bool]) -> bool:
    return test(node) or any(uses(arg, test) for arg in node.args)


def rename(node: Node, names: dict[str, str]) -> Node:
    """Replace symbols, all at once."""
    if node.op == "sym":
        return Node("sym", value=names.get(node.value, node.value))
    if not node.args:
        return node
    return Node(node.op, tuple(rename(arg, names) for arg in node.args), node.value)


def replace(node: Node, name: str, by: Node) -> Node:
    """Put a tree in the place of a symbol."""
    if node == Node("sym", value=name):
        return by
    return Node(node.op, tuple(replace(arg, name, by) for arg in node.args), node.value) if node.args else node
