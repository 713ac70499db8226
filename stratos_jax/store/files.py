"""The facade: each function takes a local path or a gs:// URL and calls the side that knows it."""

import concurrent.futures
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import BinaryIO, TypeVar

from stratos_jax.store import local
from stratos_jax.store.names import Stat, Url, is_remote, join
from stratos_jax.types import UserError

__all__ = ["is_remote", "join"]

WORKERS = 16  # files in flight

T = TypeVar("T")
R = TypeVar("R")


def read_bytes(url: Url, start: int = 0, end: int | None = None) -> bytes:
    """Bytes [start, end) of a file; a whole file is checked against its crc32c where the store keeps one."""
    return _side(url).read_bytes(url, start, end)


def write_bytes(url: Url, data: bytes, *, create_only: bool = False) -> None:
    """Write a whole file at once; with `create_only` raise `AlreadyExists` where there is one."""
    _side(url).write_bytes(url, data, create_only=create_only)


def read_text(url: Url) -> str:
    """A file as UTF-8 text."""
    data = read_bytes(url)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise UserError("not UTF-8 text", where=url, got=str(error)) from error


def write_text(url: Url, text: str, *, create_only: bool = False) -> None:
    """Write UTF-8 text at once."""
    write_bytes(url, text.encode(), create_only=create_only)


def exists(url: Url) -> bool:
    """Whether there is such a file."""
    return stat(url) is not None


def stat(url: Url) -> Stat | None:
    """Size, checksum and generation of a file; None where there is none."""
    return _side(url).stat(url)


def list_files(url: Url) -> list[Stat]:
    """Every file under a folder, by name."""
    return _side(url).list_files(url)


def open_read(url: Url) -> BinaryIO:
    """A binary, buffered, seekable reader."""
    return _side(url).open_read(url)


def delete_tree(url: Url) -> None:
    """Remove everything under a folder, its manifest first."""
    _side(url).delete_tree(url)


def in_parallel(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Results as they come, from `WORKERS` threads; the first error stops what has not begun."""
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
    try:
        for future in concurrent.futures.as_completed([pool.submit(work, item) for item in items]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _side(url: Url) -> ModuleType:
    if is_remote(url):
        from stratos_jax.store import gcs  # the client library takes 0.5 s to import

        return gcs
    return local
