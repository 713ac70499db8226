"""The nouns that pass between rooms, and their JSON.

In: nothing but the standard library. Out: frozen dataclasses, `to_json` and `from_json`.
Ids travel between stages, not objects: a `Trace` names its `Problem` by `problem_id`.

Every record is one JSON object that carries `"schema": N`. A reader is strict: an unknown field is an
error, unless the record was written by a newer schema than the reader's, whose added fields it passes over.
"""

import dataclasses
import functools
import hashlib
import json
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

SCHEMA = 1

T = typing.TypeVar("T")

Json = Any  # None | bool | int | float | str | list | dict; a recursive alias would not pass `get_type_hints`.


class UserError(ValueError):
    """What a person can mend: printed as it stands, without a traceback, exit code 2."""

    def __init__(self, what: str, *, where: object = None, got: object = None, wanted: object = None, do: str = ""):
        lines = [what]
        for label, value in (("where", where), ("got", got), ("wanted", wanted), ("do", do or None)):
            if value is not None:
                lines.append(f"  {label + ':':<8}{value}")
        super().__init__("\n".join(lines))


def raise_all(problems: Sequence[str], *, what: str, where: object = None, do: str = "") -> None:
    """Raise one `UserError` that lists every problem; do nothing where there is none."""
    if problems:
        listing = "".join(f"\n    - {problem}" for problem in problems)
        raise UserError(f"{what} ({len(problems)} problem{'s' * (len(problems) > 1)}){listing}", where=where, do=do)


Kind = Literal["math", "code", "choice"]
Outcome = Literal["right", "wrong", "unknown"]
FinishReason = Literal["stop", "length", "error"]
Role = Literal["system", "user", "assistant"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One question with what is needed to grade an answer to it."""

    id: str
    source: str
    kind: Kind
    question: str
    gold: str = ""  # math: the answer; choice: the letter; code: empty
    tests: Mapping[str, Json] | None = None  # code only; the shape that `grading` documents
    choices: tuple[str, ...] = ()  # choice only, in the order shown
    starter_code: str = ""
    metadata: Mapping[str, Json] = dataclasses.field(default_factory=dict)  # kind, difficulty, date, licence ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Trace:
    """One answer of the teacher: its thinking and its solution."""

    id: str
    problem_id: str
    sample_index: int
    model: str
    reasoning: str
    solution: str
    finish_reason: FinishReason
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    request_hash: str = ""  # the key of the exact bytes sent, in the request store


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the grader says of one answer, and why. `unknown` is never counted as right or wrong."""

    id: str  # of the Trace or the Sample
    outcome: Outcome
    reason: str  # machine-readable, e.g. "math.exact", "code.wrong_answer", "unknown.timeout"
    extracted: str = ""
    seconds: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Conversation:
    """A training sample as text."""

    id: str
    messages: tuple[Message, ...]
    source: str = ""
    problem_id: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One answer of the student, as the engine gave it."""

    id: str
    problem_id: str
    sample_index: int
    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    prompt_hash: str = ""
    seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file of a stage's output; `path` is relative to the manifest."""

    path: str
    bytes: int
    sha256: str
    crc32c: str  # base64 of the big-endian value, as object stores print it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """Names what a stage read and wrote; written last, so that its presence means the stage is complete."""

    stage: str
    config_hash: str
    code_version: str
    inputs: Mapping[str, str]  # name -> content hash of the manifest or file that was read
    files: tuple[File, ...]
    counts: Mapping[str, Json] = dataclasses.field(default_factory=dict)
    config: Mapping[str, Json] = dataclasses.field(default_factory=dict)

    def content_hash(self) -> str:
        """Hash of what the stage's outputs are: the files' names and bytes, nothing of how they came about."""
        return json_hash([[f.path, f.bytes, f.sha256] for f in sorted(self.files, key=lambda f: f.path)])


def canonical_json(value: Json) -> str:
    """One spelling of a JSON value: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def json_hash(value: Json) -> str:
    """sha256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def to_json(value: Any) -> Json:
    """A record as plain JSON; a dataclass gets its fields and, on the outermost one, the schema."""
    plain = _plain(value)
    return {"schema": SCHEMA, **plain} if dataclasses.is_dataclass(value) else plain


def _plain(value: Any) -> Json:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value


def from_json(cls: type[T], record: Mapping[str, Json], *, where: str = "") -> T:
    """Read a record back; every unknown, missing or mistyped field is reported at once."""
    if not isinstance(record, Mapping):
        raise UserError(f"not a {cls.__name__}", where=where, got=type(record).__name__, wanted="a JSON object")
    schema = record.get("schema", SCHEMA)
    fields = {k: v for k, v in record.items() if k != "schema"}
    problems: list[str] = []
    value = _build(cls, fields, cls.__name__, newer=schema > SCHEMA, problems=problems)
    raise_all(problems, what=f"not a valid {cls.__name__}", where=where or None)
    return value


@functools.cache
def field_types(cls: type) -> dict[str, Any]:
    """Resolved annotations of a dataclass."""
    return typing.get_type_hints(cls)


def _build(cls: type, record: Mapping[str, Json], path: str, *, newer: bool, problems: list[str]) -> Any:
    hints, kwargs = field_types(cls), {}
    names = {f.name: f for f in dataclasses.fields(cls)}
    for key in record.keys() - names.keys() if not newer else ():
        problems.append(f"{path}.{key}: unknown field; known are {', '.join(names)}")
    for name, field in names.items():
        if name in record:
            kwargs[name] = read_value(hints[name], record[name], f"{path}.{name}", newer=newer, problems=problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{path}.{name}: missing")
    return None if problems else cls(**kwargs)


def read_value(hint: Any, value: Json, path: str, *, newer: bool, problems: list[str]) -> Any:
    """Read a JSON value as an annotation asks; what does not fit is added to `problems`."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        attempts = []
        for option in (a for a in args if a is not type(None)):
            errors: list[str] = []
            built = read_value(option, value, path, newer=newer, problems=errors)
            if not errors:
                return built
            attempts.append(errors)
        problems.extend(min(attempts, key=len))
        return None
    if origin is Literal:
        if value not in args:
            problems.append(f"{path}: got {value!r}, wanted one of {', '.join(map(repr, args))}")
        return value
    if dataclasses.is_dataclass(hint):
        if isinstance(value, Mapping):
            return _build(typing.cast(type, hint), value, path, newer=newer, problems=problems)
        problems.append(f"{path}: got {type(value).__name__}, wanted an object")
        return None
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            problems.append(f"{path}: got {type(value).__name__}, wanted a list")
            return None
        if len(args) == 2 and args[1] is ...:
            inner = [args[0]] * len(value)
        elif len(args) == len(value):
            inner = list(args)
        else:
            problems.append(f"{path}: got {len(value)} items, wanted {len(args)}")
            return None
        pairs = enumerate(zip(inner, value, strict=True))
        return tuple(read_value(h, v, f"{path}[{i}]", newer=newer, problems=problems) for i, (h, v) in pairs)
    if origin in (Mapping, dict) or hint in (Mapping, dict):
        if not isinstance(value, Mapping):
            problems.append(f"{path}: got {type(value).__name__}, wanted an object")
            return None
        inner = args[1] if args else Any
        return {k: read_value(inner, v, f"{path}.{k}", newer=newer, problems=problems) for k, v in value.items()}
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (str, int, float, bool) and type(value) is not hint:
        problems.append(f"{path}: got {value!r} ({type(value).__name__}), wanted {hint.__name__}")
    return value
