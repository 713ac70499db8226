"""Turn the text of an answer (LaTeX, plain, or prose with both) into tokens.

In: the raw answer. Out: a list of `Token`. Nothing is evaluated; spelling variants (`\\dfrac`, `{,}`, unicode,
`\\left`) become one. Raises `Unreadable` on what no answer should hold.
"""

import dataclasses
import re
from fractions import Fraction
from typing import Any

from stratos_jax.grading import math_words


class Unreadable(Exception):
    """The text is outside of what this reader understands; not an error of the answer."""


@dataclasses.dataclass(frozen=True, slots=True)
class Token:
    """kind: num (value Fraction, digits), sym, cmd, op, word, unit, end."""

    kind: str
    text: str
    value: Any = None
    digits: int | None = None  # significant digits of a decimal; None of an exact number
    spaced: bool = False  # white space before it
    text_mode: bool = False  # stood inside \text


UNICODE = {
    "−": "-", "–": "-", "—": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": r"\div ",
    "π": r"\pi ", "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ", "∅": r"\emptyset ", "°": r"^\circ ", "±": r"\pm ", "∓": r"\mp ",
    "√": r"\sqrt ", "≈": r"\approx ", "≡": r"\equiv ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "²": "^2", "³": "^3", "⁴": "^4", "⁻": "^-", "½": r"\frac12 ",
    "¼": r"\frac14 ", "¾": r"\frac34 ", "⅓": r"\frac13 ", "⅔": r"\frac23 ", "θ": r"\theta ", "α": r"\alpha ",
    "β": r"\beta ", "γ": r"\gamma ", "λ": r"\lambda ", "μ": r"\mu ", "σ": r"\sigma ", "φ": r"\phi ", "ω": r"\omega ",
    "Ω": r"\Omega ", "Δ": r"\Delta ", "ε": r"\epsilon ", "ρ": r"\rho ", "τ": r"\tau ", "′": "'", "’": "'", "…": "...",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "⟨": r"\langle ", "⟩": r"\rangle ",
    "€": r"\text{EUR} ", "£": r"\text{GBP} ", "¢": r"\text{cents}", "∖": r"\setminus ", "→": r"\to ", "∠": r"\angle ",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "∧": r"\wedge ", "∨": r"\vee ", "¬": r"\neg ", "∘": r"\circ ",
}  # fmt: skip
ALIASES = {
    "dfrac": "frac", "tfrac": "frac", "cfrac": "frac", "leq": "le", "leqslant": "le", "geq": "ge", "geqslant": "ge",
    "neq": "ne", "lt": "<", "gt": ">", "dbinom": "binom", "tbinom": "binom", "ast": "cdot", "varnothing": "emptyset",
    "land": "wedge", "lor": "vee", "lnot": "neg", "colon": ":", "vert": "|", "lvert": "|", "rvert": "|", "mid": "mid",
    "lbrace": "lset", "rbrace": "rset", "{": "lset", "}": "rset", "|": "norm", "Vert": "norm", "varphi": "phi",
    "varepsilon": "epsilon", "vartheta": "theta", "infin": "infty", "dotsc": "ldots", "dots": "ldots",
    "cdots": "ldots", "dotsb": "ldots", "textdegree": "degree", "degree": "degree", "degrees": "degree",
    "arctg": "arctan", "tg": "tan", "ctg": "cot", "cosec": "csc", "backslash": "setminus", "smallsetminus": "setminus",
    "lbrack": "[", "rbrack": "]", "lparen": "(", "rparen": ")", "longrightarrow": "to", "rightarrow": "to",
    "asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "lg", "asinh": "arcsinh", "acosh": "arccosh",
    "atanh": "arctanh", "Longrightarrow": "to", "thickapprox": "approx", "simeq": "approx", "cong": "equiv",
}  # fmt: skip
DROPPED = frozenset(
    "left right big Big bigg Bigg bigl bigr Bigl Bigr biggl biggr Biggl Biggr displaystyle textstyle limits nolimits "
    "middle scriptstyle nonumber hfill boldsymbol mathbf bm rm bf it boxed fbox mathit mathsf phantom mathcal "
    "ensuremath limits normalsize large Large centering operatorname mathop mathrel strut vphantom".split()
)
SPACES = frozenset(("quad", "qquad", ",", ";", ":", " ", "!", ">", "enspace", "thinspace", "hspace", "~", "newline"))
TEXT = re.compile(r"\\(?:text|textbf|textit|textrm|texttt|textsf|mbox|hbox|mathrm|textnormal|emph)\s*\{")

NUMBER = re.compile(
    r"(?P<repeat>(\d*)\.(\d*?)\\(?:overline|bar|dot)\s*\{?(\d+)\}?)"
    r"|(?P<dots>(\d*)\.(\d{2,})\s*(?:\\[lc]?dots[cb]?(?![A-Za-z])|\.\.\.))"
    r"|(?P<plain>(?:\d{1,3}(?:(?:THOUSANDS)\d{3})+(?!\d)|\d+)(?:\.(?!\.)\d*)?|\.\d+)(?P<exponent>[eE][-+]?\d+(?![A-Za-z0-9]))?"
)
THOUSANDS_ALWAYS = "\x01| (?=\\d{3}(?!\\d))"
WORDS = re.compile(r"[A-Za-z]+(?:['-](?=[A-Za-z]{2})[A-Za-z]+|'t\b)*")
ROMAN = r"\\(?:mathrm|text)\{([^{}]*)\}"
SPELLINGS = [  # one spelling for another, before anything else is read
    (r"(?<=\d)\s*[xX]\s*(?=10\s*\^)", r"\\times "),
    (r"\\dot\s*\{?(\d)\}?(\d*)\\dot\s*\{?(\d)\}?", r"\\overline{\1\2\3}"),
    (r"\\forall\s*", r"\\text{ for all }"),
    (r"\bper\s+cent\b", "percent"),
    (r"([A-Za-z])\s*(?::|\\colon)\s*([A-Za-z])\s*\\(?:long)?mapsto(?![A-Za-z])", r"\1(\2)="),
    (r"\{\}\s*_\s*\{?(\w+)\}?\s*C\s*_\s*\{?(\w+)\}?", r"\\binom{\1}{\2}"),
    (r"(?:\{\}\s*)?\^\s*\{?(\w+)\}?\s*C\s*_\s*\{?(\w+)\}?(?![\w^])", r"\\binom{\1}{\2}"),
    (rf"(?<=[\d}}])(?:[\s~]|\\[, ])*\\[dt]?frac\s*\{{\s*{ROMAN}\s*\}}\s*\{{\s*{ROMAN}\s*\}}",
     r" \\text{\1}/\\text{\2}"),
    (r"(?<=[\d}])\s+(m|g|N|J|V|W|L|kg)/(s|m|h|L|C|kg|min|mol)(?![A-Za-z_(])", r" \\text{\1}/\\text{\2}"),
    (r"\^\s*\{?\s*\\circ\s*\}?\s*(?:\\(?:text|mathrm)\{\s*([FC])\s*\}|([FC])(?![A-Za-z]))", r"\\text{ deg\1\2}"),
    (r"\bdegrees?\s+([FC])(?:elsius|ahrenheit)?\b", r"deg\1"),
    (r"(?<=[fgPQ])\s*\\equiv\s*0(?![\d.]|.*mod)", "=0"),
]  # fmt: skip
COMPILED = [(re.compile(old), new) for old, new in SPELLINGS]


def clean(raw: str) -> str:
    """One spelling for what LaTeX, markdown and unicode spell in many ways."""
    text = raw.replace("\\$", "\x02")
    for old, new in COMPILED:
        text = old.sub(new, text)
    text = re.sub(r"(?<![\\\w])\$(?=\s*[\d.])(?=[^$]*$)", "\x02", text)  # a lone dollar before a number is money
    text = text.replace("$", " ")
    for char, latex in UNICODE.items():
        if char in text:
            text = text.replace(char, latex)
    text = re.sub(r"\\\[(?!\d)|\\\]|\\\(|\\\)|\*\*(?!\s*\d)|`", " ", text)
    text = re.sub(r"\{,\}|,\\!|\\,(?=\d{3}(?!\d))(?<=\d\\,)|(?<=\d)~(?=\d{3})", "\x01", text)
    text = re.sub(r"\\!|\\/|\\allowbreak", "", text)
    text = re.sub(r"\x01\s*", "\x01", text)
    text = text.replace("{:}", ":").replace("\\%", "%").replace("\\#", "#").replace("\\&", " and ")
    text = re.sub(r"np\.|math\.(?=[a-z])|sympy\.", "", text)
    text = re.sub(r"\*\*", "^", text)
    text = re.sub(r"(?<=\d)(?:st|nd|rd|th)\b", "", text)
    text = re.sub(r"\\(?:label|tag)\{[^}]*\}", "", text)
    text = re.sub(r"\\begin\{(?:align|aligned|equation|gather|gathered|split)\*?\}|"
                  r"\\end\{(?:align|aligned|equation|gather|gathered|split)\*?\}", " ", text)  # fmt: skip
    text = re.sub(r"\\hspace\*?\{[^}]*\}", " ", text)
    if text.rstrip().endswith("..."):
        return text.strip()
    return text.strip().rstrip(".,;:!" if not re.search(r"\d!$|[\w)}]!$", text.strip()) else ".,;:").strip()


def tokenize(text: str, *, thousands: bool) -> list[Token]:
    """Tokens of a cleaned text; `thousands` reads 1,234 as one number."""
    separator = THOUSANDS_ALWAYS + ("|," if thousands else "")
    number = re.compile(NUMBER.pattern.replace("THOUSANDS", separator))
    tokens: list[Token] = []
    _lex(text, number, tokens, text_mode=False)
    return tokens


def _lex(text: str, number: re.Pattern, tokens: list[Token], *, text_mode: bool) -> None:
    at, spaced = 0, False

    def add(kind: str, token_text: str, value: Any = None, digits: int | None = None) -> None:
        tokens.append(Token(kind, token_text, value, digits, spaced, text_mode))

    while at < len(text):
        char = text[at]
        start = at
        if char.isspace() or char == "~":
            at, spaced = at + 1, True
            continue
        group = TEXT.match(text, at)
        if group:
            end = closing_brace(text, group.end() - 1)
            inner = text[group.end() : end]
            roman = group.group().startswith("\\mathrm")
            _lex_group(inner, number, tokens, roman=roman, spaced=spaced)
            at, spaced = end + 1, True
            continue
        match = number.match(text, at) if char.isdigit() or (char == "." and text[at + 1 : at + 2].isdigit()) else None
        if match:
            add("num", match.group(), *_number(match))
            at = match.end()
        elif char == "\\":
            at, spaced = _command(text, at, tokens, spaced, text_mode)
            continue
        elif char.isalpha() and char.isascii():
            match = WORDS.match(text, at)
            assert match
            run = match.group()
            if not text_mode and "-" in run and not run.lower().startswith("non-"):
                run = run[: run.index("-")]  # a difference of products, no hyphen
            at = _letters(run, at, text, tokens, spaced, text_mode)
        elif char == "\x02":
            add("unit", "$", "USD")
            at += 1
        elif text.startswith("...", at):
            add("cmd", "ldots")
            at += 3
        elif text[at : at + 2] in ("<=", ">=", "!=", "=="):
            add("cmd" if char != "=" else "op", {"<=": "le", ">=": "ge", "!=": "ne", "==": "="}[text[at : at + 2]])
            at += 2
        elif char in "+-*/^_()[]{}|,;:=<>!'&%?\"#.":
            if char == "%":
                add("unit", "%", "%")
            elif char not in '?"#.':
                add("op", char)
            at += 1
        else:
            raise Unreadable(f"character {char!r}")
        spaced = False
        assert at > start


def _lex_group(inner: str, number: re.Pattern, tokens: list[Token], *, roman: bool, spaced: bool) -> None:
    """What stands in \\text{...} or \\mathrm{...}: words, units, and mathematics among them."""
    word = inner.strip(" ~")
    previous = tokens[-1] if tokens else None
    amount = previous is not None and (
        previous.kind in ("num", "word") or previous.text == "/"
        or spaced and previous.text in ("}", ")") and math_words.unit(word) is not None
    )  # fmt: skip
    if roman and (word in ("i", "e") or not amount and re.fullmatch(r"[A-Za-z]", word)):
        tokens.append(Token("sym", word, spaced=spaced))
        return
    if word in math_words.FUNCTIONS and (roman or not math_words.unit(word)) and word not in ("max", "min", "floor"):
        tokens.append(Token("cmd", ALIASES.get(word, word), spaced=spaced))
        return
    before = len(tokens)
    _lex(inner, number, tokens, text_mode=True)
    if len(tokens) > before:
        tokens[before] = dataclasses.replace(tokens[before], spaced=True)


def closing_brace(text: str, start: int) -> int:
    """Index of the brace that closes the one at `start`."""
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.S).finditer(text, start):
        depth += (match.group() == "{") - (match.group() == "}")
        if depth == 0:
            return match.start()
    raise Unreadable("unbalanced braces")


def _number(match: re.Match) -> tuple[Fraction, int | None]:
    """Value and, for a decimal, its significant digits."""
    if match["repeat"]:
        whole, head, cycle = match.group(2, 3, 4)
        return _recurring(whole, head, cycle), None
    if match["dots"]:
        whole, digits = match.group(6, 7)
        for period in range(1, len(digits) // 2 + 1):
            for skip in range(len(digits) - 2 * period + 1):
                tail, cycle = digits[skip:], digits[skip : skip + period]
                if len(tail) >= max(2 * period, 3) and tail == (cycle * len(tail))[: len(tail)]:
                    return _recurring(whole, digits[:skip], cycle), None
        return Fraction(f"{whole or 0}.{digits}"), len((whole + digits).lstrip("0"))
    plain = re.sub(r"[\x01, ]", "", match["plain"])
    value = Fraction(plain if plain[-1] != "." else plain + "0") * Fraction(10) ** _exponent(match)
    if "." not in plain.rstrip(".") and not match["exponent"]:
        return value, None
    return value, len(plain.replace(".", "").lstrip("0")) or 1


def _exponent(match: re.Match) -> int:
    exponent = int(match["exponent"][1:]) if match["exponent"] else 0
    if abs(exponent) > 4000:
        raise Unreadable("exponent")
    return exponent


def _recurring(whole: str, head: str, cycle: str) -> Fraction:
    nines = (10 ** len(cycle) - 1) * 10 ** len(head)
    return Fraction(int(whole or 0)) + Fraction(int(head or 0), 10 ** len(head)) + Fraction(int(cycle), nines)


def _command(text: str, at: int, tokens: list[Token], spaced: bool, text_mode: bool) -> tuple[int, bool]:
    match = re.compile(r"\\([A-Za-z]+\*?|.|$)", re.S).match(text, at)
    assert match
    name, end = match.group(1).rstrip("*"), match.end()
    name = ALIASES.get(name, name)
    if name in SPACES or name.isspace():
        return end, True
    if name in ("operatorname", "mathop", "boldsymbol", "mathbf", "bm", "mathit", "mathsf", "mathcal", "pmb"):
        group = re.compile(r"\s*\{\s*\\?([A-Za-z]+)\s*\}").match(text, end)
        if group:
            word = group.group(1)
            bold = name in ("mathbf", "boldsymbol", "bm", "pmb") and len(word) == 1
            if word in math_words.FUNCTIONS:
                tokens.append(Token("cmd", ALIASES.get(word, word), spaced=spaced))
            elif len(word) > 1 and word not in math_words.GREEK and name in ("mathbf", "boldsymbol", "bm"):
                tokens.append(Token("word", word, spaced=spaced, text_mode=True))
            elif bold and word in "ijk":
                tokens.append(Token("cmd", "unitvector", word, spaced=spaced))
            else:
                tokens.append(Token("sym", word, spaced=spaced))
            return group.end(), False
    if name in DROPPED:
        if name in ("left", "right") and text[end : end + 1] == ".":
            return end + 1, spaced
        return end, spaced
    if name in ("hat", "vec", "mathbf", "widehat", "overrightarrow"):
        group = re.compile(r"\s*\{?\s*\\?(?:mathbf|mathrm)?\s*\{?\s*\\?([ijk])(?:math)?\s*\}*").match(text, end)
        if group:
            tokens.append(Token("cmd", "unitvector", group.group(1), spaced=spaced))
            return group.end(), False
        return end, spaced
    if name in ("begin", "end"):
        group = re.compile(r"\s*\{([A-Za-z]+)\*?\}(?:\s*\{[lcr|]*\}|\s*\[[lcrtb|]*\])?").match(text, end)
        if not group:
            raise Unreadable("environment")
        tokens.append(Token("cmd", name, group.group(1), spaced=spaced))
        return group.end(), False
    if name in ("mathbb", "Bbb"):
        group = re.compile(r"\s*\{?([A-Z])\}?").match(text, end)
        if not group:
            raise Unreadable("mathbb")
        tokens.append(Token("cmd", "blackboard", group.group(1), spaced=spaced))
        return group.end(), False
    if name in ("mathrm", "text", "textbf"):  # without a brace
        return end, spaced
    kind = "op" if name in ("<", ">", ":", "|", "[", "]", "(", ")", "\\") else "cmd"
    if name in math_words.GREEK:
        kind = "sym"
    tokens.append(Token(kind, name, spaced=spaced, text_mode=text_mode))
    return end, False


def _letters(run: str, at: int, text: str, tokens: list[Token], spaced: bool, text_mode: bool) -> int:
    """A run of letters is a function, a word, a unit, or a product of one-letter symbols."""
    end = at + len(run)
    previous = tokens[-1] if tokens else None
    after_amount = previous is not None and (
        previous.kind in ("num", "unit") or previous.text in ("}", ")", "/", "cdot") or previous.text_mode
    )
    before_group = re.match(r"\s*[({^_]", text[end:])
    if run in math_words.FUNCTIONS and (not text_mode or before_group):
        tokens.append(Token("cmd", ALIASES.get(run, run), spaced=spaced))
    elif run in ("pi", "infty", "infinity", "oo", "inf") and not (text_mode and run == "inf"):
        tokens.append(Token("sym", "pi") if run == "pi" else Token("cmd", "infty", spaced=spaced))
    elif text_mode:
        tokens.append(Token("word", run, spaced=spaced, text_mode=True))
    elif len(run) >= 2 and after_amount and math_words.unit(run) and (spaced or len(run) > 1):
        tokens.append(Token("word", run, spaced=spaced, text_mode=True))
    elif _is_word(run, spaced, tokens, text[end:]):
        tokens.append(Token("word", run, spaced=spaced, text_mode=True))
    else:
        at_spaced = spaced
        for letter in run.replace("'", "").replace("-", ""):
            tokens.append(Token("sym", letter, spaced=at_spaced))
            at_spaced = False
        if "'" in run or "-" in run:
            first = min(i for i in (run.find("'"), run.find("-")) if i >= 0)
            del tokens[len(tokens) - sum(c.isalpha() for c in run[first:]) :]
            return at + first
    return end


def _is_word(run: str, spaced: bool, tokens: list[Token], rest: str) -> bool:
    lower = run.lower()
    if len(run) == 1:
        return False
    if len(run) == 2 and lower in math_words.SMALL_WORDS:
        return (spaced or not tokens) and bool(re.match(r"[\s,.]", rest) or run in ("no", "No", "or"))
    if lower in math_words.SMALL_WORDS or lower in math_words.NUMBERS:
        return True
    if len(run) >= 4 and re.search("[aeiouy]", lower):
        return True
    if len(run) < 2 or not re.search("[aeiouy]", lower):
        return False
    return run[0].isupper() and run[1:].islower() and len(run) >= 3  # a name such as Tom
