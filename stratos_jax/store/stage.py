"""Runs a stage once: done and the same, skipped; done otherwise, refused; half done, started again or gone on with."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from stratos_jax.store import checksum, files, local, manifest
from stratos_jax.store.errors import local_errors
from stratos_jax.store.names import Url, is_remote
from stratos_jax.types import Json, Manifest, UserError, json_hash, raise_all

Body = Callable[[pathlib.Path], Mapping[str, Json] | None]
Input = Manifest | Url  # a manifest, a folder that has one, a file, or a sha256 in hex


def run_stage(
    name: str, config: Any, directory: Url, inputs: Mapping[str, Input], body: Body, *, resume: bool = False
) -> Manifest:
    """Run `body(directory) -> counts` unless its manifest is there already, and write the manifest last.

    What a killed run left is removed first, or kept for `body` to go on with where it says `resume`; with
    `resume`, work that another config or other inputs began is refused instead.
    """
    if is_remote(directory):
        raise UserError("a stage works on a local folder", where=directory, do="run it locally, then upload the folder")
    folder = pathlib.Path(directory)
    task = {
        "stage": name,
        "config": manifest.plain_config(config),
        "inputs": {key: input_hash(value) for key, value in inputs.items()},
    }
    with local_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        done = manifest.read_manifest(folder)
        if done is not None:
            return _same(done, task, folder)
        _prepare(folder, task, resume=resume)
        counts = body(folder)
        made = manifest.make_manifest(
            folder, stage=name, config=task["config"], inputs=task["inputs"], counts=counts or {}
        )
        manifest.write_manifest(folder, made)
        (folder / manifest.MARKER).unlink()
    return made


def input_hash(value: Input) -> str:
    """Content hash of a manifest, of a folder by its manifest, or of a file; a hash stands for itself."""
    if isinstance(value, Manifest):
        return value.content_hash()
    if re.fullmatch(r"[0-9a-f]{64}", os.fspath(value)):
        return os.fspath(value)
    found = manifest.read_manifest(value) if not files.exists(value) else None
    if found is not None:
        return found.content_hash()
    if not is_remote(value) and os.path.isdir(value):
        raise UserError("an input folder has no manifest", where=value, do="let the stage that writes it finish first")
    with files.open_read(value) as file:
        return checksum.file_hashes(file)[1]


def _same(done: Manifest, task: Mapping[str, Any], folder: pathlib.Path) -> Manifest:
    """The manifest that is there, where it is of this task and its files are there too."""
    there = {"stage": done.stage, "config": done.config, "inputs": done.inputs}
    raise_all(
        _differences(there, task),
        what="the folder holds the output of another run of this stage",
        where=folder,
        do="choose another folder, or delete this one to run the stage again",
    )
    raise_all(
        manifest.verify(folder),
        what="the stage is complete, but its files have changed since",
        where=folder,
        do="bring the files back, or delete the folder to run the stage again",
    )
    return done


def _prepare(folder: pathlib.Path, task: Mapping[str, Any], *, resume: bool) -> None:
    """Mark the folder as at work, with nothing in it that this task may not go on with."""
    marker = folder / manifest.MARKER
    begun = _read_marker(marker)
    strangers = [entry.name for entry in folder.iterdir() if entry.name != manifest.MARKER]
    if begun is None and strangers:
        raise UserError(
            "the folder has files that no stage began",
            where=folder,
            got=", ".join(sorted(strangers)[:5]),
            wanted="an empty folder",
            do="choose another folder, or move these files away",
        )
    if begun is not None and resume:
        raise_all(
            _differences(begun, task),
            what="the folder holds the half-done work of another run of this stage",
            where=folder,
            do="choose another folder, or delete this one to begin anew",
        )
        local.remove_temporary(folder)
    elif begun is not None:
        for name in strangers:
            local.delete_tree(folder / name)
    local.write_bytes(marker, json.dumps(task, indent=1).encode())


def _read_marker(marker: pathlib.Path) -> dict[str, Any] | None:
    return json.loads(local.read_bytes(marker)) if marker.exists() else None


def _differences(there: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """One line for each value that differs, both sides shown."""
    left, right = _flatten(there), _flatten(json.loads(json.dumps(wanted)))
    return [
        f"{name}: there {left.get(name, 'nothing')!r}, now {right.get(name, 'nothing')!r}"
        for name in sorted(left.keys() | right.keys())
        if json_hash(left.get(name)) != json_hash(right.get(name))
    ]


def _flatten(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping) or not value:
        return {path: value}
    return {k: v for name, inner in value.items() for k, v in _flatten(inner, f"{path}.{name}".lstrip(".")).items()}


@contextlib.contextmanager
def _alone(folder: pathlib.Path) -> Iterator[None]:
    """Hold the folder for one process; the lock goes with the process, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError("another process runs a stage in this folder", where=folder, do="wait for it to end") from error
    finally:
        os.close(handle)
