"""Rows of a data set, in the shapes in which people keep conversations, as checked `Conversation`s.

In: one JSON line: ShareGPT (`conversations`, maybe `system`), OpenAI (`messages`), or `prompt` and `response`.
Out: a `Conversation`, or what is wrong with the row, said by field.
"""

import json
from collections.abc import Mapping

from stratos_jax.types import Conversation, Json, Message, Role

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
ANSWERS = ("response", "completion")


def read_row(line: bytes, source: str, number: int) -> Conversation | str:
    """The conversation of one line, or one sentence on why it is none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {line[error.start]:#04x} at {error.start}"
    except ValueError as error:
        return f"not JSON: {error}"
    if not isinstance(row, dict):
        return f"wanted an object, got {type(row).__name__}"
    turns = _turns(row)
    if isinstance(turns, str):
        return turns
    problem = check_turns(turns)
    if problem:
        return problem
    messages = tuple(Message(role=role, content=text) for role, text, _ in turns)
    if any(_lone_surrogate(message.content) for message in messages):
        return "half of a surrogate pair (\\ud800..\\udfff): no Unicode text"
    name = row.get("id")
    return Conversation(
        id=f"{source}:{number}" if name is None else str(name),
        messages=messages,
        source=str(row.get("source", source)),
    )


def check_turns(turns: list[tuple[Role, str, str]]) -> str:
    """Turns must be: perhaps a system message, then user and assistant in turn, the assistant last."""
    body = turns[1:] if turns and turns[0][0] == "system" else turns
    if not body:
        return "no turns"
    for index, (role, text, field) in enumerate(body):
        wanted = "assistant" if index % 2 else "user"
        if role != wanted:
            return f"{field}: got a turn of {role!r}, wanted {wanted!r} (unpaired turns)"
        if not text.strip():
            return f"{field}: empty {role} turn"
    return f"{body[-1][2]}: the last turn is the user's, with no answer (unpaired turns)" if len(body) % 2 else ""


def _turns(row: Mapping[str, Json]) -> list[tuple[Role, str, str]] | str:
    """(role, text, name of the field) of each turn, from whichever shape the row has."""
    system = row.get("system")
    if system is not None and not isinstance(system, str):
        return f"system: wanted text, got {type(system).__name__}"
    turns: list[tuple[Role, str, str]] = [("system", system, "system")] if system else []
    for field, who, what in (("conversations", "from", "value"), ("messages", "role", "content")):
        if field in row:
            more = _listed_turns(row[field], field, who, what)
            if isinstance(more, str):
                return more
            if turns and more and more[0][0] == "system":
                return f"{field}[0]: a second system message beside the field 'system'"
            return turns + more
    answer = next((field for field in ANSWERS if field in row), None)
    if "prompt" not in row or answer is None:
        return "no field 'conversations' or 'messages', nor 'prompt' with 'response'; has " + (", ".join(row) or "none")
    for field in ("prompt", answer):
        if not isinstance(row[field], str):
            return f"{field}: wanted text, got {type(row[field]).__name__}"
    return [*turns, ("user", row["prompt"], "prompt"), ("assistant", row[answer], answer)]


def _listed_turns(value: Json, field: str, who: str, what: str) -> list[tuple[Role, str, str]] | str:
    if not isinstance(value, list):
        return f"{field}: wanted a list, got {type(value).__name__}"
    turns: list[tuple[Role, str, str]] = []
    for index, turn in enumerate(value):
        path = f"{field}[{index}]"
        if not isinstance(turn, dict):
            return f"{path}: wanted an object, got {type(turn).__name__}"
        if not isinstance(turn.get(who), str) or turn[who] not in ROLES:
            return f"{path}.{who}: unknown role {turn.get(who)!r}, wanted one of {', '.join(ROLES)}"
        if not isinstance(turn.get(what), str):
            return f"{path}.{what}: wanted text, got {type(turn.get(what)).__name__}"
        turns.append((ROLES[turn[who]], turn[what], f"{path}.{what}"))
    return turns


def _lone_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
