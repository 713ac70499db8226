"""Decide whether an answer equals the gold; runs inside a worker process, for it may hang or eat memory.

In: the raw gold and answer. Out: `(outcome, reason)`. Our own reader comes first; the libraries are asked only where it
cannot read a side or cannot tell, and never about prose whose words they would pass over.
"""

import re
from collections.abc import Callable
from fractions import Fraction

from mpmath import mp

from stratos_jax.grading import math_words
from stratos_jax.grading.config import MathConfig
from stratos_jax.grading.math_eval import DIGITS
from stratos_jax.grading.math_exact import TooLarge
from stratos_jax.grading.math_families import named_family
from stratos_jax.grading.math_lex import Unreadable, clean, tokenize
from stratos_jax.grading.math_normal import items_of
from stratos_jax.grading.math_parse import Parser
from stratos_jax.grading.math_phrases import rewrite
from stratos_jax.grading.math_same import Context
from stratos_jax.grading.math_shapes import same_answer
from stratos_jax.grading.math_text import (
    NONE,
    PARITY,
    bare,
    phrase,
    same_choice,
    same_date,
    same_letters,
    same_logic,
    same_time,
    same_words,
)
from stratos_jax.grading.math_tree import Node, has

ROUGH = re.compile(
    r"\b(?:approximat|nearest|decimal place|significant (?:figure|digit)|to (?:two|three|four|\d) decimal|rounded?)",
    re.I,
)
EXCEPT = re.compile(
    r"(?:x\s+(?:is|in|can be)\s+)?(?:all|any)\s+real(?:s|\s+numbers?|\s+values?)?(?:\s+[a-z])?,?\s+"
    r"(?:except(?:\s+for)?|other\s+than|excluding|but\s+not)\s+(?:[a-z]\s*=\s*)?(.+)"
)
KIND = re.compile(
    r"^(?:\\(?:text|mbox)\{\s*)?(?:all|any|every|the)\s+(?P<positive>positive\s+)?"
    r"(?P<kind>real numbers?|reals|integers?)\s+"
    r"(?:\}?\s*[a-z]\s*\\?(?:text\{)?\s*)?(?:that are\s+)?"
    r"(?P<how>greater than or equal to|greater than|less than or equal to|less than|at least|at most)(?:\s*\})?"
)
SPAN = re.compile(r"(?:from|between)\s+(\S+)\s+(?:to|and)\s+(\S+?),?\s+(inclusive|exclusive)")
BRACKETED = re.compile(r"[(\[]\s*-?\d{1,3}(?:,\d{3})+\s*[)\]]")  # a tuple, though it looks like one large number
BASED = re.compile(r"\(?([0-9][0-9A-Fa-f]*)\)?_\(?(\d{1,2}|[a-z]+)\)?", re.I)
Decision = tuple[str, str]


def decide(
    gold: str,
    answer: str,
    problem: str,
    precision: float | list[float] | None,
    config: MathConfig,
    loading: Callable[[bool], None],
) -> Decision:
    """Fixed spellings, then our own reader, then math-verify."""
    left, right = clean(gold), clean(answer)
    if squeeze(left) == squeeze(right):
        return "right", "math.spelling"
    if same_tokens(left, right):
        return "right", "math.spelling"
    by_choice = same_choice(left, right)
    if isinstance(by_choice, tuple):
        return decide(*by_choice, problem, precision, config, loading)
    for by_words in (by_choice, same_letters(left, right), same_words(left, right, problem), same_date(left, right),
                     same_logic(left, right), same_time(left, right, problem)):  # fmt: skip
        if by_words is not None:
            return ("right", "math.words") if by_words else ("wrong", "math.different")
    with mp.workdps(DIGITS):
        if precision is not None:
            return within(left, right, precision)
        context = Context(config, problem, bool(ROUGH.search(problem)) or "approx" in left, "approx" in right)
        golds, answers = readings(left), readings(right)
        told = too_large = False
        for gold_tree, answer_tree in pairs(golds, answers):
            try:
                same = same_answer(gold_tree, answer_tree, context)
            except Unreadable:
                continue
            except TooLarge:
                too_large = True
                continue
            if same:
                return "right", "math.tree"
            told = told or same is False
    if too_large:
        return "unknown", "unknown.too_large"
    if told:
        return "wrong", "math.different"
    if not config.use_math_verify or not safe_for_library(left, right, golds, answers):
        if far_apart(left, right, golds) or far_apart(right, left, answers):
            return "wrong", "math.different"
        return "unknown", "unknown.answer_unreadable" if golds else "unknown.gold_unreadable"
    return ask_math_verify(gold, answer, loading)


def readings(text: str) -> list[Node]:
    """The trees that a text may stand for: 1,234 as a number or a list, 1/2x as (1/2)x or 1/(2x)."""
    words = phrase(text)
    spoken = bare(text).lower().strip(" .").split()
    number = Fraction(1, 2) if spoken in (["half"], ["a", "half"]) else 12 if spoken == ["a", "dozen"] else None
    number = number or math_words.number_words(spoken)
    if number is not None:
        return [Node("num", value=(Fraction(number), None))]
    if words in math_words.PHRASE_OF:
        return [Node("special", value=math_words.PHRASE_OF[words])]
    if NONE.fullmatch(bare(text).lower().strip(" .")):
        return [Node("special", value="EMPTY")]
    if parity := PARITY.fullmatch(bare(text).lower().strip(" .")):
        return [Node("special", value="EVENS" if "even" in parity.group() else "ODDS")]
    if excluded := EXCEPT.fullmatch(bare(text)):
        text = rf"\mathbb{{R}}\setminus\{{{excluded.group(1)}\}}"
    if based := BASED.fullmatch(bare(text).replace(" ", "")):
        base = int(based.group(2)) if based.group(2).isdigit() else math_words.BASES.get(based.group(2).lower())
        if base and 2 <= base <= 36:
            return [Node("base", value=(based.group(1).upper(), base))]
    if named := named_family(bare(text)):
        return [named]
    text = KIND.sub(_named_kind, text)
    if span := SPAN.fullmatch(bare(text)):
        ends = "()" if span.group(3) == "exclusive" else "[]"
        text = f"{ends[0]}{span.group(1)},{span.group(2)}{ends[1]}"
    trees: list[Node] = []
    for thousands in (False,) if BRACKETED.search(text) else (True, False):
        try:
            tokens = rewrite(tokenize(text, thousands=thousands))
            parser = Parser(tokens)
            tree = parser.parse()
            found = [tree]
            if parser.ambiguous:
                found.append(Parser(tokens, tight=True).parse())
        except (Unreadable, RecursionError):
            continue
        trees += [t for t in found if t not in trees]
    return trees


def _named_kind(found: re.Match) -> str:
    """All integers greater than 3: n > 3 with n an integer."""
    sign = {"greater": ">", "less": "<", "at": "\\ge" if "least" in found["how"] else "\\le"}[found["how"].split()[0]]
    sign = {">": "\\ge", "<": "\\le"}[sign] if "equal" in found["how"] else sign
    whole = found["kind"].startswith("integer")
    if found["positive"] and (not whole or "\\ge" != sign != ">"):
        return found.group()
    return rf"n\in\mathbb{{Z}}, n {sign} " if whole else f"x {sign} "


def pairs(golds: list[Node], answers: list[Node]) -> list[tuple[Node, Node]]:
    """Every reading of the gold with every reading of the answer; the plain ones first."""
    return [(g, a) for g in golds for a in answers]


def squeeze(text: str) -> str:
    """A text without spaces, braces around single letters, and sizes of brackets."""
    text = re.sub(r"\\(?:left|right|displaystyle|,|;|!|quad)(?![A-Za-z])|\s|~", "", text)
    return re.sub(r"\\[dt]frac", r"\\frac", text)


def same_tokens(gold: str, answer: str) -> bool:
    """Two spellings of one row of tokens: \\land and \\wedge, \\dfrac and \\frac."""
    try:
        rows = [[(t.kind, t.text, t.value) for t in tokenize(s, thousands=True)] for s in (gold, answer)]
    except Unreadable:
        return False
    return bool(rows[0]) and rows[0] == rows[1]


# --- what the library may be asked about ---------------------------------------------------------------------------


def safe_for_library(gold: str, answer: str, golds: list[Node], answers: list[Node]) -> bool:
    """No words that math-verify would skip, and no shape that it is known to misjudge."""
    for text in (gold, answer):
        if text.count("{") != text.count("}"):
            return False
        if "dots" in text or "..." in text or re.search(r"\d\)?_|\\dot\W*\d", text):
            return False
        spoken = " ".join(re.findall(r"\\(?:text|mbox|textbf|textrm|textit)\s*\{([^}]*)\}", text))
        spoken += " " + " ".join(re.findall(r"(?<![\\A-Za-z])[A-Za-z]{3,}", re.sub(r"\\[A-Za-z]+", " ", text)))
        if any(w in math_words.DANGER or len(w) > 3 and w not in math_words.FUNCTIONS for w in spoken.lower().split()):
            return False
    return not any(has(tree, "rel", "list", "cong", "words", "given", "unit", "noun") for tree in (*golds, *answers))


def far_apart(number: str, text: str, trees: list[Node]) -> bool:
    """One side is a plain number, and the other is a text that we cannot read but that never names it."""
    value = re.sub(r"[^\d.]", "", number)
    plain = len(trees) > 0 and re.fullmatch(r"[-+\s\d.,\x01\x02]+", number) is not None
    if not plain or not value:
        return False
    words = {w.lower() for w in re.findall("[A-Za-z]+", bare(text))}
    return value not in re.sub(r"[^\d.]", " ", text).split() and not words & (math_words.NUMBERS.keys() | {"infinity"})


# --- declared precision ---------------------------------------------------------------------------------------------


def within(gold: str, answer: str, precision: float | list[float]) -> Decision:
    """Numbers that differ by no more than the tolerance that the record declares, in order or in some order."""
    from stratos_jax.grading.math_eval import Env, evaluate

    for gold_tree in readings(gold):
        for answer_tree in readings(answer):
            left, right = items_of(gold_tree), items_of(answer_tree)
            if not left or not right or len(left) != len(right):
                continue
            limits = precision if isinstance(precision, list) else [precision] * len(left)
            values = [[evaluate(n, Env({})) for n in items] for items in (left, right)]
            if len(limits) == len(left) and _matched(values[0], values[1], [float(x) for x in limits]):
                return "right", "math.precision"
            return "wrong", "math.different"
    return "unknown", "unknown.unreadable"


def _matched(left: list, right: list, limits: list[float]) -> bool:
    """Every gold has its own answer within its own limit."""
    if not left:
        return True
    for index, value in enumerate(right):
        near = abs(left[0] - value) <= limits[0] * (1 + 1e-9)
        if near and _matched(left[1:], right[:index] + right[index + 1 :], limits[1:]):
            return True
    return False


# --- the library ----------------------------------------------------------------------------------------------------


def ask_math_verify(gold: str, answer: str, loading: Callable[[bool], None]) -> Decision:
    """What math-verify says; a gold that it cannot read is `unknown`."""
    import sys

    if "math_verify" not in sys.modules:
        loading(False)
        import math_verify

        math_verify.parse(r"$\frac{1}{2}+x^{2}$", parsing_timeout=None)  # builds its tables, which takes a second  # pyright: ignore[reportArgumentType]
        loading(True)
    from math_verify import parse, verify

    gold_parsed = parse(f"${gold.strip(' $')}$", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    if not gold_parsed:
        return "unknown", "unknown.gold_unreadable"
    answer_parsed = parse(f"${answer.strip(' $')}$", parsing_timeout=None)  # pyright: ignore[reportArgumentType]
    if not answer_parsed:
        return "wrong", "math.unreadable_answer"
    same = verify(gold_parsed, answer_parsed, timeout_seconds=None)
    return ("right", "math.math_verify") if same else ("wrong", "math.different")
