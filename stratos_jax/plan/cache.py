"""Answers of the compiler, kept by content so that a repeated plan is instant.

In: what decides a program: the job, the topology, our code and the versions of the compiler. Out: the kept record, or
one made now. Importing this and recalling an answer needs no jax.
"""

import functools
import gzip
import hashlib
import json
import pathlib
import statistics
import zlib
from collections.abc import Callable
from importlib import metadata
from typing import Any, TypeVar

from stratos_jax import store
from stratos_jax.types import from_json, json_hash, to_json

DEFAULT = pathlib.Path.home() / ".cache" / "stratos_jax" / "plans"
PACKAGE = pathlib.Path(__file__).resolve().parent.parent
STEP = ("model", "mesh", "train")  # what becomes part of a train step
READERS = ("plan/buffers.py", "plan/hlo.py", "plan/work.py", "plan/program.py")
PROGRAM = (*STEP, *READERS)  # and what reads it
REMEDIES = (*PROGRAM, "plan/planner.py", "plan/guess.py")
SERVING = ("model", "engine", *READERS, "plan/serving.py")
APART = tuple(
    f"train/{name}.py"
    for name in ("devices", "display", "feed", "flops", "loop", "metrics", "plots", "task_of_run", "trial")
)
T = TypeVar("T")


def recall(kind: type[T], parts: Any, folder: pathlib.Path, make: Callable[[], T], code: tuple[str, ...]) -> T:
    """The record that was kept under `parts`, or made now and kept."""
    path = folder / f"{json_hash([to_json(parts), _versions(), _code(code)])}.json"
    if path.exists():
        try:
            return from_json(kind, json.loads(path.read_text()), where=str(path))
        except ValueError:
            path.unlink()  # written by a version with other fields, or by a full disk
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    store.write_text(path, json.dumps(to_json(made)))
    return made


def recall_text(
    kind: type[T], parts: Any, folder: pathlib.Path, make: Callable[[], tuple[T, str]], code: tuple[str, ...]
) -> tuple[T, str]:
    """A record with a long text beside it, which is kept compressed."""
    key = json_hash([to_json(parts), _versions(), _code(code)])
    path, beside = folder / f"{key}.json", folder / f"{key}.txt.gz"
    if path.exists() and beside.exists():
        try:
            kept = from_json(kind, json.loads(path.read_text()), where=str(path))
            return kept, gzip.decompress(beside.read_bytes()).decode()
        except (ValueError, OSError, EOFError, zlib.error):
            path.unlink()
    made, text = make()
    folder.mkdir(parents=True, exist_ok=True)
    store.write_bytes(beside, gzip.compress(text.encode(), mtime=0))
    store.write_text(path, json.dumps(to_json(made)))
    return made, text


def usual_seconds(folder: pathlib.Path) -> float | None:
    """How long a compilation took here, typically; None before the first."""
    seconds = []
    for path in folder.glob("*.json"):
        try:
            taken = json.loads(path.read_text()).get("compile_seconds")
        except (OSError, ValueError):
            continue
        seconds += [taken] if taken else []
    return statistics.median(seconds) if seconds else None


def code_of_a_step() -> str:
    """What a step's figures depend on besides its settings: our code and the versions of the compiler."""
    return json_hash([_versions(), _code(PROGRAM)])


@functools.cache
def _versions() -> dict[str, str | None]:
    found = {}
    for name in ("jax", "jaxlib", "libtpu", "flax", "optax", "tokamax"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


@functools.cache
def _code(places: tuple[str, ...]) -> str:
    """Hash of rooms and single files."""
    digest = hashlib.sha256()
    files = [PACKAGE / place for place in places if place.endswith(".py")]
    rooms = [PACKAGE / place for place in places if not place.endswith(".py")]
    files += [path for room in rooms for path in room.rglob("*.py")]
    for path in sorted(set(files) - {PACKAGE / name for name in APART}):  # what runs the step is no part of it
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
