"""Records, one JSON object a line: read with good errors, written at once, or appended so that a kill loses nothing."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stratos_jax.store import files, local
from stratos_jax.store.errors import local_errors
from stratos_jax.store.names import Url, is_remote
from stratos_jax.types import Json, UserError, to_json


def read_jsonl(url: Url) -> Iterator[tuple[int, dict[str, Json]]]:
    """Yield (line number from 1, object); blank lines are passed over, a bad line is a `UserError`."""
    with files.open_read(url) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _parse(line, where=f"{url}:{number}")


def write_jsonl(url: Url, records: Iterable[Any]) -> int:
    """Write records (mappings or dataclasses) as one file, at once; returns how many."""
    if is_remote(url):
        from stratos_jax.store import gcs

        return gcs.write_lines(url, map(encode_line, records))
    count = 0
    with local.atomic_path(url) as temporary, open(temporary, "wb") as file:
        for record in records:
            file.write(encode_line(record))
            count += 1
    return count


def encode_line(record: Any) -> bytes:
    """One record as a line of JSON with its newline."""
    plain = to_json(record) if dataclasses.is_dataclass(record) else record
    if not isinstance(plain, Mapping):
        raise UserError("a JSONL record must be an object", got=type(record).__name__)
    try:
        return json.dumps(plain, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a surrogate pair, as models do write; as an escape it survives
        return json.dumps(plain).encode() + b"\n"


class JsonlAppender:
    """Appends records to a local file; after a kill at any moment the file holds whole lines only, once opened again.

    One process at a time holds the file; its threads may share the appender.
    """

    def __init__(self, path: Url):
        if is_remote(path):
            raise UserError("objects in a bucket cannot be appended to", where=path, do="append locally, then upload")
        self._path = pathlib.Path(path)
        self._lock = threading.Lock()
        with local_errors(path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _repair(self._file, str(path))
        except BlockingIOError as error:
            self._file.close()
            raise UserError("another process is appending to this file", where=path, do="wait for it to end") from error
        except BaseException:
            self._file.close()
            raise

    def append(self, record: Any) -> None:
        """Write one record; it is with the operating system, safe from kill -9, when this returns."""
        line = encode_line(record)
        with self._lock, local_errors(self._path):
            start = os.fstat(self._file.fileno()).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file.fileno(), line[written:])
            except OSError:
                with contextlib.suppress(OSError):  # what is torn is cut off when the file is opened again
                    os.ftruncate(self._file.fileno(), start)
                raise

    def close(self) -> None:
        """Put all on the disk and let go of the file."""
        if not self._file.closed:
            with local_errors(self._path):
                os.fsync(self._file.fileno())
            self._file.close()

    def __enter__(self) -> "JsonlAppender":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _parse(line: bytes, *, where: str) -> dict[str, Json]:
    try:
        record = json.loads(line)
    except ValueError as error:  # bad JSON or bad UTF-8
        got = repr(line[:80])[2:-1]
        raise UserError("not a line of JSON", where=where, got=f"{got} ({error})", wanted="one JSON object") from error
    if not isinstance(record, dict):
        raise UserError("not a JSON object", where=where, got=type(record).__name__, wanted="one object a line")
    return record


def _repair(file: io.FileIO, path: str) -> None:
    """Cut off a last line that a kill tore; one that only lacks its newline is kept."""
    end = file.seek(0, os.SEEK_END)
    start = end
    tail = b""
    while start and b"\n" not in tail:
        step = min(start, 1 << 16)
        start -= step
        tail = os.pread(file.fileno(), step, start) + tail
    torn = tail[tail.rfind(b"\n") + 1 :]
    if not torn:
        return
    try:
        _parse(torn, where=path)
        os.write(file.fileno(), b"\n")
    except UserError:
        os.ftruncate(file.fileno(), end - len(torn))
