"""The larger primaries of the answer grammar: braces, floors, environments, sums and integrals.

In: a `Parser` that stands behind their opening. Out: the `Node`, with the parser behind it.
"""

from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_parse import BRACKETS, Parser
from stratos_jax.grading.math_tree import Node


def fenced(p: Parser, opener: str) -> Node:
    bars, p.bars = p.bars, 0
    closer = BRACKETS[opener]
    if opener == "lset":
        node = _set(p)
    else:
        inner = p.statement()
        p.take(closer)
        items = inner.args if inner.op == "list" else (inner,)
        if opener == "langle":
            node = Node("vector", items)
        elif len(items) > 1:
            raise Unreadable("floor of a list")
        else:
            node = Node("fn", items, {"lfloor": "floor", "lceil": "ceil"}[opener])
    p.bars = bars
    return node


def _set(p: Parser) -> Node:
    if p.peek().text == "rset":
        p.take()
        return Node("special", value="EMPTY")
    p.bars = 1  # a bar in here is "such that", unless it opens an absolute value at the start of a term
    start = p.at
    conditions, p.conditions = p.conditions, []
    try:
        head = _set_head(p) if p.peek().text != "ldots" else Node("ldots")
        if head.op != "ldots" and p.peek().text in ("|", "mid", ":") or (p.peek().kind == "where"):
            p.take()
            p.bars = 0
            tail = p.statement()
            given = (tail.args if tail.op == "list" else (tail,)) + tuple(p.conditions)
            p.take("rset")
            return Node("builder", (head, *given))
        p.at = start
        p.bars = 0
        node = p.statement()
        p.take("rset")
        items = node.args if node.op == "list" else (node,)
        return Node("set", items) if not p.conditions else Node("builder", (node, *p.conditions))
    finally:
        p.conditions = conditions


def _set_head(p: Parser) -> Node:
    node = p.sum()
    if p.peek().text == "in":
        p.take()
        return Node("rel", (node, p.sum()), ("in",))
    return node


def blackboard(p: Parser, letter: str) -> Node:
    mark = ""
    while p.peek().text in ("^", "_"):
        p.take()
        grouped = p.peek().text == "{"
        depth_tokens = []
        if grouped:
            p.take()
            while p.peek().text != "}":
                token = p.take()
                if token.kind == "end" and token.text == "":
                    raise Unreadable("blackboard")
                depth_tokens.append(token.text)
            p.take()
        else:
            depth_tokens.append(p.take().text)
        mark += "".join(depth_tokens)
    names = {
        ("R", ""): "REALS", ("Z", ""): "INTEGERS", ("N", ""): "NATURALS", ("Q", ""): "RATIONALS", ("C", ""): "COMPLEX",
        ("Z", "+"): "NATURALS", ("Z", ">0"): "NATURALS", ("N", "*"): "NATURALS", ("N", "+"): "NATURALS",
        ("N", "0"): "NONNEGATIVE_INTEGERS", ("Z", "ge0"): "NONNEGATIVE_INTEGERS", ("R", "+"): "POSITIVE_REALS",
        ("R", ">0"): "POSITIVE_REALS", ("R", "ge0"): "NONNEGATIVE_REALS", ("R", "-"): "NEGATIVE_REALS",
        ("P", ""): "PRIMES", ("N", ">0"): "NATURALS", ("Z", "*"): "NONZERO_INTEGERS",
    }  # fmt: skip
    return Node("special", value=names.get((letter, mark), f"{letter}^{mark}"))


def environment(p: Parser, name: str) -> Node:
    rows: list[list[Node]] = [[]]
    conditions, p.conditions = p.conditions, []
    while not (p.peek().text == "end" and p.peek().kind == "cmd"):
        if p.peek().text == "\\":
            p.take()
            rows.append([])
        elif p.peek().text == "&" or p.peek().kind == "where":
            p.take()
        elif p.peek().kind == "end":
            raise Unreadable("environment")
        else:
            p.conditions = []
            cell = p.statement()
            rows[-1].append(cell)
            rows[-1] += p.conditions
    p.take()
    p.conditions = conditions
    rows = [row for row in rows if row]
    if name == "cases":
        if len(rows) > 1 and all(len(row) == 1 and row[0].op == "rel" for row in rows):
            return Node("list", tuple(row[0] for row in rows), "and")  # a system
        if any(len(row) < 2 for row in rows):
            raise Unreadable("cases")
        return Node("cases", tuple(Node("case", tuple(row)) for row in rows))
    if not rows or len({len(row) for row in rows}) != 1 or name not in ("pmatrix", "bmatrix", "vmatrix", "matrix",
                                                                        "array", "smallmatrix", "Bmatrix"):  # fmt: skip
        raise Unreadable(f"environment {name}")
    node = Node("matrix", tuple(cell for row in rows for cell in row), (len(rows), len(rows[0])))
    return Node("fn", (node,), "det") if name == "vmatrix" else node


def big_operator(p: Parser, name: str) -> Node:
    low = high = None
    while p.peek().text in ("_", "^"):
        if p.take().text == "_":
            low = p.primary() if p.peek().text != "{" else _braced_statement(p)
        else:
            high = p.primary()
    p.integrals += name == "int"
    body = p.term()
    p.integrals -= name == "int"
    if name == "int":
        variable, body = _differential(body)
        return Node("int", (body, low or Node("empty"), high or Node("empty")), variable)
    if name == "lim":
        raise Unreadable("limit")
    if low is None or high is None or low.op != "rel" or low.value != ("=",) or low.args[0].op != "sym":
        raise Unreadable("sum without bounds")
    return Node(name, (body, low.args[1], high), low.args[0].value)


def _braced_statement(p: Parser) -> Node:
    p.take("{")
    node = p.statement()
    p.take("}")
    return node


def _differential(body: Node) -> tuple[str, Node]:
    """f dx -> (x, f)."""
    if body.op == "mul" and body.args[0].op == "mul" and body.args[0].args[1] == Node("sym", value="d"):
        return body.args[1].value, body.args[0].args[0]
    raise Unreadable("integral")
