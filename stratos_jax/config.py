"""A config file plus dotted overrides becomes one resolved, frozen dataclass.

In: `configs/NAME.py` with `recipe()`, and words such as `train.optimizer.peak_lr=2e-5`.
Out: the dataclass, where each value that is not a default came from, and its hash.
All problems of all overrides are reported at once; unknown names get a suggestion.
"""

import dataclasses
import difflib
import json
import pathlib
import runpy
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from stratos_jax.types import Json, UserError, field_types, json_hash, raise_all, read_value, to_json

Origin = Literal["default", "config", "override"]
MISSING = object()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Value:
    """One leaf of a resolved config."""

    name: str  # dotted
    value: Any
    origin: Origin
    default: Any = None


def load(path: str | pathlib.Path) -> Any:
    """Run a config file and return what its `recipe()` gives."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise UserError("no such config file", where=path, do=_near_files(path))
    try:
        scope = runpy.run_path(str(path))
    except UserError:
        raise
    except Exception as error:
        line = _line_in(path, error)
        raise UserError(f"the config file fails: {type(error).__name__}: {error}", where=f"{path}:{line}") from error
    if not callable(scope.get("recipe")):
        raise UserError("the config file has no function `recipe`", where=path, wanted="def recipe() -> Recipe")
    try:
        value = scope["recipe"]()
    except Exception as error:
        line = _line_in(path, error)
        raise UserError(f"recipe() fails: {type(error).__name__}: {error}", where=f"{path}:{line}") from error
    if not dataclasses.is_dataclass(value):
        raise UserError("recipe() returns no recipe", where=path, got=type(value).__name__, wanted="Recipe")
    return value


def beside(config_file: str, name: str) -> Any:
    """What lies next to a config file: another config's recipe (`.py`), or the content of a JSON file."""
    path = pathlib.Path(config_file).parent / name
    return load(path) if path.suffix == ".py" else json.loads(path.read_text())


def _near_files(path: pathlib.Path) -> str:
    folder = path.parent if path.parent.is_dir() else pathlib.Path(".")
    names = sorted(p.name for p in folder.glob("*.py"))
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.5)
    return f"did you mean {folder / near[0]}?" if near else "name a file such as configs/quickstart.py"


def _line_in(path: pathlib.Path, error: BaseException) -> int:
    line, trace = 0, error.__traceback__
    while trace:
        if pathlib.Path(trace.tb_frame.f_code.co_filename) == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return getattr(error, "lineno", None) or line


def override(config: Any, words: Sequence[str]) -> Any:
    """Apply `dotted.name=value` words in order, or raise one error with all that is wrong with them."""
    problems: list[str] = []
    for word in words:
        name, equals, text = word.partition("=")
        if not equals:
            problems.append(f"{word}: wanted NAME=VALUE")
            continue
        try:
            config = _replace(config, name.split("."), text, name)
        except ValueError as error:
            problems.append(str(error))
    raise_all(problems, what="bad overrides", do="`stratos show CONFIG` lists every name with its value")
    return config


def _replace(config: Any, parts: list[str], text: str, name: str) -> Any:
    head, rest = parts[0], parts[1:]
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"{name}: {'.'.join(name.split('.')[: -len(parts)])} is {config!r}, which has no fields")
    hints = field_types(type(config))
    if head not in hints:
        raise ValueError(f"{name}: no field {head!r} in {type(config).__name__}; {_suggest(head, config, rest)}")
    current = getattr(config, head)
    value = _replace(current, rest, text, name) if rest else parse(hints[head], text, name)
    return dataclasses.replace(config, **{head: value})


def _suggest(head: str, config: Any, rest: list[str]) -> str:
    names = list(field_types(type(config)))
    near = difflib.get_close_matches(head, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    last = (rest or [head])[-1]
    deeper = [v.name for v in leaves(config) if v.name.split(".")[-1] == last]
    return f"did you mean {deeper[0]!r}?" if deeper else f"it has {', '.join(names)}"


def parse(hint: Any, text: str, name: str) -> Any:
    """Read the text of an override as the annotation asks; ValueError says what was wanted."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null") and type(None) in args:
            return None
        errors = []
        for option in (a for a in args if a is not type(None)):
            try:
                return parse(option, text, name)
            except ValueError as error:
                errors.append(str(error))
        raise ValueError(errors[0])
    if origin is Literal:
        by_text = {str(a): a for a in args}
        if text not in by_text:
            near = difflib.get_close_matches(text, list(by_text), n=1, cutoff=0.5)
            hint_text = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"{name}: got {text!r}, wanted one of {', '.join(by_text)}{hint_text}")
        return by_text[text]
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name}: got {text!r}, wanted true or false")
        return text.lower() == "true"
    if hint in (int, float):
        return _number(hint, text, name)
    if hint is str:
        return text
    return _structured(hint, text, name)


def _number(hint: type, text: str, name: str) -> int | float:
    try:
        number = float(text) if hint is float else int(text.replace("_", ""))
    except ValueError:
        whole = _whole(text) if hint is int else None
        if whole is None:
            raise ValueError(
                f"{name}: got {text!r}, wanted {'a number' if hint is float else 'a whole number'}"
            ) from None
        return whole
    return number


def _whole(text: str) -> int | None:
    try:
        return int(float(text)) if float(text) == int(float(text)) else None
    except (ValueError, OverflowError):
        return None


def _structured(hint: Any, text: str, name: str) -> Any:
    """Tuples, mappings and nested dataclasses are written as JSON; a tuple of plain words as a,b,c."""
    args = typing.get_args(hint)
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        if typing.get_origin(hint) is not tuple or text.startswith(("[", "{")):
            raise ValueError(f"{name}: got {text!r}, wanted JSON") from None
        inner = args[0] if len(args) == 2 and args[1] is ... else str
        return tuple(parse(inner, word, name) for word in text.split(",") if word)
    if typing.get_origin(hint) is tuple and not isinstance(value, list):
        value = [value]
    problems: list[str] = []
    built = read_value(hint, value, name, newer=False, problems=problems)
    if problems:
        raise ValueError("; ".join(problems))
    return built


def leaves(config: Any, prefix: str = "", defaults: Any = MISSING) -> Iterator[Value]:
    """Every leaf of a config with its default, depth first, in the order of the fields."""
    for field in dataclasses.fields(config):
        name, value, default = f"{prefix}{field.name}", getattr(config, field.name), _default(field, defaults)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from leaves(value, f"{name}.", default if isinstance(default, type(value)) else MISSING)
        else:
            yield Value(name=name, value=value, origin="default" if value == default else "config", default=default)


def _default(field: dataclasses.Field, parent: Any) -> Any:
    if parent is not MISSING:
        return getattr(parent, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else MISSING


def resolve(config: Any, words: Sequence[str]) -> tuple[Any, list[Value]]:
    """Apply the overrides and say of each leaf where it came from."""
    resolved = override(config, words)
    named = {word.partition("=")[0] for word in words}

    def origin(value: Value) -> Value:
        overridden = any(value.name == n or value.name.startswith(f"{n}.") for n in named)
        return dataclasses.replace(value, origin="override") if overridden else value

    return resolved, [origin(value) for value in leaves(resolved)]


def config_hash(config: Any) -> str:
    """Hash of a config's content; equal for equal values whatever file or override they came from."""
    return json_hash(to_json(config))


def as_json(config: Any, values: Sequence[Value]) -> Mapping[str, Json]:
    """What is saved with every run."""
    origins = {v.name: v.origin for v in values if v.origin != "default"}
    return {"recipe": to_json(config), "hash": config_hash(config), "origins": origins}
