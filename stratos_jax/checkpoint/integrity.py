"""What a step's `integrity.json` says: every leaf with its digest, every file with its size and checksum.

In: digests taken on the devices and a listing taken after the save. Out: a JSON file that carries its own hash and is
written last, so that its presence means that the save ended well.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from stratos_jax import store
from stratos_jax.checkpoint.folders import INTEGRITY, step_url
from stratos_jax.store import Stat, Url
from stratos_jax.store.checksum import file_crc32c
from stratos_jax.types import Json, UserError, from_json, json_hash, to_json

SMALL = 1 << 20  # bytes; files up to this size are read whenever a step is looked at


class Damaged(UserError):
    """A step that is not what was saved."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Leaf:
    """One array of the tree."""

    path: str  # its keys, joined by slashes
    shape: tuple[int, ...]
    dtype: str
    digest: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """One file of the step."""

    path: str
    bytes: int
    crc32c: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Integrity:
    """A whole step."""

    step: int
    leaves: tuple[Leaf, ...]
    files: tuple[StoredFile, ...]
    metadata: Mapping[str, Json]
    seconds: float  # from the call until all files stood

    def leaf(self, path: str) -> Leaf:
        """The leaf with this path."""
        return next(leaf for leaf in self.leaves if leaf.path == path)


def write_integrity(directory: Url, integrity: Integrity) -> None:
    """The last write of a save."""
    record = to_json(integrity)
    text = json.dumps({**record, "sha256": json_hash(record)}, indent=1) + "\n"
    store.write_text(store.join(step_url(directory, integrity.step), INTEGRITY), text)


def read_integrity(directory: Url, step: int) -> Integrity:
    """Read a step's record; `Damaged` where it is missing or is not what was written."""
    url = store.join(step_url(directory, step), INTEGRITY)
    try:
        data = store.read_bytes(url)
    except store.Missing:
        raise Damaged("the step has no integrity.json: its save was cut short", where=url) from None
    try:
        record = json.loads(data)
        stated = record.pop("sha256")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise Damaged("integrity.json is not what was written", where=url, got=repr(error)) from error
    if json_hash(record) != stated:
        raise Damaged("integrity.json is not what was written", where=url, got=json_hash(record), wanted=stated)
    return from_json(Integrity, record, where=url)


def list_files(directory: Url, step: int) -> tuple[StoredFile, ...]:
    """Every file of a step with its checksum: from one listing where the store keeps checksums, else by reading."""
    root = step_url(directory, step)
    return tuple(
        StoredFile(path=name, bytes=found.bytes, crc32c=found.crc32c or _crc32c(found.url))
        for name, found in _listing(root).items()
    )


def file_problems(directory: Url, integrity: Integrity, *, deep: bool = False) -> list[str]:
    """What differs between a step's files and its record; without `deep`, big local files are not read."""
    listing, problems = _listing(step_url(directory, integrity.step)), []
    for wanted in integrity.files:
        found = listing.get(wanted.path)
        if found is None:
            problems.append(f"{wanted.path}: missing")
        elif found.bytes != wanted.bytes:
            problems.append(f"{wanted.path}: has {found.bytes} bytes, wanted {wanted.bytes}")
        elif deep or found.crc32c or found.bytes <= SMALL:
            crc32c = _crc32c(found.url) if deep or not found.crc32c else found.crc32c
            if crc32c != wanted.crc32c:
                problems.append(f"{wanted.path}: has crc32c {crc32c}, wanted {wanted.crc32c}")
    return problems


def _listing(root: str) -> dict[str, Stat]:
    names = ((file.url[len(root.rstrip("/")) + 1 :], file) for file in store.list_files(root))
    return {name: file for name, file in names if name != INTEGRITY}


def _crc32c(url: str) -> str:
    with store.open_read(url) as file:
        return file_crc32c(file)


def paths_of(tree: Any) -> list[str]:
    """The path of every leaf, in the order of `jax.tree.leaves`."""
    import jax

    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [jax.tree_util.keystr(keys, simple=True, separator="/") for keys, _ in flat]
