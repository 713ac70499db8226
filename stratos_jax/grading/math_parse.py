"""Parse tokens of an answer into a tree.

In: tokens with every word given a meaning. Out: a `Node`. The grammar, loosest first:
statement (lists, conditions) > relation > ratio > set operation > sum > term > factor > postfix > primary.
Raises `Unreadable` where the text does not fit; the caller then tries the libraries.
"""

from fractions import Fraction

from stratos_jax.grading.math_lex import Token, Unreadable
from stratos_jax.grading.math_tree import Node

RELATIONS = {"=": "=", "<": "<", ">": ">", "le": "<=", "ge": ">=", "ne": "!=", "approx": "=", "equiv": "equiv",
             "in": "in", "to": "->", "sim": "=", "notin": "notin", "subset": "subset", "doteq": "="}  # fmt: skip
SETS = {"cup": "union", "cap": "inter", "setminus": "diff", "bigcup": "union"}
CLOSERS = frozenset((")", "]", "}", "rset", "rfloor", "rceil", "rangle", "&", "\\", "end", "rvert"))
BRACKETS = {"(": ")", "[": "]", "lset": "rset", "{": "}", "lfloor": "rfloor", "lceil": "rceil", "langle": "rangle"}
PREFIX_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh coth sech csch arcsinh arccosh "
    "arctanh log ln lg exp det sgn arg Re Im abs floor ceil gamma cis".split()
)
LISTED_FUNCTIONS = frozenset(("gcd", "lcm", "max", "min"))
FUNCTION_LETTERS = frozenset("f g h F G H P Q T phi Phi psi zeta Gamma sigma tau".split())
INVERSE = {"sin": "arcsin", "cos": "arccos", "tan": "arctan", "cot": "arccot", "sinh": "arcsinh", "tanh": "arctanh",
           "cosh": "arccosh", "sec": "arcsec", "csc": "arccsc"}  # fmt: skip
STARTERS = (
    PREFIX_FUNCTIONS
    | LISTED_FUNCTIONS
    | frozenset(
        "frac sqrt cbrt binom sum prod int lim infty lfloor lceil langle lset begin unitvector overline bar dot ddot "
        "angle tilde degree partial nabla base underline blackboard emptyset underbrace".split()
    )
)
ONE = Node("num", value=(Fraction(1), None))
END = Token("end", "")


class Parser:
    """Recursive descent over one list of tokens; `tight` reads 1/2x as 1/(2x)."""

    def __init__(self, tokens: list[Token], *, tight: bool = False):
        self.tokens, self.at, self.tight, self.depth = list(tokens), 0, tight, 0
        self.ambiguous = False  # a slash was followed by a product: there is another reading
        self.integrals = 0  # open integrals, whose dx ends the argument of a function
        self.bars = 0  # open absolute values
        self.conditions: list[Node] = []

    def peek(self, ahead: int = 0) -> Token:
        index = self.at + ahead
        return self.tokens[index] if index < len(self.tokens) else END

    def take(self, text: str | None = None) -> Token:
        token = self.peek()
        if text is not None and token.text != text:
            raise Unreadable(f"wanted {text!r}, got {token.text!r}")
        self.at += 1
        return token

    def parse(self) -> Node:
        """The whole answer."""
        node = self.statement()
        if self.peek() is not END:
            raise Unreadable(f"left over: {self.peek().text!r}")
        return Node("given", (node, *self.conditions)) if self.conditions else node

    # --- lists and conditions -------------------------------------------------------------------------------------

    def statement(self) -> Node:
        """Clauses joined by commas, `and` or `or`, then their conditions."""
        items, joiner = [self.clause()], "comma"
        while True:
            token = self.peek()
            if token.text in (",", ";") or token.kind == "sep" or token.text in ("vee",):
                while self.peek().text in (",", ";", "vee") or self.peek().kind == "sep":
                    separator = self.take()
                    joiner = (
                        separator.text if separator.kind == "sep" else ("or" if separator.text == "vee" else joiner)
                    )
                if self.peek() is END or self.peek().text in CLOSERS:
                    break
                if self.peek().kind == "where":
                    continue
                items.append(self.clause())
            elif token.kind == "where":
                self.take()
                if self.peek() is END:
                    break
                condition = self.statement()
                for part in condition.args if condition.op == "list" else (condition,):
                    if part.op == "rel" and part.args[0].op == "call":  # "... for all x, or f(x) = ..."
                        items.append(part)
                    else:
                        self.conditions.append(part)
            elif token.kind in ("condition", "otherwise"):
                self.conditions.append(Node("words", value=self.take().text))
            else:
                break
        return items[0] if len(items) == 1 else Node("list", tuple(items), joiner)

    def clause(self) -> Node:
        """A relation, or a chain of them."""
        self.depth += 1
        if self.depth > 60:
            raise Unreadable("too deep")
        args, ops = [], []
        token = self.peek()
        if token.text == "ldots":
            self.take()
            self.depth -= 1
            return Node("ldots")
        if token.text in ("approx", "sim") and token.kind == "cmd":
            self.take()
            self.depth -= 1
            return Node("approx", (self.clause(),))
        if token.kind in ("text", "condition", "otherwise"):
            self.take()
            if token.kind == "condition" and self.starts_factor():
                self.conditions.append(Node("words", value=token.text))
                self.depth -= 1
                return self.clause()
            args.append(Node("words", value=token.text))
        elif token.text in RELATIONS:
            args.append(Node("missing"))
        else:
            args.append(self.ratio())
        while self.peek().text in RELATIONS or (self.peek().text == ":" and self.peek(1).text == "="):
            if self.peek().text == ":":
                self.take()
            op = RELATIONS[self.take().text]
            ops.append(op)
            args.append(self.ratio())
            if op == "equiv":
                modulus = self.modulus()
                if modulus is None and self.peek().text in (",", "or", "and"):
                    residues = [args[-1]]
                    mark = self.at
                    while self.peek().text in (",", "or", "and"):
                        self.take()
                        residues.append(self.ratio())
                        modulus = self.modulus()
                        if modulus is not None:
                            break
                    if modulus is None:
                        self.at = mark
                    else:
                        args[-1] = Node("set", tuple(residues))
                self.depth -= 1
                if modulus is None:
                    return Node("rel", tuple(args), ("=",) * len(ops))
                return Node("cong", (args[0], args[-1], modulus))
        modulus = None if ops else self.modulus()
        self.depth -= 1
        if modulus is not None:
            return Node("cong", (Node("missing"), args[0], modulus))
        if self.peek().kind == "property":
            residue = Node("num", value=(Fraction(self.take().value), None))
            return Node("cong", (args[0], residue, Node("num", value=(Fraction(2), None))))
        return Node("rel", tuple(args), tuple(ops)) if ops else args[0]

    def modulus(self) -> Node | None:
        """(mod 3), \\pmod{3}, \\bmod 3."""
        if self.peek().text == "(" and self.peek(1).text in ("bmod", "mod"):
            self.take()
            self.take()
            node = self.sum()
            self.take(")")
            return node
        if self.peek().text in ("pmod", "mod", "bmod"):
            self.take()
            return self.primary() if self.peek().text == "{" else self.sum()
        return None

    def ratio(self) -> Node:
        parts = [self.sets()]
        while self.peek().text == ":" and self.peek(1).text != "=":
            self.take()
            parts.append(self.sets())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    def sets(self) -> Node:
        node = self.sum()
        while self.peek().text in SETS or self.peek().text == "backslash":
            node = Node(SETS[self.take().text], (node, self.sum()))
        return node

    # --- arithmetic -----------------------------------------------------------------------------------------------

    def sum(self) -> Node:
        token = self.peek()
        if token.text in ("+", "-", "pm", "mp"):
            self.take()
            node = self.term()
            if token.text == "-":
                node = Node("neg", (node,))
            elif token.text != "+":
                node = Node("pm", (node,), token.text)
        else:
            node = self.term()
        terms = [node]
        while self.peek().text in ("+", "-", "pm", "mp") and self.peek().kind in ("op", "cmd"):
            sign = self.take().text
            if self.peek().text == "ldots":
                node = self.dotted(terms, sign, "sum")
                continue
            right = self.term()
            terms = [*terms, right] if sign == "+" else []
            if sign == "-":
                right = Node("neg", (right,))
            node = Node("add", (node, right)) if sign in "+-" else Node("pm", (node, right), sign)
        return node

    def term(self) -> Node:
        node = self.factor()
        factors = [node]
        while True:
            token = self.peek()
            if token.text in ("*", "cdot", "times") and token.kind in ("op", "cmd"):
                self.take()
                if self.peek().text == "ldots":
                    node = self.dotted(factors, token.text, "prod")
                    continue
                factors.append(self.signed())
                node = Node("mul", (node, factors[-1]))
            elif token.text == "ldots" and len(factors) > 1 and self.peek(1).kind in ("num", "sym"):  # 1 * 2 ... n
                node = self.dotted(factors, "*", "prod")
            elif token.text in ("/", "div") and token.kind in ("op", "cmd"):
                self.take()
                node = Node("div", (node, self.denominator()))
            elif self.starts_factor():
                node = self.juxtapose(node)
            else:
                return node

    def dotted(self, first: list[Node], sign: str, op: str) -> Node:
        """The rest of 1 + 2 + ... + n, from the dots on."""
        from stratos_jax.grading.math_series import series

        self.take("ldots")
        if op == "sum":
            self.take(sign)
        elif self.peek().text in ("*", "cdot", "times"):
            self.take()
        if sign not in ("+", "*", "cdot", "times"):
            raise Unreadable("series")
        return series(first, self.term() if op == "sum" else self.factor(), op)

    def signed(self) -> Node:
        if self.peek().text in ("-", "+"):
            minus = self.take().text == "-"
            node = self.factor()
            return Node("neg", (node,)) if minus else node
        return self.factor()

    def denominator(self) -> Node:
        """What a slash divides by: one factor, or in the tight reading the product that follows it."""
        first = self.peek()
        node = self.signed()
        after = self.peek()
        letters = first.kind == "sym" and after.kind == "sym" and not after.spaced
        if self.starts_factor() and after.kind not in ("unit", "noun"):
            self.ambiguous = self.ambiguous or not letters
            while self.starts_factor() and (letters or self.tight) and self.peek().kind not in ("unit", "noun"):
                node = Node("mul", (node, self.factor()))
        return node

    def juxtapose(self, left: Node) -> Node:
        """Two factors side by side: a product, a mixed number, or an answer and its condition in parentheses."""
        mark = self.at
        if left.op == "num" and left.value[1] is None and left.value[0].denominator == 1:
            mixed = self.mixed_part()
            if mixed is not None:
                return self.postfix(Node("num", value=(left.value[0] + mixed, None)))
            self.at = mark
        if self.peek().text == "(" and self.peek().kind == "op":
            if self.peek(1).kind == "num" and self.peek(1).text.isalpha() and left.op == "num":  # 7 (seven)
                again = self.postfix(self.primary())
                return left if again.op == "num" and again.value[0] == left.value[0] else Node("mul", (left, again))
            node = self.postfix(self.primary())
            inner = node.args if node.op == "tuple" and node.value == "()" else (node,)
            if all(n.op in ("rel", "words", "cong", "missing") for n in inner):
                self.conditions += inner
                return left
            return Node("mul", (left, node))
        return Node("mul", (left, self.factor()))

    def mixed_part(self) -> Fraction | None:
        """The 1/2 of 3\\frac{1}{2} or of 3 1/2."""
        if self.peek().text == "frac":
            node = self.primary()
            if node.op == "div" and all(n.op == "num" and n.value[0].denominator == 1 for n in node.args):
                top, bottom = (n.value[0] for n in node.args)
                if 0 < top < bottom:
                    return Fraction(top, bottom)
            return None
        if self.peek().kind == "num" and self.peek(1).text == "/" and self.peek(2).kind == "num":
            top, bottom = self.take().value, (self.take(), self.take().value)[1]
            follows = self.peek().kind == "sym"
            if top.denominator == bottom.denominator == 1 and 0 < top < bottom and not follows:
                return Fraction(top, bottom)
        return None

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("num", "sym", "unit", "noun"):
            return True
        if token.kind == "op":
            if token.text == "|":
                return self.bars == 0
            return token.text in ("(", "{", "[") and not (token.text == "[" and self.bars < 0)
        return token.kind == "cmd" and token.text in STARTERS

    def factor(self) -> Node:
        return self.postfix(self.primary())

    def postfix(self, node: Node) -> Node:
        """Powers, factorials, units and a written base behind a primary."""
        from stratos_jax.grading.math_postfix import based, power

        while True:
            token = self.peek()
            if token.text == "^" and token.kind == "op":
                self.take()
                node = power(self, node)
            elif token.text == "!" and token.kind == "op":
                self.take()
                if self.peek().text == "!" and not self.peek().spaced:
                    self.take()
                    node = Node("fn", (node,), "factorial2")
                else:
                    node = Node("fn", (node,), "factorial")
            elif token.text == "'" and node.op == "mul" and node.args[1] == Node("unit", value="degree"):
                raise Unreadable("minutes of arc")
            elif token.text == "_" and node.op in ("num", "tuple", "mul"):
                self.take()
                node = based(self, node)
            elif token.text == "(" and self.peek(1).text == "base":
                self.take()
                self.take()
                node = based(self, node)
                self.take(")")
            elif token.text == "base":
                self.take()
                node = based(self, node)
            elif token.text == "degree":
                self.take()
                node = Node("mul", (node, Node("unit", value="degree")))
            else:
                return node

    def name_of(self, node: Node) -> str:
        if node.op != "sym":
            raise Unreadable("not a name")
        return node.value

    def primary(self) -> Node:
        from stratos_jax.grading.math_primary import primary

        return primary(self)
