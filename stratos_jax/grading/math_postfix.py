"""What may stand behind a primary: powers, degrees and minutes, the base that a number is written in.

In: a `Parser` that stands behind the mark. Out: the `Node`, with the parser behind it.
"""

from stratos_jax.grading import math_words
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_parse import Parser
from stratos_jax.grading.math_tree import Node


def power(p: Parser, base: Node) -> Node:
    token = p.peek()
    if token.text in ("circ", "degree") or (token.text == "{" and p.peek(1).text in ("circ", "degree")):
        grouped = p.take().text == "{"
        if grouped:
            p.take()
            p.take("}")
        return arcminutes(p, Node("mul", (base, Node("unit", value="degree"))))
    if token.text in ("prime",) or (token.text == "{" and p.peek(1).text in ("prime", "'")):
        marks = 0
        grouped = p.peek().text == "{"
        while p.peek().text in ("{", "prime", "'"):
            marks += p.take().text != "{"
        if grouped:
            p.take("}")
        return Node("sym", value=f"{p.name_of(base)}{marks * chr(39)}")
    if token.text == "-" or token.text == "+":
        exponent = p.signed()
    elif token.text == "{":
        p.take()
        if p.peek().text in ("+", "-", "*") and p.peek(1).text == "}":
            mark = p.take().text
            p.take("}")
            return Node("sym", value=p.name_of(base) + mark) if base.op == "sym" else base
        exponent = p.sum()
        p.take("}")
    else:
        exponent = p.primary()
    return Node("pow", (base, exponent))


def arcminutes(p: Parser, degrees: Node) -> Node:
    if p.peek().kind == "num" and p.peek(1).text == "'":
        minutes = p.take().value
        p.take()
        part = Node("mul", (Node("num", value=(minutes / 60, None)), Node("unit", value="degree")))
        return Node("add", (degrees, part))
    return degrees


def based(p: Parser, node: Node) -> Node:
    """digits_base; the digits are read again from the token, for 0 and leading letters matter."""
    if node.op == "mul" and node.args[1].op == "sym":
        digits = _digits_of(node)
    else:
        digits = _digits_of(node.args[0] if node.op == "tuple" and len(node.args) == 1 else node)
    token = p.take()
    if token.text == "{":
        token = p.take()
        while token.text == "(":
            token = p.take()
        while p.peek().text in (")",):
            p.take()
        p.take("}")
    base = token.value if token.kind == "num" else math_words.BASES.get(token.text.lower())
    if digits is None or base is None or not 2 <= base <= 36:
        raise Unreadable("subscript of a number")
    return Node("base", value=(digits.upper(), int(base)))


def _digits_of(node: Node) -> str | None:
    if node.op == "num" and node.value[0].denominator == 1 and node.value[1] is None:
        return str(node.value[0])
    if node.op == "mul" and all(_digits_of(a) is not None or a.op == "sym" and len(a.value) == 1 for a in node.args):
        return "".join(_digits_of(a) or a.value for a in node.args)
    return None
