"""Grade multiple-choice answers by their letter.

In: records `{"id", "gold": "C", "response" | "answer", "num_choices"}`. Out: one `Verdict` each, in input order.
A letter counts where the text declares it (a box, "Answer: C", a last line that is nothing but the letter); a stray
capital or the article "a" in prose never does.
"""

import re
import string
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stratos_jax.grading.config import ChoiceConfig
from stratos_jax.grading.extract import extract_answer
from stratos_jax.types import UserError, Verdict

WRAPPING = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boldsymbol|bf|rm|left|right)(?![A-Za-z])|[\s${}\\*_`]")
LETTER = re.compile(r"[(\[]?([A-Za-z])(?:[)\].:,\-].*|)", re.S)
PHRASE = re.compile(
    r"(?:(?i:final\s+answer|answer|correct\s+(?:choice|option)|choice|option)\W{0,4}(?i:is|are|:)\W{0,12}"
    r"(?i:option|choice)?\W{0,6}(?:\\(?:text|textbf|mathrm|mathbf)\{)?\W{0,2}|(?i:answer)\s*:\W{0,12})([A-Z])(?![A-Za-z'])"
)


def grade(records: Iterable[Mapping[str, Any]], config: ChoiceConfig) -> Iterator[Verdict]:
    """Verdicts in input order."""
    for record in records:
        yield _grade_one(record, config)


def _grade_one(record: Mapping[str, Any], config: ChoiceConfig) -> Verdict:
    identity = str(record["id"]) if "id" in record else ""
    if "gold" not in record or ("answer" in record) == ("response" in record):
        raise UserError(
            "a choice record cannot be graded",
            where=f"id {identity!r}",
            got=f"fields {', '.join(record)}",
            wanted='"id", "gold", "num_choices" and one of "response" or "answer"',
        )
    count = int(record.get("num_choices") or 26)
    gold = as_letter(str(record["gold"]), count)
    if gold is None:
        return Verdict(id=identity, outcome="unknown", reason="unknown.gold_not_a_letter")
    letter, rule = find_letter(record, count, config)
    if letter is None:
        return Verdict(id=identity, outcome="wrong", reason=f"choice.no_answer.{rule}")
    outcome, reason = ("right", f"choice.{rule}") if letter == gold else ("wrong", "choice.different")
    return Verdict(id=identity, outcome=outcome, reason=reason, extracted=letter)


def find_letter(record: Mapping[str, Any], count: int, config: ChoiceConfig) -> tuple[str | None, str]:
    """The letter and the rule that found it, or None and why there is none."""
    if "answer" in record:
        answer = str(record["answer"])
        return (as_letter(answer, count) or _boxed_letter(answer, count), "given")
    text = str(record["response"])
    found = extract_answer(text, ())
    if found.answer is not None:
        return as_letter(found.answer, count), "boxed" if as_letter(found.answer, count) else "box_without_letter"
    if found.rule != "no_answer":
        return None, found.rule
    for name in config.fallbacks:
        letter = FALLBACKS[name](text, count)
        if letter:
            return letter, name
    return None, "no_answer"


def as_letter(text: str, count: int) -> str | None:
    """The letter that `text` names: "C", "(c)", "\\text{(C)} 12", "C. Mercury"; None for anything else."""
    bare = WRAPPING.sub(" ", text).strip()
    match = LETTER.fullmatch(bare) or re.fullmatch(r"(?:option|choice|answer)\W*([A-Za-z])\W*", bare, re.I)
    letter = match.group(1).upper() if match else ""
    return letter if letter and letter in string.ascii_uppercase[:count] else None


def _boxed_letter(text: str, count: int) -> str | None:
    found = extract_answer(text, ())
    return as_letter(found.answer, count) if found.answer else None


def _phrase(text: str, count: int) -> str | None:
    found = [m.group(1) for m in PHRASE.finditer(text)]
    return as_letter(found[-1], count) if found else None


def _last_line(text: str, count: int) -> str | None:
    lines = [line for line in text.splitlines() if line.strip()]
    bare = WRAPPING.sub(" ", lines[-1]).strip() if lines else ""
    match = re.fullmatch(r"[(\[]?([A-Z])[)\].]*", bare)
    return as_letter(match.group(1), count) if match else None


FALLBACKS = {"phrase": _phrase, "last_line": _last_line}
