"""Rows in every shape that people keep, and every way in which they go wrong."""

import json

import pytest

from stratos_jax.shards import conversations
from stratos_jax.types import Conversation

USER, ANSWER = {"from": "user", "value": "q"}, {"from": "assistant", "value": "a"}


def read(row) -> Conversation | str:
    line = row if isinstance(row, bytes) else json.dumps(row).encode()
    return conversations.read_row(line, "src", 7)


@pytest.mark.parametrize(
    "row",
    [
        {"conversations": [USER, ANSWER]},
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
        {"prompt": "q", "response": "a"},
        {"prompt": "q", "completion": "a"},
    ],
)
def test_every_shape(row):
    for system in ("", "s"):
        found = read({**row, "system": system})
        assert isinstance(found, Conversation)
        assert [m.role for m in found.messages] == ["system"] * bool(system) + ["user", "assistant"]
        assert [m.content for m in found.messages][-2:] == ["q", "a"]
        assert (found.id, found.source) == ("src:7", "src")


def test_id_and_source_are_kept_and_system_may_be_a_turn():
    row = {"id": 5, "source": "math", "messages": [{"role": "system", "content": "s"}]}
    row["messages"] += [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    found = read(row)
    assert isinstance(found, Conversation)
    assert (found.id, found.source, found.messages[0].role) == ("5", "math", "system")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (b"\xff\xfe{}", "not UTF-8: byte 0xff"),
        (b'{"a": ', "not JSON"),
        (b"[1]", "wanted an object, got list"),
        ({"text": "x"}, "no field 'conversations'"),
        ({"conversations": "x"}, "conversations: wanted a list, got str"),
        ({"conversations": []}, "no turns"),
        ({"conversations": [USER, {"from": "tool", "value": "a"}]}, "conversations[1].from: unknown role 'tool'"),
        ({"conversations": [USER, {"from": "gpt", "value": None}]}, "conversations[1].value: wanted text"),
        ({"conversations": [USER, {"from": "gpt", "value": " \n"}]}, "conversations[1].value: empty assistant turn"),
        ({"conversations": [USER, USER, ANSWER]}, "conversations[1].value: got a turn of 'user', wanted 'assistant'"),
        ({"conversations": [USER]}, "conversations[0].value: the last turn is the user's"),
        ({"conversations": [ANSWER]}, "conversations[0].value: got a turn of 'assistant', wanted 'user'"),
        ({"conversations": [USER, ANSWER, USER]}, "conversations[2].value: the last turn is the user's"),
        ({"system": 3, "conversations": [USER, ANSWER]}, "system: wanted text, got int"),
        ({"prompt": "q", "response": ["a"]}, "response: wanted text, got list"),
        ({"prompt": "q"}, "no field 'conversations'"),
        ({"conversations": [{"from": "user", "value": "\ud800"}, ANSWER]}, "half of a surrogate pair"),
        ({"system": "s", "messages": [{"role": "system", "content": "t"}]}, "messages[0]: a second system message"),
    ],
)
def test_what_is_wrong_is_said_by_field(row, said):
    found = read(row)
    assert isinstance(found, str) and found.startswith(said), found
