"""The primaries of the answer grammar: numbers, names, brackets, functions, matrices, cases, sums.

In: a `Parser` that stands before a primary. Out: the `Node`, with the parser behind it.
"""

from fractions import Fraction

from stratos_jax.grading.math_blocks import big_operator, blackboard, environment, fenced
from stratos_jax.grading.math_lex import Unreadable
from stratos_jax.grading.math_parse import (
    FUNCTION_LETTERS,
    INVERSE,
    LISTED_FUNCTIONS,
    ONE,
    PREFIX_FUNCTIONS,
    Parser,
)
from stratos_jax.grading.math_tree import Node, has, symbols

HALF = Node("num", value=(Fraction(1, 2), None))
THIRD = Node("num", value=(Fraction(1, 3), None))


def primary(p: Parser) -> Node:
    """One number, name, bracket or function with its arguments."""
    p.depth += 1
    if p.depth > 60:
        raise Unreadable("too deep")
    try:
        return _primary(p)
    finally:
        p.depth -= 1


def _primary(p: Parser) -> Node:
    token = p.take()
    if token.kind == "num":
        return Node("num", value=(token.value, token.digits))
    if token.kind == "unit":
        node = Node("unit", value=token.value)
        if token.value == "USD" and p.peek().kind == "num":  # \$ 5
            amount, mark = p.factor(), p.at
            mixed = p.mixed_part() if amount.op == "num" and amount.value[0].denominator == 1 else None
            if mixed is None:
                p.at = mark
            else:
                amount = Node("num", value=(amount.value[0] + mixed, None))
            return Node("mul", (amount, node))
        return node
    if token.kind == "noun":
        return Node("noun", value=token.text)
    if token.kind == "sym":
        return _symbol(p, token.text)
    if token.kind == "op":
        if token.text == "{":
            return _group(p)
        if token.text in ("(", "["):
            return _bracket(p, token.text)
        if token.text == "|":
            return _absolute(p)
        if token.text in ("-", "+"):
            node = p.factor()
            return Node("neg", (node,)) if token.text == "-" else node
    if token.kind == "cmd":
        return _command(p, token.text, token.value)
    raise Unreadable(f"unexpected {token.text!r}")


def _group(p: Parser) -> Node:
    """{...} only groups; {n \\choose k} is a binomial."""
    if p.peek().text == "}":
        p.take()
        return Node("empty")
    node = p.statement()
    if p.peek().text == "choose":
        p.take()
        node = Node("fn", (node, p.statement()), "binom")
    p.take("}")
    return node


def _bracket(p: Parser, opener: str) -> Node:
    bars, p.bars = p.bars, 0
    if p.peek().text in (")", "]"):
        raise Unreadable("empty brackets")
    node = p.statement()
    closer = p.take().text
    if closer not in (")", "]"):
        raise Unreadable("brackets")
    p.bars = bars
    items = node.args if node.op == "list" else (node,)
    sizes = {len(i.args) for i in items if i.op == "tuple" and i.value == "[]"} if opener + closer == "[]" else set()
    if len(sizes) == 1 and all(i.op == "tuple" and i.value == "[]" for i in items):  # [[1, 2], [3, 4]]
        return Node("matrix", tuple(cell for row in items for cell in row.args), (len(items), sizes.pop()))
    if len(items) == 1 and (node.op != "list"):
        return node if node.op in ("rel", "cong", "num", "words") else Node("paren", (node,))
    return Node("tuple", items, opener + closer)


def _absolute(p: Parser) -> Node:
    p.bars += 1
    node = p.sum()
    p.take("|")
    p.bars -= 1
    return Node("fn", (node,), "abs")


def _symbol(p: Parser, name: str) -> Node:
    """A name with its subscript and primes; a function letter takes the parentheses that follow."""
    starts = p.at < 2 or p.tokens[p.at - 2].kind == "sep" or p.tokens[p.at - 2].text in (",", ";", "where")
    while True:
        token = p.peek()
        if token.text == "^" and p.peek(1).kind == "num" and p.peek(2).text == "_":  # v^2_0 is v_0^2
            p.tokens[p.at : p.at + 2], moved = [], p.tokens[p.at : p.at + 2]
            p.take()
            name += "_" + _subscript(p)
            p.tokens[p.at : p.at] = moved
        elif token.text == "_" and token.kind == "op":
            p.take()
            name += "_" + _subscript(p)
        elif token.text == "'" and token.kind == "op":
            p.take()
            name += "'"
        else:
            break
    if name == "C" and p.peek().text == "(" and _is_binomial(p):
        p.take()
        arguments = p.statement()
        p.take(")")
        return Node("fn", arguments.args, "binom")
    letter = name.split("_")[0].rstrip("'")
    if [p.peek(i).text for i in range(3)] == ["(", "0", ")"]:  # I(0) is a value of I, not zero times I
        p.at += 3
        return Node("sym", value=f"{name}(0)")
    if name.startswith("C_") and len(name) > 3 and p.peek().text == "^":
        p.take()
        return Node("fn", (_from_subscript(name), _from_subscript("C_" + _subscript(p))), "binom")
    if letter in FUNCTION_LETTERS:
        if p.peek().text == "^" and p.peek(1).text == "{" and p.peek(2).text == "-" and p.peek(3).text == "1":
            for _ in range(5):
                p.take()
            name += "^-1"
        if p.peek().text == "(" and not p.peek().spaced or (p.peek().text == "(" and letter in "fgh"):
            p.take()
            arguments = p.statement()
            p.take(")")
            return Node("call", arguments.args if arguments.op == "list" else (arguments,), name)
    if starts and p.peek().text == "(" and p.peek(1).kind == "sym" and [p.peek(i).text for i in (2, 3)] == [")", "="]:
        argument = Node("sym", value=p.peek(1).text)  # y(x) = ... defines a function whatever its letter
        p.at += 3
        return Node("call", (argument,), name)
    return Node("sym", value=name)


def _is_binomial(p: Parser) -> bool:
    depth, ahead = 0, 0
    while True:
        text = p.peek(ahead).text
        depth += (text in ("(", "{")) - (text in (")", "}"))
        if depth == 1 and text == ",":
            return True
        if depth == 0 or not text:
            return False
        ahead += 1


def _from_subscript(name: str) -> Node:
    text = name[2:].strip("{}")
    number, letters = "", ""
    for char in text:
        number, letters = (number + char, letters) if char.isdigit() and not letters else (number, letters + char)
    if len(letters) > 1:
        raise Unreadable("combination")
    parts = [Node("num", value=(Fraction(number), None))] if number else []
    parts += [Node("sym", value=letters)] if letters else []
    return parts[0] if len(parts) == 1 else Node("mul", tuple(parts))


def _subscript(p: Parser) -> str:
    """The canonical text of a subscript: no braces around one letter, no spaces."""
    token = p.take()
    if token.text != "{":
        return token.text if token.kind != "num" else str(token.value)
    depth, parts = 1, []
    while True:
        token = p.take()
        if token.kind == "end" and token.text == "":
            raise Unreadable("subscript")
        depth += (token.text == "{") - (token.text == "}")
        if depth == 0:
            break
        if token.text not in ("{", "}"):
            parts.append(token.text if token.kind != "num" else str(token.value))
    text = "".join(parts)
    return text


def _command(p: Parser, name: str, value: str | None) -> Node:
    if name == "frac":
        return _fraction(p)
    if name in ("sqrt", "cbrt"):
        if name == "sqrt" and p.peek().text == "[":
            p.take()
            degree = p.sum()
            p.take("]")
            return Node("pow", (_argument(p), Node("div", (ONE, degree))))
        return Node("pow", (_argument(p), HALF if name == "sqrt" else THIRD))
    if name == "binom":
        return Node("fn", (_argument(p), _argument(p)), "binom")
    if name in PREFIX_FUNCTIONS:
        return _function(p, name)
    if name in LISTED_FUNCTIONS and p.peek().text in ("=", ":"):
        return Node("sym", value=name)
    if name in LISTED_FUNCTIONS:
        grouped = p.peek().text in ("(", "{", "lset")
        arguments = p.primary() if grouped else p.factor()
        return Node("fn", arguments.args if arguments.args and arguments.op in ("tuple", "set") else (arguments,), name)
    if name in ("lfloor", "lceil", "langle", "lset"):
        return fenced(p, name)
    if name == "infty":
        return Node("infty")
    if name == "emptyset":
        return Node("special", value="EMPTY")
    if name == "blackboard":
        return blackboard(p, value or "")
    if name == "unitvector":
        return Node("unitvector", value=value)
    if name in ("dot", "ddot"):
        label = p.name_of(_argument(p))
        if p.peek().text == "_":
            p.take()
            label += "_" + _subscript(p)
        return Node("sym", value=label + ("'" if name == "dot" else "''"))
    if name in ("overline", "bar", "underline", "tilde", "angle", "overarc", "triangle"):
        if name == "angle":
            node = p.term()
            return Node("sym", value="angle" + "".join(_letters(node)))
        node = _argument(p)
        if name in ("overline", "bar") and has(node, "num") and symbols(node) <= {"i"} and has(node, "sym"):
            return Node("fn", (node,), "conj")
        return Node("sym", value="".join(_letters(node)) + ("" if len(_letters(node)) > 1 else "_" + name))
    if name == "begin":
        return environment(p, value or "")
    if name in ("sum", "prod", "int", "lim"):
        return big_operator(p, name)
    if name == "underbrace":
        return _argument(p)
    if name in ("|", "norm"):
        if name == "norm":
            raise Unreadable("norm")
        return _absolute(p)
    raise Unreadable(f"command {name!r}")


def _letters(node: Node) -> list[str]:
    if node.op == "sym":
        return [node.value]
    if node.op in ("mul", "add"):
        return [letter for arg in node.args for letter in _letters(arg)]
    raise Unreadable("name")


def _fraction(p: Parser) -> Node:
    start = p.at
    top = _argument(p)
    middle = p.at
    bottom = _argument(p)
    above = "".join(t.text for t in p.tokens[start:middle] if t.text not in ("{", "}"))
    below = "".join(t.text for t in p.tokens[middle : p.at] if t.text not in ("{", "}"))
    order = 2 if above.startswith(("d^2", "partial^2")) else 1
    stripped = above.removeprefix("d^2" if order == 2 else "d").removeprefix("partial^2" if order == 2 else "partial")
    if below.startswith(("d", "partial")) and above.startswith(("d", "partial")) and len(below) > 1 and stripped:
        names = [t.text for t in p.tokens[start:middle] if t.kind == "sym" and t.text != "d"]
        if len(names) >= 1:
            return Node(
                "sym", value="".join(t.text for t in p.tokens[start:middle] if t.kind == "sym")[1:] + "'" * order
            )
    return Node("div", (top, bottom))


def _argument(p: Parser) -> Node:
    """A braced argument, or the next single token: \\frac12."""
    token = p.peek()
    if token.kind == "num" and token.text.isdigit() and len(token.text) > 1:
        # \frac12 and \sqrt10: only the first digit belongs to the command
        p.tokens = [*p.tokens[: p.at], *_split_digits(token), *p.tokens[p.at + 1 :]]
    node = p.primary()
    return node.args[0] if node.op == "paren" else node


def _split_digits(token):
    import dataclasses

    first, rest = token.text[0], token.text[1:]
    return [
        dataclasses.replace(token, text=first, value=Fraction(first)),
        dataclasses.replace(token, text=rest, value=Fraction(rest), spaced=False),
    ]


def _function(p: Parser, name: str) -> Node:
    exponent = base = None
    while p.peek().text in ("^", "_") and p.peek().kind == "op":
        if p.take().text == "^":
            exponent = p.sum() if p.peek().text in ("-", "+") else p.primary()
        else:
            base = p.primary()
    if exponent is not None and exponent == Node("neg", (ONE,)) and name in INVERSE:
        name, exponent = INVERSE[name], None
    argument = _function_argument(p)
    if name in ("log", "lg", "ln") and base is not None:
        node = Node("div", (Node("fn", (argument,), "ln"), Node("fn", (base,), "ln")))
    elif base is not None:
        raise Unreadable("base of a function")
    else:
        node = Node("fn", (argument,), name)
    return node if exponent is None else Node("pow", (node, exponent))


def _function_argument(p: Parser) -> Node:
    """Parentheses, or the product that follows up to the next sum or function: \\sin 2x \\cos x."""
    if p.peek().text in ("(", "["):
        node = p.primary()
        return p.postfix(node) if p.peek().text == "!" else node
    if p.peek().text == "{" or p.peek().text == "|":
        return p.primary()
    minus = p.peek().text == "-"
    if minus:
        p.take()
    node = p.factor()
    while p.starts_factor() and p.peek().text not in PREFIX_FUNCTIONS and p.peek().kind not in ("noun",):
        if p.integrals and p.peek().text == "d" and p.peek(1).kind == "sym":
            break
        if p.peek().text in ("(", "[") and not _inside_argument(node):
            break
        node = Node("mul", (node, p.factor()))
    if p.peek().text == "/" and _constant(node) and (p.peek(1).kind == "num"):
        p.take()
        node = Node("div", (node, p.factor()))
    return Node("neg", (node,)) if minus else node


def _inside_argument(node: Node) -> bool:
    return node.op == "num"


def _constant(node: Node) -> bool:
    if node.op == "sym":
        return node.value == "pi"
    return node.op in ("num", "mul", "div") and all(_constant(a) for a in node.args)
