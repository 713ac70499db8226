"""Overrides are typed by annotations; everything wrong with them is said at once."""

import dataclasses
from typing import Literal

import pytest

from stratos_jax import config
from stratos_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    rate: float = 1e-5
    kind: Literal["adamw", "sgd"] = "adamw"
    steps: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Outer:
    inner: Inner = Inner()
    sources: tuple[Inner, ...] = ()
    names: tuple[str, ...] = ()
    rows: int = 4
    on: bool = False
    none: Inner | None = None


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("inner.rate=2e-5", "inner.rate", 2e-5),
        ("inner.rate=1", "inner.rate", 1.0),
        ("inner.kind=sgd", "inner.kind", "sgd"),
        ("inner.steps=10", "inner.steps", 10),
        ("inner.steps=1e3", "inner.steps", 1000),
        ("inner.steps=none", "inner.steps", None),
        ("rows=1_000", "rows", 1000),
        ("on=true", "on", True),
        ("names=a,b", "names", ("a", "b")),
        ('names=["a"]', "names", ("a",)),
        ('sources=[{"rate": 3, "kind": "sgd"}]', "sources", (Inner(rate=3.0, kind="sgd"),)),
        ('none={"steps": 7}', "none", Inner(steps=7)),
    ],
)
def test_override(word, path, value):
    changed = config.override(Outer(), [word])
    for part in path.split("."):
        changed = getattr(changed, part)
    assert changed == value and type(changed) is type(value)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("inner.rat=1", "did you mean 'rate'"),
        ("rate=1", "did you mean 'inner.rate'"),
        ("iner.rate=1", "did you mean 'inner'"),
        ("rows=1.5", "wanted a whole number"),
        ("rows=x", "wanted a whole number"),
        ("on=1", "wanted true or false"),
        ("inner.kind=adam", "did you mean 'adamw'"),
        ("rows", "wanted NAME=VALUE"),
        ("rows.deep=1", "rows is 4, which has no fields"),
        ("none.steps=1", "none is None"),
        ('sources=[{"rte": 3}]', "rte: unknown field"),
        ("inner=5", "wanted an object"),
    ],
)
def test_bad_override(word, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        config.override(Outer(), [word])


def test_all_bad_overrides_at_once():
    with pytest.raises(UserError) as error:
        config.override(Outer(), ["rows=x", "inner.kind=x", "nope=1", "on=true"])
    assert str(error.value).count("\n    - ") == 3


def test_origins_and_hash():
    base = Outer(rows=8)
    resolved, values = config.resolve(base, ["inner.rate=3"])
    origin = {v.name: v.origin for v in values}
    assert origin == origin | {"rows": "config", "inner.rate": "override", "inner.kind": "default", "on": "default"}
    assert config.config_hash(resolved) != config.config_hash(base)
    assert config.config_hash(resolved) == config.config_hash(Outer(rows=8, inner=Inner(rate=3.0)))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1", "no function `recipe`"),
        ("def recipe(): return 5", "returns no recipe"),
        ("def recipe(): return nothing", "nothing"),
        ("import nothing_of_this_name", "nothing_of_this_name"),
        ("def recipe(:", "SyntaxError"),
    ],
)
def test_bad_config_file(tmp_path, source, message):
    path = tmp_path / "broken.py"
    path.write_text(source)
    with pytest.raises(UserError, match=message):
        config.load(path)


def test_missing_config_file_suggests_a_near_name(tmp_path):
    (tmp_path / "stratos_7b.py").write_text("")
    with pytest.raises(UserError, match=r"did you mean .*stratos_7b\.py"):
        config.load(tmp_path / "stratos7b.py")
