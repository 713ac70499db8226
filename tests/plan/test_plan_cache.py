"""What is kept, and when it is made again."""

import dataclasses

import pytest

from stratos_jax.plan import cache


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """Something kept."""

    value: int
    compile_seconds: float = 0.0


@pytest.fixture
def made(tmp_path):
    """Calls that made something, and the folder."""
    calls = []

    def recall(parts, code=("plan/hlo.py",)):
        return cache.recall(Record, parts, tmp_path, lambda: calls.append(parts) or Record(value=len(calls)), code)

    return calls, recall, tmp_path


def test_equal_questions_are_answered_once(made):
    calls, recall, _ = made
    assert recall(["a", 1]) == recall(["a", 1]) == Record(value=1)
    assert recall(["a", 2]) == Record(value=2) and len(calls) == 2


def test_other_code_is_another_question(made):
    calls, recall, _ = made
    recall(["a"])
    recall(["a"], code=("plan/work.py",))
    assert len(calls) == 2


def test_a_damaged_record_is_made_again(made):
    calls, recall, folder = made
    recall(["a"])
    next(folder.glob("*.json")).write_text("{")
    assert recall(["a"]) == Record(value=2)
    assert recall(["a"]) == Record(value=2) and len(calls) == 2


@pytest.mark.parametrize("damage", ["*.json", "*.txt.gz"])
def test_a_text_is_kept_beside_its_record(tmp_path, damage):
    calls = []
    make = lambda: (calls.append(1) or Record(value=7), "HloModule " * 1000)
    ask = lambda: cache.recall_text(Record, ["a"], tmp_path, make, ("plan/hlo.py",))
    assert ask() == ask() == (Record(value=7), "HloModule " * 1000) and len(calls) == 1
    next(tmp_path.glob(damage)).write_bytes(b"\x1f\x8b")
    assert ask() == (Record(value=7), "HloModule " * 1000) and len(calls) == 2
    assert ask()[0].value == 7 and len(calls) == 2


def test_usual_seconds_is_what_compilations_took(tmp_path):
    assert cache.usual_seconds(tmp_path) is None
    for number, seconds in enumerate((0.0, 10.0, 30.0, 50.0)):
        cache.recall(Record, [number], tmp_path, lambda s=seconds: Record(value=1, compile_seconds=s), ("plan/hlo.py",))
    (tmp_path / "other.json").write_text("not JSON")
    assert cache.usual_seconds(tmp_path) == 30.0


def test_what_becomes_part_of_the_step_is_in_the_key():
    assert set(cache.STEP) <= set(cache.PROGRAM) and "plan/work.py" in cache.PROGRAM
    assert all((cache.PACKAGE / place).exists() for place in (*cache.PROGRAM, *cache.SERVING, *cache.APART))
