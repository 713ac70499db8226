"""ArrayRecord files: records written at once, read back by index; files in a bucket are read through a local copy."""

import contextlib
import errno
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from stratos_jax.store import local
from stratos_jax.store.errors import Missing
from stratos_jax.store.names import Url, is_remote
from stratos_jax.types import UserError

OPTIONS = "group_size:1"  # each record can be read alone


def write_arrayrecord(path: Url, records: Iterable[bytes]) -> int:
    """Write a local file at once; returns how many records."""
    if is_remote(path):
        raise UserError("ArrayRecord files are written locally", where=path, do="write locally, then upload the folder")
    from array_record.python.array_record_module import ArrayRecordWriter

    count = 0
    with local.atomic_path(path) as temporary:
        writer = ArrayRecordWriter(os.fspath(temporary), OPTIONS)
        for record in records:
            with _writer_errors(path):
                writer.write(record)
            count += 1
        with _writer_errors(path):
            writer.close()
    return count


@contextlib.contextmanager
def _writer_errors(path: Url) -> Iterator[None]:
    """The writer tells everything, a full disk too, by a `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        full = os.strerror(errno.ENOSPC) in str(error)
        what = "no space left on the disk" if full else "the ArrayRecord file cannot be written"
        raise UserError(
            what, where=path, got=str(error).split(";")[0], do="free some space, or look at the disk"
        ) from error


class ArrayRecordFile(Sequence[bytes]):
    """The records of a local file, by index; every read is checked against the file's own hashes."""

    def __init__(self, path: Url):
        if is_remote(path):  # the reader's own gs:// client waits for ever where it finds no credentials
            raise UserError("ArrayRecord files are read locally", where=path, do="download the folder first")
        if not pathlib.Path(path).is_file():
            raise Missing("no such file", where=path, do="check the path")
        from array_record.python.array_record_module import ArrayRecordReader

        self._reader, self._path = ArrayRecordReader(os.fspath(path)), path
        self._length = self._reader.num_records()
        if not self._reader.ok():  # opening a damaged file raises nothing: it seems to have no records
            raise UserError("not an ArrayRecord file, or a damaged one", where=path, do="write or download it again")

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):  # pyright: ignore[reportIncompatibleMethodOverride]  (int only)
        if not -self._length <= index < self._length:
            raise IndexError(f"record {index} of {self._length}")
        return self.read([index % self._length])[0]

    def __iter__(self) -> Iterator[bytes]:
        return (self[index] for index in range(self._length))

    def read(self, indices: Sequence[int]) -> list[bytes]:
        """The records at `indices`, read in parallel."""
        try:
            return self._reader.read(list(indices))
        except (ValueError, RuntimeError, IndexError) as error:
            raise UserError("a record cannot be read", where=self._path, got=str(error)) from error
