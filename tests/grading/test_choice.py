"""The letter of a multiple-choice answer: found where it is declared, never guessed from prose."""

import pytest

from stratos_jax.grading import grade


def outcome(text, gold="C", field="response", **extra):
    (verdict,) = grade("choice", [{"id": "1", "gold": gold, field: text, "num_choices": 4, **extra}])
    return verdict.outcome, verdict.reason, verdict.extracted


@pytest.mark.parametrize(
    "text",
    [
        r"So the answer is \boxed{C}.", r"\boxed{\text{C}}", r"\boxed{\textbf{(C)}\ 12}", r"\boxed{(c)}",
        r"\boxed{C. Mercury}",
        "Answer: C", "**Answer:** C", "The correct option is (C).", "the final answer is **C**", "Reasons...\n\nC",
        "(C)",
        r"\boxed{A} is tempting, but \boxed{C}", "Answer: A\nWait.\nAnswer: C", "<think>Answer: A</think>\nAnswer: C",
        r"Answer: $\boxed{\mathrm{C}}$", r"\boxed{Option C}",
    ],
)  # fmt: skip
def test_right(text):
    assert outcome(text)[0] == "right"


@pytest.mark.parametrize(
    "text",
    [
        r"\boxed{A}", "Answer: D", "C is a vitamin, and this is a fact about a plant", "It is a", "A", r"\boxed{C", "",
        r"\boxed{A} or \boxed{C}", r"\boxed{AC}", r"\boxed{12}", "Answer: C\n\nNo: Answer: B", "<think>Answer: C",
        "Answer: Carbon", "We choose Carbon",
    ],
)  # fmt: skip
def test_wrong(text):
    assert outcome(text)[0] == "wrong"


def test_letters_past_the_choices_do_not_count():
    assert outcome("Answer: F", gold="F")[0] == "unknown"
    assert outcome("Answer: F")[1] == "choice.no_answer.no_answer"
    assert outcome("Answer: F", gold="F", num_choices=6)[0] == "right"


def test_given_answers_and_reasons():
    assert outcome("(C)", field="answer") == ("right", "choice.given", "C")
    assert outcome(r"\boxed{B}", field="answer")[0] == "wrong"
    assert outcome(r"\boxed{C", field="response")[1] == "choice.no_answer.unterminated_box"
    assert outcome("Answer: C", gold="carbon")[:2] == ("unknown", "unknown.gold_not_a_letter")
