"""Rewrite the words between the mathematics: relations, units, labels, conditions, number words.

In: tokens with `word`s. Out: tokens in which a word has become mathematics, a label (`sym` then `=`), a noun after an
amount, or nothing at all where it carries no meaning ("the answer is"). Raises `Unreadable` where a word could change
the meaning ("at least", "not", "between" in a place we do not understand): such prose is never passed over.
"""

import dataclasses
from fractions import Fraction

from stratos_jax.grading import math_words
from stratos_jax.grading.math_lex import Token, Unreadable

RELATIONS = {
    "at least": "ge", "no less than": "ge", "not less than": "ge", "greater than or equal to": "ge",
    "at most": "le", "no more than": "le", "not more than": "le", "less than or equal to": "le",
    "more than": ">", "greater than": ">", "larger than": ">", "bigger than": ">", "strictly greater than": ">",
    "less than": "<", "fewer than": "<", "smaller than": "<", "strictly less than": "<",
    "not equal to": "ne", "not equal": "ne", "congruent to": "equiv", "equivalent to": "equiv", "equal to": "=",
    "equals": "=", "equal": "=", "approximately equal to": "approx", "in": "in", "belongs to": "in",
}  # fmt: skip
WHERE = {
    "where",
    "for",
    "with",
    "if",
    "when",
    "whenever",
    "such that",
    "provided",
    "given",
    "provided that",
    "for which",
}
SEPARATORS = {"and": "and", "or": "or", "or else": "or", "as well as": "and"}
NEUTRAL = frozenset(
    "the a an answer answers is are final so thus therefore hence we get have value values probability only solution "
    "solutions total number of ways way exactly equal equals to approximately about around roughly there unique "
    "maximum minimum largest smallest greatest least possible value's result be must can it its this that these those "
    "area perimeter volume length sum product difference distance height width radius diameter angle measure speed "
    "equation line point points coordinates vector interval function functions form by as integer integers real "
    "number numbers digit digits positive natural expression remainder mean median mode average range price cost "
    "ordered pair pairs triple triples set all arbitrary any some constant constants then here which was were has "
    "i.e ie namely both following given required desired slope intercept domain period amplitude ratio term".split()
)
HARMLESS_HERE = frozenset("least all any some".split())
PARAMETER_WORDS = frozenset("all any some every each arbitrary".split())
PROPERTIES = {"even": 0, "odd": 1}


def rewrite(tokens: list[Token]) -> list[Token]:
    """Tokens with every word given a meaning."""
    out: list[Token] = []
    at = 0
    while at < len(tokens):
        if tokens[at].kind != "word":
            out.append(tokens[at])
            at += 1
            continue
        end = at
        while end < len(tokens) and tokens[end].kind == "word":
            end += 1
        _segment([t.text for t in tokens[at:end]], tokens[end:], out, tokens[at])
        at = end
    return _added_amounts(out)


def _added_amounts(tokens: list[Token]) -> list[Token]:
    """2 hours 30 minutes, 1 hour and 50 minutes: a sum of amounts, the larger unit first."""
    out: list[Token] = []
    for at, token in enumerate(tokens):
        unit = tokens[at + 1] if at + 1 < len(tokens) else None
        if token.kind == "num" and unit and unit.kind == "unit":
            joined = bool(out) and out[-1].kind == "sep" and out[-1].text == "and"
            before = out[-2 if joined else -1] if len(out) > joined else None
            if before and before.kind == "unit" and _smaller(unit.value, before.value):
                if joined:
                    out.pop()
                out.append(Token("op", "+"))
        out.append(token)
    return out


def _smaller(unit: str, than: str) -> bool:
    if unit in ("%", "degree") or than in ("%", "degree"):
        return False
    ours, theirs = math_words.unit_parts(unit), math_words.unit_parts(than)
    return ours[1] == theirs[1] and Fraction(ours[0]) < Fraction(theirs[0])


def _segment(words: list[str], rest: list[Token], out: list[Token], like: Token) -> None:
    """One run of words between two pieces of mathematics, read from left to right."""
    at = 0
    while at < len(words):
        used = _fixed(words, at, rest, out, like)
        if used:
            at += used
            continue
        end = at + 1
        while end < len(words) and not _fixed(words, end, rest, [], like):
            end += 1
        _prose(words[at:end], rest if end == len(words) else [], out, like, last=end == len(words))
        at = end


def _fixed(words: list[str], at: int, rest: list[Token], out: list[Token], like: Token) -> int:
    """Words with a meaning of their own, the longest first; how many were used."""
    lower = [w.lower() for w in words]
    after_operand = bool(out) and (
        out[-1].kind in ("num", "sym", "unit", "noun") or out[-1].text in (")", "}", "]", "!", "rset")
    )
    for size in range(min(5, len(words) - at), 0, -1):
        phrase = " ".join(lower[at : at + size])
        lead = 1 if phrase.startswith(("is ", "are ", "be ")) else 0
        core = phrase.split(" ", 1)[1] if lead else phrase
        nothing_after = at + size == len(words) and not rest
        inches = core == "in" and out and out[-1].kind == "num" and (not rest or rest[0].text == "^")
        if inches:
            out.append(Token("unit", "in", "in", spaced=True))
            return size
        if core in RELATIONS and not nothing_after and (core != "in" or after_operand):
            name = RELATIONS[core]
            out.append(dataclasses.replace(like, kind="op" if len(name) == 1 else "cmd", text=name))
            return size
        if phrase in WHERE and not nothing_after:
            out.append(Token("where", phrase))
            return size
        if phrase in SEPARATORS:
            out.append(Token("sep", SEPARATORS[phrase]))
            return size
        number = math_words.number_words(lower[at : at + size]) if phrase not in ("and",) else None
        if number is not None and not (after_operand and phrase in math_words.SCALES):
            out.append(Token("num", phrase, Fraction(number), None, True))
            return size
    return _one_word(words, at, rest, out, after_operand)


def _one_word(words: list[str], at: int, rest: list[Token], out: list[Token], after_operand: bool) -> int:
    word, lower = words[at], words[at].lower()
    following = words[at + 1] if at + 1 < len(words) else None
    if after_operand and lower in math_words.SCALES:
        out += [Token("op", "*"), Token("num", lower, Fraction(math_words.SCALES[lower]))]
        return 1
    if lower in ("percent", "pct", "percentage"):
        out.append(Token("unit", "%", "%"))
        return 1
    if lower in ("degree", "degrees", "deg"):
        out.append(Token("unit", "degree", "degree"))
        return 1
    if after_operand and lower == "per":
        out.append(Token("op", "/"))
        return 1
    if lower in ("squared", "cubed") and after_operand:
        out += [Token("op", "^"), Token("num", "2", Fraction(2 if lower == "squared" else 3))]
        return 1
    power = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}.get(lower)
    if power and following and math_words.unit(following):
        out += [
            Token("unit", following, math_words.unit(following)),
            Token("op", "^"),
            Token("num", "", Fraction(power)),
        ]
        return 2
    name = math_words.unit(word)
    in_unit = bool(out) and (out[-1].kind == "unit" or out[-1].text in ("/", "cdot", "*"))
    if name and (after_operand or in_unit):
        out.append(Token("unit", word, name, spaced=True))
        return 1
    if lower == "to" and after_operand and rest and rest[0].kind == "num":
        out.append(Token("op", ":"))
        return 1
    if lower in ("mod", "modulo"):
        out.append(Token("cmd", "bmod"))
        return 1
    if lower in ("base", "radix") and (after_operand or out and out[-1].text == "("):
        out.append(Token("cmd", "base"))
        return 1
    if lower in PROPERTIES and out and out[-1].kind == "sym":
        out.append(Token("property", lower, PROPERTIES[lower]))
        return 1
    if lower in ("is", "are") and following and following.lower() in PROPERTIES and out and out[-1].kind == "sym":
        out.append(Token("property", following.lower(), PROPERTIES[following.lower()]))
        return 2
    if lower in ("otherwise", "else"):
        out.append(Token("otherwise", lower))
        return 1
    if len(word) == 1 and word.isalpha() and (out and out[-1].text in ("_", "^", "{") or _in_symbols(words, rest, out)):
        out.append(Token("sym", word, spaced=True))
        return 1
    if lower == "pi":
        out.append(Token("sym", "pi"))
        return 1
    return 0


def _in_symbols(words: list[str], rest: list[Token], out: list[Token]) -> bool:
    """A single letter in text stands for a symbol where mathematics is beside it."""
    return bool(out and out[-1].kind in ("where", "op", "cmd") and out[-1].text not in ("(",)) or bool(
        rest and rest[0].text in ("=", "<", ">", "le", "ge", "in", "_", "^")
    )


def _prose(words: list[str], rest: list[Token], out: list[Token], like: Token, *, last: bool) -> None:
    """Words without a meaning of their own: nothing, a label before mathematics, or a noun after an amount."""
    lower = [w.lower() for w in words]
    after_where = bool(out) and out[-1].kind == "where"
    in_conditions = any(t.kind == "where" for t in out)
    danger = [
        w for w in lower if w in math_words.DANGER and not (w in PARAMETER_WORDS and (after_where or in_conditions))
    ]
    danger = [w for w in danger if w not in HARMLESS_HERE or w == "least" and "at" in lower]
    if out and out[-1].text in ("_",) or (len(out) > 1 and out[-1].text == "{" and out[-2].text in ("_", "^")):
        out.append(Token("sym", "".join(words)))
        return
    if danger:
        raise Unreadable(f"word {danger[0]!r}")
    if in_conditions:
        out.append(Token("condition", " ".join(lower)))
        return
    content = [w for w in lower if w not in NEUTRAL]
    following = rest[0] if rest else None
    if lower in (["is"], ["are"]) and out and following:
        out.append(Token("op", "="))
        return
    before_math = following is not None and following.text not in (")", "]", "}", ",", ";", "rset", "end", "|")
    labelled = following is not None and following.text in (":", "=")
    if not out or out[-1].kind == "sep" or out[-1].text in (",", ";", "(", "=", "{"):
        if labelled:
            label = "".join(content or lower)
            out.append(Token("sym", label if len(label) > 1 else words[-1]))
        elif before_math and content:
            out += [Token("sym", "".join(content)), Token("op", "=")]
        elif not before_math:
            out.append(Token("text", " ".join(w for w in lower if w not in math_words.STOP)))
        return
    if content and lower[0] not in ("is", "are"):
        out.append(Token("noun", " ".join(math_words.stem(w) for w in content), spaced=True))
