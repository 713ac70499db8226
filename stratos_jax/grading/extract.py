"""Find the final answer in a response: extract first, normalise after.

In: the full text of a response. Out: an `Extract` that holds the raw answer, untouched, and where it stood.
The last complete box counts. A box that is opened after it and never closed means the text was cut off: then there is
no answer, for an earlier box was not the final word. The same holds for a thought that never ends.
"""

import dataclasses
import re

BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
THOUGHT_ENDS = ("</think>", "<|end_of_thought|>", "<|begin_of_solution|>")
THOUGHT_STARTS = ("<think>", "<|begin_of_thought|>")
HASHES = re.compile(r"^\s*####\s*(.+?)\s*$", re.M)
PHRASE = re.compile(
    r"(?:final\s+answer|answer)\s*(?:\*\*)?\s*(?:is|are|:|=|is:)\s*:?\s*(?:\*\*)?\s*(?P<answer>[^\n]+)", re.I
)
MATH = re.compile(r"\$\$(.+?)\$\$|\$(.+?)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.S)
NUMBER = re.compile(r"(?<![\w.])[-+]?\$?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:/\d+)?%?(?![\w])")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Extract:
    """The raw answer and the rule that found it; `answer` is None where there is none, and `rule` says why."""

    answer: str | None
    rule: str


def extract_answer(text: str, fallbacks: tuple[str, ...]) -> Extract:
    """The final answer of a response."""
    final = after_thought(text)
    if final is None:
        return Extract(answer=None, rule="unterminated_thought")
    text = final
    starts = list(BOX.finditer(text))
    if starts:
        return _last_box(text, starts)
    for name in fallbacks:
        answer = FALLBACKS[name](text)
        if answer:
            return Extract(answer=answer, rule=name)
    return Extract(answer=None, rule="no_answer")


def after_thought(text: str) -> str | None:
    """What follows the thinking; None if the thinking was never closed; the whole text if there is none."""
    ends = [text.rfind(mark) + len(mark) for mark in THOUGHT_ENDS if mark in text]
    end = max(ends, default=0)
    if any(text.find(mark, end) >= 0 for mark in THOUGHT_STARTS):
        return None
    return text[end:]


def _last_box(text: str, starts: list[re.Match]) -> Extract:
    boxes = []
    for match in reversed(starts):
        span = box_content(text, match.end())
        if span is None:
            if not boxes:
                return Extract(answer=None, rule="unterminated_box")
            break
        if boxes and not _joined(text, span[1], boxes[-1][2]):
            break
        boxes.append((text[span[0] : span[1]].strip(), span[1], match.start()))
    answers = [content for content, _, _ in reversed(boxes)]
    if not answers[-1]:
        return Extract(answer=None, rule="empty_box")
    return Extract(answer=", ".join(dict.fromkeys(a for a in answers if a)), rule="boxed")


def _joined(text: str, end: int, start: int) -> bool:
    """True where nothing but a comma, `and` or `or` stands between two boxes: together they are one answer."""
    between = text[end + 1 : start] if end < len(text) and text[end] == "}" else text[end:start]
    if "\n\n" in between or len(between) > 40:
        return False
    between = re.sub(r"(?<![A-Za-z])[A-Za-z](?:_\{?\w+\}?)?\s*=", " ", between)  # $x = \\boxed{1}$ or $x = \\boxed{2}$
    words = re.sub(r"\\(?:text|quad|qquad|mathrm)(?![a-z])|[\s$.,;:&\\(){}\[\]]", " ", between).split()
    return words in (["and"], ["or"]) or (not words and bool(re.search("[,;]", between)))


def box_content(text: str, start: int) -> tuple[int, int] | None:
    """Span of what stands in the box whose opening brace is at `start`; None if it is never closed."""
    if start >= len(text):
        return None
    if text[start] != "{":
        word = re.compile(r"\\[A-Za-z]+|[^\s$\\{}]+").match(text, start)
        return (word.start(), word.end()) if word else None
    depth = 0
    for match in re.compile(r"\\.|[{}]", re.S).finditer(text, start):
        token = match.group()
        depth += (token == "{") - (token == "}")
        if depth == 0:
            return start + 1, match.start()
    return None


def _hashes(text: str) -> str | None:
    found = HASHES.findall(text)
    return found[-1] if found else None


def _phrase(text: str) -> str | None:
    found = list(PHRASE.finditer(text))
    if not found:
        return None
    answer = found[-1]["answer"].strip()
    return clip_sentence(answer) or None


def clip_sentence(text: str) -> str:
    """Cut off markdown, what follows the first full stop outside math, and the stop itself."""
    text = re.sub(r"\*\*|__|`", "", text).strip()
    math = re.match(r"(\$\$?|\\\[|\\\()(.+?)(\$\$?|\\\]|\\\))", text)
    if math and re.fullmatch(r"[\s.!]*", text[math.end() :]):
        return math.group(2).strip()
    end = re.search(r"[.!](?=\s+[A-Z]|\s*$)", text)
    return (text[: end.start()] if end else text).strip(" .")


def _last_paragraph(text: str) -> str:
    paragraphs = [p for p in re.split(r"\n\s*\n", text) if p.strip()]
    return paragraphs[-1] if paragraphs else ""


def _last_math(text: str) -> str | None:
    found = [next(g for g in m.groups() if g) for m in MATH.finditer(_last_paragraph(text))]
    return found[-1].strip(" .,") if found else None


def _last_number(text: str) -> str | None:
    found = NUMBER.findall(_last_paragraph(text))
    return found[-1] if found else None


FALLBACKS = {"hashes": _hashes, "phrase": _phrase, "last_math": _last_math, "last_number": _last_number}
