"""The graders that others use, for the scorecard to stand beside: exact match, math-verify alone, sympy alone.

In: a raw gold and the text of an answer or of a whole response. Out: `(outcome, reason)`. They run in the same killable
workers as our own, for two of them hang.
"""

from collections.abc import Callable

from stratos_jax.grading.extract import BOX, extract_answer

NAMES = ("exact", "math_verify", "sympy")


def decide(baseline: str, gold: str, text: str, loading: Callable[[bool], None]) -> tuple[str, str]:
    """One verdict of one baseline."""
    same = {"exact": exact, "math_verify": math_verify, "sympy": sympy}[baseline](gold, text, loading)
    return ("right" if same else "wrong"), f"baseline.{baseline}"


def boxed(text: str) -> str:
    """The last box of a text, or the text itself."""
    return (extract_answer(text, ()).answer or "") if BOX.search(text) else text


def exact(gold: str, text: str, loading: Callable[[bool], None]) -> bool:
    """The same characters, up to white space and dollars."""
    return "".join(boxed(gold).split()).strip("$") == "".join(boxed(text).split()).strip("$")


def math_verify(gold: str, text: str, loading: Callable[[bool], None]) -> bool:
    """As its documentation shows: parse both, verify."""
    loading(False)
    from math_verify import parse, verify

    loading(True)
    gold = gold if "$" in gold or BOX.search(gold) else f"${gold}$"
    text = text if "$" in text or BOX.search(text) else f"${text}$"
    return bool(
        verify(parse(gold, parsing_timeout=None), parse(text, parsing_timeout=None), timeout_seconds=None)  # type: ignore[arg-type]
    )


def sympy(gold: str, text: str, loading: Callable[[bool], None]) -> bool:
    """Parse both as LaTeX and simplify the difference."""
    loading(False)
    from latex2sympy2_extended import latex2sympy
    from sympy import simplify

    loading(True)
    try:
        left, right = (latex2sympy(boxed(side).strip(" $")) for side in (gold, text))
        return bool(left == right or simplify(left - right) == 0)  # pyright: ignore[reportOperatorIssue]
    except Exception:  # whatever it cannot read it does not accept
        return False
