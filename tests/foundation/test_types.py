"""Records survive JSON, and what does not fit is refused, all at once."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stratos_jax import types as t

text = st.text(max_size=20)
RECORDS = [
    t.Problem(
        id="a", source="s", kind="math", question="1+1", gold="2", metadata={"level": 3, "deep": [1, {"x": None}]}
    ),
    t.Problem(id="b", source="s", kind="choice", question="?", gold="A", choices=("x", "y")),
    t.Conversation(id="c", messages=(t.Message(role="user", content="hi"), t.Message(role="assistant", content="yo"))),
    t.Sample(id="d", problem_id="p", sample_index=0, text="t", tokens=(1, 2), finish_reason="stop"),
    t.Manifest(
        stage="x",
        config_hash="h",
        code_version="1",
        inputs={"a": "b"},
        files=(t.File(path="f", bytes=1, sha256="s", crc32c="c"),),
    ),
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: type(r).__name__)
def test_round_trip(record):
    assert t.from_json(type(record), t.to_json(record)) == record


@given(
    id=text,
    reason=text,
    extracted=text,
    seconds=st.floats(0, 1e6),
    outcome=st.sampled_from(["right", "wrong", "unknown"]),
)
def test_round_trip_of_any_verdict(**fields):
    verdict = t.Verdict(**fields)
    assert t.from_json(t.Verdict, t.to_json(verdict)) == verdict


def test_unknown_field_is_refused_unless_the_writer_is_newer():
    record = t.to_json(RECORDS[0]) | {"colour": "red"}
    with pytest.raises(t.UserError, match="Problem.colour: unknown field"):
        t.from_json(t.Problem, record)
    assert t.from_json(t.Problem, record | {"schema": t.SCHEMA + 1}) == RECORDS[0]


def test_all_problems_at_once():
    with pytest.raises(t.UserError) as error:
        t.from_json(t.Problem, {"id": 3, "source": "s", "kind": "maths", "extra": 1}, where="x.jsonl:4")
    for part in ("4 problems", "id: got 3", "'maths'", "question: missing", "extra: unknown", "x.jsonl:4"):
        assert part in str(error.value)


def test_nested_records_are_checked():
    record = t.to_json(RECORDS[2])
    record["messages"][1]["role"] = "robot"
    with pytest.raises(t.UserError, match=r"messages\[1\].role"):
        t.from_json(t.Conversation, record)


def test_hashes_ignore_order_but_not_content():
    assert t.json_hash({"a": 1, "b": 2}) == t.json_hash({"b": 2, "a": 1})
    assert t.json_hash({"a": 1}) != t.json_hash({"a": 2})
    files = (t.File(path="a", bytes=1, sha256="1", crc32c=""), t.File(path="b", bytes=1, sha256="2", crc32c=""))
    manifest = dataclasses.replace(RECORDS[4], files=files)
    assert manifest.content_hash() == dataclasses.replace(manifest, files=files[::-1], counts={"n": 1}).content_hash()
    assert manifest.content_hash() != dataclasses.replace(manifest, files=files[:1]).content_hash()
