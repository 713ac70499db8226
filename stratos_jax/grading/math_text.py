"""Answers that are words rather than mathematics: names, fixed phrases, choice letters, times and dates.

In: two cleaned texts, gold first. Out: True, False, or None where they are not of this kind.
"""

import itertools
import re

from stratos_jax.grading import math_words

CHOICE = re.compile(
    r"(?:(?i:(?:the\s+)?(?:answer|option|choice)\s+(?:is\s+)?))?"
    r"(?:\(\s*(?P<a>[A-Ja-j])\s*\)|(?P<b>[A-J])(?=[).:]|$))[).:]?\s*(?P<rest>(?!(?:or|and)\b|[,;&+]).*)",
    re.S,
)
MARKED = re.compile(r"\s*(?:\\text(?:bf|rm)?\s*\{\s*\(?[A-J]\)?[\s.:]*\}|\([A-J]\)(?!\s*[=^_])|[A-J]\s*$)")
LETTERS = re.compile(r"(?:[A-J]|[IVX]+)(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+|\s+)(?:[A-J]|[IVX]+))+(?:\s+only)?")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
          "december")  # fmt: skip
MONTH = "|".join(f"{m[:3]}(?:{m[3:]}|t)?" if m[3:] else m for m in MONTHS)
DATE = re.compile(
    rf"(?:(?:on\s+)?[a-z]+day,?\s+)?(?:(?P<m1>{MONTH})\.?\s+(?P<d1>\d{{1,2}})|(?P<d2>\d{{1,2}})\s+(?:of\s+)?(?P<m2>{MONTH})\.?)"
    r"(?:,?\s+(?P<year>\d{4}))?"
)
NONE = re.compile(
    r"(?:there\s+(?:is|are|exists?)\s+)?no\s+(?:such\s+)?(?:real\s+|integer\s+|positive\s+|other\s+)*"
    r"(?:solutions?|values?|numbers?|functions?|integers?|pairs?|triples?|roots?|[a-z])(?:\s+of\s+[a-z])?(?:\s+exists?)?"
)
PARITY = re.compile(
    r"(?:all|any|every)\s+(odd|even)\s+(?:(?:integers?|numbers?|values?\s+of)\s+)?[a-z]"
    r"|[a-z]\s+(?:is|must be)\s+(odd|even)"
)
TIME = re.compile(r"(\d{1,2})\s*:\s*(\d{2})\s*(?:([ap])\.?\s*m\.?)?", re.I)
CLOCK = re.compile(r"\b(?:what time|o'clock|a\.m\.|p\.m\.|clock|[AP]M)\b|\b[ap]\.m\.", re.I)
SAME_WORD = {"converges": "convergent", "converge": "convergent", "diverges": "divergent", "diverge": "divergent"}
CLASS_NOUNS = frozenset("triangle sery series sequence player both figure curve color colour graph".split())
SAME_PHRASES = ({"INFINITY", "INFINITELY_MANY"}, {"YES", "TRUE"}, {"NO", "FALSE"})
LEAD = re.compile(
    r"(?:the (?:statement|answer|claim|series|limit|function|integral|equation|value) |it |this |that )"
    r"(?:is |has )(?:an? )?"
)
PREDICATE = re.compile(
    r"^(?:the|this|that|its|it|they|these|both)(?: [a-z]+){0,3}? (?:is|are|was|will be|must be) (?=[a-z]+)"
)
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
MAX_NAME_WORDS = 3  # a name or a short phrase; longer prose that differs may still mean the same


def same_choice(gold: str, answer: str) -> bool | tuple[str, str] | None:
    """A choice letter, with or without its text; the two texts where they decide: `(C) 37` against `37`."""
    if not MARKED.match(gold):
        return None
    ours, theirs = CHOICE.fullmatch(bare(gold)), CHOICE.fullmatch(bare(answer))
    if ours is None or not (ours["a"] or ours["b"]).isupper():
        return None
    if theirs is None:
        return (ours["rest"], answer) if ours["rest"] else None
    if (ours["a"] or ours["b"]) != (theirs["a"] or theirs["b"]).upper():
        return False
    return (ours["rest"], theirs["rest"]) if ours["rest"] and theirs["rest"] else True


def same_letters(gold: str, answer: str) -> bool | None:
    """Several letters, say the true statements: A, C and D."""
    ours = bare(gold)
    if not LETTERS.fullmatch(ours):
        return None
    theirs = bare(answer)
    if not LETTERS.fullmatch(theirs) and not re.fullmatch("[A-J]+", theirs):
        return None
    found = r"[IVX]+" if re.search(r"[IVX]{2}|[VX]", ours + theirs) else "[A-J]"
    return sorted(re.findall(found, ours)) == sorted(re.findall(found, theirs))


def same_words(gold: str, answer: str, problem: str = "") -> bool | None:
    """Two answers that are words, or fixed phrases."""
    if any(p.fullmatch(bare(t).lower().strip(" .")) for p in (NONE, PARITY) for t in (gold, answer)):
        return None
    left, right = phrase(gold), phrase(answer)
    if left in ("true", "false") and bare(answer) in ("T", "F"):
        return left[0] == bare(answer).lower()
    if left is None or right is None:
        return None
    if left == right:
        return True
    names = [_fixed_phrase(p) for p in (left, right)]
    if any(names):
        if names[0] == names[1] or set(names) in SAME_PHRASES:
            return True
        return False if all(names) or {"YES", "NO", "TRUE", "FALSE"} & set(names) else None
    contents = _content(left), _content(right)
    if contents[0] == contents[1] or contents[0] == _content(PREDICATE.sub("", right, count=1)):
        return True
    if _parts(gold) == _parts(answer) and not math_words.ORDER_ASKED.search(problem):
        return True
    return False if max(map(len, contents)) <= MAX_NAME_WORDS else None


def same_time(gold: str, answer: str, problem: str) -> bool | None:
    """Two times of day, where a side or the problem says that they are times."""
    left, right = TIME.fullmatch(bare(gold)), TIME.fullmatch(bare(answer))
    told = any(m and m.group(3) for m in (left, right)) or bool(CLOCK.search(problem))
    if not left or not told:
        return None
    if not right:  # a bare number is no time of day
        return None if re.search("[A-Za-z]", bare(answer)) else False
    minutes = [_minutes(left), _minutes(right)]
    halves = all(m.group(3) or int(m.group(1)) > 12 for m in (left, right))
    return (minutes[0] - minutes[1]) % (24 * 60 if halves else 12 * 60) == 0


def _minutes(time: re.Match) -> int:
    hour, half = int(time.group(1)), (time.group(3) or "").lower()
    if half:
        hour = hour % 12 + 12 * (half == "p")
    return 60 * hour + int(time.group(2))


def same_date(gold: str, answer: str) -> bool | None:
    """Two days of the year: March 15, 15 March, Mar. 15."""
    left, right = (DATE.fullmatch(bare(t).lower().strip(" .")) for t in (gold, answer))
    if not left and not right:
        return None
    if not left or not right:
        return None if re.search("[A-Za-z]", bare(answer if left else gold)) else False
    ours, theirs = _day(left), _day(right)
    return ours[:2] == theirs[:2] and (ours[2] == theirs[2] or not ours[2] or not theirs[2])


def _day(date: re.Match) -> tuple[str, int, str]:
    return (date["m1"] or date["m2"])[:3], int(date["d1"] or date["d2"]), date["year"] or ""


LOGIC = [(r"\\(?:wedge|land)(?![a-z])", " and "), (r"\\(?:vee|lor)(?![a-z])", " or "),
         (r"\\(?:neg|lnot|sim)(?![a-z])|[~!]", " not "), (r"\\(?:Leftrightarrow|leftrightarrow|iff)(?![a-z])", " == "),
         (r"\\(?:to|rightarrow|Rightarrow|implies|supset)(?![a-z])", " <= ")]  # fmt: skip


def same_logic(gold: str, answer: str) -> bool | None:
    """Two formulas of propositional logic, by their truth tables."""
    forms = [_formula(text) for text in (gold, answer)]
    if forms[0] is None or forms[1] is None or not any(f.count(" ") for f in forms if f):
        return None
    names = sorted(set(re.findall(r"(?<![A-Za-z])[a-zA-Z](?![A-Za-z])", " ".join(f for f in forms if f))))
    if not 0 < len(names) <= 6:
        return None
    try:
        tables = [[_truth(f, dict(zip(names, row))) for row in itertools.product((False, True), repeat=len(names))]
                  for f in forms if f]  # fmt: skip
    except ValueError:
        return None
    return tables[0] == tables[1]


def _formula(text: str) -> str | None:
    if not re.search(r"\\(?:wedge|land|vee|lor|neg|lnot|implies|to|[Rr]ightarrow)", text):
        return None
    for old, new in LOGIC:
        text = re.sub(old, new, text)
    text = re.sub(r"\\(?:left|right)(?![a-z])", "", text)
    tokens = re.findall(r"and|or|not|==|<=|[A-Za-z]|[()]", text)
    if "".join(tokens) != re.sub(r"\s", "", text) or len(tokens) > 60:
        return None
    return " ".join(tokens)


def _truth(formula: str, values: dict[str, bool]) -> bool:
    """The value of a formula; the loosest sign first: if and only if, implies (to the right), or, and, not."""
    tokens = formula.split()

    def split(sign: str, last: bool = False) -> int | None:
        depth, found = 0, None
        for at, token in enumerate(tokens):
            depth += (token == "(") - (token == ")")
            if depth == 0 and token == sign and (found is None or last):
                found = at
        return found

    for sign, combine in (("==", bool.__eq__), ("<=", bool.__le__), ("or", bool.__or__), ("and", bool.__and__)):
        at = split(sign, last=sign != "<=")
        if at is not None:
            left, right = (_truth(" ".join(part), values) for part in (tokens[:at], tokens[at + 1 :]))
            return bool(combine(left, right))
    if tokens[:1] == ["not"]:
        return not _truth(" ".join(tokens[1:]), values)
    if tokens[:1] == ["("] and tokens[-1] == ")":
        return _truth(" ".join(tokens[1:-1]), values)
    if len(tokens) != 1 or tokens[0] not in values:
        raise ValueError(formula)
    return values[tokens[0]]


def bare(text: str) -> str:
    """The text without LaTeX around it."""
    text = re.sub(r"\\(?:text|mathrm|mathbf|textbf|textit|textrm|mbox|emph|boxed)(?![A-Za-z])", "", text)
    return re.sub(r"[{}$*`\"]|\\(?=\s)|\\[,;!]", "", text).replace("~", " ").strip()


def phrase(text: str) -> str | None:
    """Lower-case words, if the text is nothing but words."""
    words = bare(text).strip(" .,;:!?")
    if not re.fullmatch(r"[A-Za-z][A-Za-z'\-]*(?:[\s,]+[A-Za-z][A-Za-z'\-]*)*", words):
        return None
    words = re.sub(r"[\s,]+", " ", words).lower()
    if words in math_words.PHRASE_OF:
        return words
    if len(words) < 2 or math_words.number_words(words.split()) is not None:
        return None
    if " " not in words and not re.search("[aeiouy]", words):
        return None
    text_mode = "\\text" in text or "\\mbox" in text or " " in words
    return words if text_mode or len(words) >= 3 else None


def _fixed_phrase(words: str) -> str | None:
    return math_words.PHRASE_OF.get(words) or math_words.PHRASE_OF.get(LEAD.sub("", words, count=1))


def _parts(text: str) -> list[list[str]]:
    """The members of a list of names, in one order for all."""
    return sorted(_content(part) for part in re.split(r",|\band\b", bare(text).lower().strip(" .")) if part.strip())


def _content(words: str) -> list[str]:
    """The words that carry meaning, in their order; `not` and its kind always stay."""
    words = words.replace("-", " ")
    dropped = {
        "to",
        "on",
        "in",
        "towards",
        "the",
        "a",
        "an",
        "is",
        "are",
        "it",
        "will",
        "be",
        "wins",
        "win",
        "due",
        "function",
        "answer",
        "s",
    }
    days = {day[:3]: day for day in WEEKDAYS}
    kept = [days.get(w) or SAME_WORD.get(w, math_words.stem(w)) for w in words.split() if w not in dropped]
    return [w for w in kept if w not in CLASS_NOUNS] or kept
