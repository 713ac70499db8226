"""Local files: atomic and create-only writes, ranged reads, listings without half-written files."""

import contextlib
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import BinaryIO

from stratos_jax.store.errors import Missing, local_errors
from stratos_jax.store.names import TEMPORARY, Stat, Url
from stratos_jax.types import UserError


@contextlib.contextmanager
def atomic_path(path: Url, *, create_only: bool = False, durable: bool = True) -> Iterator[pathlib.Path]:
    """A temporary path beside `path`, renamed to it when the block ends well and removed when it does not.

    The block makes a file there, or (not with `create_only`) a folder that replaces an empty or absent one.
    Without `durable` a power cut, but no kill, may leave the file empty: for those who sync many files at once.
    """
    target = pathlib.Path(path)
    with local_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.parent / f"{TEMPORARY}{secrets.token_hex(6)}-{target.name[-200:]}"
        try:
            yield temporary
            if durable:
                _flush(temporary)
            if create_only:
                os.link(temporary, target)  # unlike a rename, refuses to replace
            else:
                os.replace(temporary, target)
            if durable:
                _flush(target.parent)
        finally:
            _remove(temporary)


def read_bytes(path: Url, start: int = 0, end: int | None = None) -> bytes:
    """Bytes [start, end) of a file."""
    with open_read(path) as file, local_errors(path):
        file.seek(start)
        return file.read() if end is None else file.read(max(end - start, 0))


def write_bytes(path: Url, data: bytes, *, create_only: bool = False) -> None:
    """Write a whole file at once: readers see the old one or the new one."""
    with atomic_path(path, create_only=create_only) as temporary:
        temporary.write_bytes(data)


def open_read(path: Url) -> BinaryIO:
    """A buffered, seekable reader."""
    with local_errors(path):
        return open(path, "rb")


def stat(path: Url) -> Stat | None:
    """Size and time of a file; None where there is none (a folder is no file)."""
    with local_errors(path):
        try:
            found = os.stat(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
    return None if os.path.isdir(path) else _stat(os.fspath(path), found)


def list_files(path: Url) -> list[Stat]:
    """Every file under a folder, by name, without those still being written; a file lists itself."""
    itself = stat(path)
    if itself:
        return [itself]
    if not os.path.isdir(path):
        raise Missing("no such file or folder", where=path, do="check the path")
    found = []
    with local_errors(path):
        for folder, folders, names in os.walk(path, onerror=_raise):
            folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]
            for name in names:
                whole = os.path.join(folder, name)
                if not name.startswith(TEMPORARY):
                    found.append(_stat(whole, os.stat(whole)))
    return sorted(found, key=lambda file: file.url)


def delete_tree(path: Url) -> None:
    """Remove a folder and all in it, or a file; nothing there is fine."""
    if pathlib.Path(path).resolve() in (pathlib.Path("/"), pathlib.Path.home()):
        raise UserError("will not delete this folder", where=path)
    with local_errors(path):
        _remove(pathlib.Path(path))


def remove_temporary(path: Url) -> None:
    """Remove what killed writers left under a folder; no other process may be writing there."""
    with local_errors(path):
        for folder, folders, names in os.walk(path):
            for name in [*folders, *names]:
                if name.startswith(TEMPORARY):
                    _remove(pathlib.Path(folder, name))


def _stat(path: str, found: os.stat_result) -> Stat:
    return Stat(url=path, bytes=found.st_size, crc32c=None, generation=found.st_mtime_ns)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _flush(path: pathlib.Path) -> None:
    """Put a file, or a folder's list of names, on the disk, so that a power cut cannot reorder write and rename."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _raise(error: OSError) -> None:
    raise error
