"""Partial responses: the `fields` parameter, `kind,items(name,size),prefixes` say."""

import re
from typing import Any


def select(value: dict[str, Any], wanted: str) -> dict[str, Any]:
    """The parts of `value` that `wanted` names."""
    tree, _ = _parse(re.findall(r"[^,()/]+|[,()/]", wanted), 0)
    return _keep(value, tree)


def _parse(words: list[str], at: int) -> tuple[dict[str, Any], int]:
    """A tree of names from `words[at:]`, and where it ends."""
    tree: dict[str, Any] = {}
    while at < len(words) and words[at] != ")":
        if words[at] == ",":
            at += 1
            continue
        name, at = words[at].strip(), at + 1
        branch: dict[str, Any] = {}
        if at < len(words) and words[at] == "(":
            branch, at = _parse(words, at + 1)
            at += 1
        elif at < len(words) and words[at] == "/":
            branch = {words[at + 1].strip(): {}}
            at += 2
        tree[name] = branch
    return tree, at


def _keep(value: Any, tree: dict[str, Any]) -> Any:
    if not tree or "*" in tree:
        return value
    if isinstance(value, list):
        return [_keep(item, tree) for item in value]
    if isinstance(value, dict):
        return {key: _keep(inner, tree[key]) for key, inner in value.items() if key in tree}
    return value
