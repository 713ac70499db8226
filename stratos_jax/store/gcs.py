"""Objects in Google Cloud Storage: the same functions as `local`, every whole read and write checked by crc32c."""

import contextlib
import io
import os
import pathlib
import re
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from typing import BinaryIO, TypeVar

import google_crc32c
from google.api_core import exceptions
from google.auth.exceptions import GoogleAuthError
from google.cloud.storage import Blob, transfer_manager
from google.cloud.storage.exceptions import DataCorruption

from stratos_jax.store import checksum, files
from stratos_jax.store.client import RETRY, blob_of, client, remote_errors
from stratos_jax.store.errors import AlreadyExists, Missing
from stratos_jax.store.names import MANIFEST, SCHEME, Stat, Url, split_remote
from stratos_jax.types import UserError

CHUNK = 32 << 20  # of a resumable upload, and of parallel downloads; a multiple of 256 KiB
PIECES = 8  # of one download in flight
BUFFER = 4 << 20  # read ahead of a reader
TRIES = 4  # of a transfer whose checksum disagrees
WRITER = "stratos-write"  # metadata key with the id of the write that made the object

T = TypeVar("T")


def read_bytes(url: Url, start: int = 0, end: int | None = None) -> bytes:
    """Bytes [start, end) of an object; the whole of it is checked against its crc32c."""
    if end is not None and end <= start:
        return b""
    with remote_errors(url):
        if start == 0 and end is None:
            return _again(url, lambda: _read_whole(blob_of(url)))
        try:
            last = None if end is None else end - 1
            return blob_of(url).download_as_bytes(start=start, end=last, checksum=None, retry=RETRY)  # pyright: ignore[reportArgumentType]
        except exceptions.RequestRangeNotSatisfiable:  # nothing there, as at the end of a local file
            return b""


def write_bytes(url: Url, data: bytes, *, create_only: bool = False) -> None:
    """Write an object; it is seen whole or not at all."""
    write_file(url, io.BytesIO(data), len(data), checksum.crc32c(data), generation=0 if create_only else None)


def write_file(url: Url, file: BinaryIO, size: int, crc32c: str, *, generation: int | None = None) -> Stat:
    """Write an object from a seekable file; the service refuses bytes that do not fit `crc32c`.

    With `generation` only that version is replaced, 0 being none: anything else raises `AlreadyExists`.
    """
    blob = blob_of(url)
    blob.chunk_size = CHUNK
    blob.crc32c = crc32c
    writer = uuid.uuid4().hex
    if generation is not None:
        blob.metadata = {WRITER: writer}
    with remote_errors(url):

        def upload() -> None:
            file.seek(0)
            try:
                blob.upload_from_file(
                    file, size=size, checksum=None, retry=RETRY, if_generation_match=generation,  # pyright: ignore[reportArgumentType]
                    content_type="application/octet-stream",
                )  # fmt: skip
            except GoogleAuthError:  # some of them are ValueErrors
                raise
            except ValueError as error:  # the library gives up where the service kept only a part of a chunk
                raise _Damaged(str(error)) from error

        try:
            _again(url, upload)
        except exceptions.PreconditionFailed as error:
            # A reply can get lost after the write took place; its repetition then meets our own object.
            with contextlib.suppress(exceptions.NotFound):
                blob.reload(retry=RETRY)
            if (blob.metadata or {}).get(WRITER) != writer or blob.generation is None:
                raise AlreadyExists("the file is already there", where=url) from error
    if blob.crc32c != crc32c or blob.size != size:
        raise UserError("the bucket holds other bytes than were sent", where=url, got=blob.crc32c, wanted=crc32c)
    return _stat(blob, split_remote(url)[0])


def write_lines(url: Url, lines: Iterable[bytes]) -> int:
    """Write an object of lines, collected on the local disk first; returns how many."""
    with tempfile.TemporaryFile() as file:
        count, size, value = 0, 0, 0
        with remote_errors(url):
            for line in lines:
                file.write(line)
                count, size, value = count + 1, size + len(line), google_crc32c.extend(value, line)
        write_file(url, file, size, checksum.crc32c_text(value))
    return count


def open_read(url: Url) -> BinaryIO:
    """A buffered, seekable reader of the version that is there now."""
    found = stat(url)
    if found is None:
        raise Missing("no such file", where=url, do="check the path: gcloud storage ls")
    return io.BufferedReader(_Reader(found), BUFFER)  # pyright: ignore[reportReturnType]


def stat(url: Url) -> Stat | None:
    """Size, crc32c and generation of an object; None where there is none."""
    bucket, name = split_remote(url)
    if not name:
        return None
    with remote_errors(url):
        try:
            blob = blob_of(url)
            blob.reload(retry=RETRY)
        except exceptions.NotFound as error:
            if "bucket does not exist" in str(error):
                raise
            return None
    return _stat(blob, bucket)


def list_files(url: Url) -> list[Stat]:
    """Every object under a prefix that ends where a folder would, by name; an object lists itself."""
    bucket, name = split_remote(url)
    prefix = f"{name.rstrip('/')}/" if name else ""
    wanted = "items(name,size,crc32c,generation),nextPageToken"
    with remote_errors(url):
        blobs = list(client().list_blobs(bucket, prefix=prefix, fields=wanted, retry=RETRY))
    found = [_stat(blob, bucket) for blob in blobs if not blob.name.endswith("/")]  # consoles make empty `folder/`
    if found or not name:
        return found
    itself = stat(url)
    if itself is None:
        raise Missing("no such file or folder", where=url, do="check the path: gcloud storage ls")
    return [itself]


def delete_tree(url: Url) -> None:
    """Remove every object under a prefix, the manifest first, so that what is left never looks complete."""
    if not split_remote(url)[1].strip("/"):
        raise UserError("will not delete a whole bucket", where=url)
    try:
        found = list_files(url)
    except Missing:
        return
    found.sort(key=lambda file: file.url != f"{os.fspath(url).rstrip('/')}/{MANIFEST}")
    delete(found[0].url)
    for _ in files.in_parallel(lambda file: delete(file.url), found[1:]):
        pass


def delete(url: Url) -> None:
    """Remove one object; nothing there is fine, since a repeated request finds its own work done."""
    with remote_errors(url):
        try:
            blob_of(url).delete(retry=RETRY)
        except exceptions.NotFound as error:
            if "bucket does not exist" in str(error):
                raise


def download_pieces(url: Url, path: pathlib.Path) -> str:
    """One large object into a local file, its pieces in parallel; returns its crc32c, which has been checked."""

    def download() -> str:
        blob = blob_of(url)
        blob.reload(retry=RETRY)
        transfer_manager.download_chunks_concurrently(
            blob, os.fspath(path), chunk_size=CHUNK, worker_type=transfer_manager.THREAD,
            max_workers=PIECES, crc32c_checksum=False, download_kwargs={"retry": RETRY},
        )  # fmt: skip
        with open(path, "rb") as file:
            got = checksum.file_crc32c(file)
        if got != blob.crc32c:
            raise _Damaged(f"got {got}, wanted {blob.crc32c}")
        return got

    with remote_errors(url):
        return _again(url, download)


class _Reader(io.RawIOBase):
    """Ranged reads of one version of an object; read from start to end, its crc32c is checked at the end."""

    def __init__(self, found: Stat):
        self._found, self._position = found, 0
        self._blob = blob_of(found.url, found.generation)
        self._value, self._checked = 0, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.bytes}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer) -> int:
        data = self._range(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._range(self._found.bytes - self._position)

    def _range(self, length: int) -> bytes:
        end = min(self._position + length, self._found.bytes)
        if end <= self._position:
            return b""
        with remote_errors(self._found.url):
            if self._position == 0 and end == self._found.bytes:
                data = _again(self._found.url, lambda: _read_whole(self._blob))
            else:
                data = self._blob.download_as_bytes(start=self._position, end=end - 1, checksum=None, retry=RETRY)  # pyright: ignore[reportArgumentType]
        if self._position == self._checked:
            self._check(data, end)
        self._position += len(data)
        return data

    def _check(self, data: bytes, end: int) -> None:
        self._value, self._checked = google_crc32c.extend(self._value, data), end
        got = checksum.crc32c_text(self._value)
        if end == self._found.bytes and got != self._found.crc32c:
            what = "bytes were damaged on the way, or in the bucket"
            raise UserError(what, where=self._found.url, got=got, wanted=self._found.crc32c)


def _read_whole(blob: Blob) -> bytes:
    # The library leaves a download that it had to resume unchecked: the check is ours.
    data = blob.download_as_bytes(checksum=None, retry=RETRY)  # pyright: ignore[reportArgumentType]
    if checksum.crc32c(data) != blob.crc32c:
        raise _Damaged(f"got {checksum.crc32c(data)}, wanted {blob.crc32c}")
    return data


class _Damaged(Exception):
    """Bytes do not fit their checksum."""


def _again(url: Url, transfer: Callable[[], T]) -> T:
    """Try a transfer again where its bytes were damaged on the way."""
    for left in reversed(range(TRIES)):
        try:
            return transfer()
        except (_Damaged, DataCorruption, exceptions.BadRequest) as error:
            if isinstance(error, exceptions.BadRequest) and not re.search("Provided (CRC32C|MD5)", str(error)):
                raise
            if not left:
                got, do = str(error)[:200], "check memory and network"
                raise UserError("the bytes arrive damaged", where=url, got=got, do=do) from error
        time.sleep(0.1 * 4 ** (TRIES - 1 - left))
    raise AssertionError


def _stat(blob: Blob, bucket: str) -> Stat:
    url = f"{SCHEME}{bucket}/{blob.name}"
    return Stat(url=url, bytes=int(blob.size or 0), crc32c=blob.crc32c, generation=int(blob.generation or 0))
