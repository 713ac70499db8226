"""Facts of compilations, kept by content so that a repeated plan is instant.

In: what decides a program: the job, the topology, our code and the versions of the compiler. Out: `Facts`.
"""

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable
from importlib import metadata

from stratos_jax import store
from stratos_jax.plan.program import Facts, Job
from stratos_jax.plan.target import Topology
from stratos_jax.types import UserError, from_json, json_hash, to_json

DEFAULT = pathlib.Path.home() / ".cache" / "stratos_jax" / "plans"
PACKAGE = pathlib.Path(__file__).resolve().parent.parent
ROOMS = ("model", "mesh", "train", "plan")


def facts(job: Job, topology: Topology, remat: str, folder: pathlib.Path, make: Callable[[], Facts]) -> Facts:
    """Facts from the cache, or made now and kept."""
    path = folder / f"{key(job, topology, remat)}.json"
    if path.exists():
        try:
            return from_json(Facts, json.loads(path.read_text()), where=str(path))
        except (UserError, json.JSONDecodeError):
            path.unlink()  # written by a version with other fields, or by a full disk
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    store.write_text(path, json.dumps(to_json(made)))
    return made


def key(job: Job, topology: Topology, remat: str) -> str:
    """Hash of everything that decides the compiled program."""
    return json_hash([to_json(job), dataclasses.asdict(topology), remat, _versions(), _code()])


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
def _code() -> str:
    """Hash of the rooms whose code becomes part of the program."""
    digest = hashlib.sha256()
    for path in sorted(p for room in ROOMS for p in (PACKAGE / room).rglob("*") if p.suffix in (".py", ".json")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()
