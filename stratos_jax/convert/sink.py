"""Where a conversion is written: all of it or nothing that could be taken for it.

In: files, in the order in which they are to appear. Out: the target folder. A local target is built beside its place
and renamed when complete. A bucket has no rename: files go up one by one, last the one without which nothing loads.
"""

import contextlib
import glob
import hashlib
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator

from stratos_jax import store
from stratos_jax.store import Url
from stratos_jax.store.errors import local_errors
from stratos_jax.store.names import TEMPORARY
from stratos_jax.types import UserError


class Sink:
    """A folder under construction; `url` reads what stands in it already."""

    def __init__(self, folder: pathlib.Path, target: str, last: str):
        self.folder, self.target, self.last, self.remote = folder, target, last, store.is_remote(target)
        self.url = target if self.remote else str(folder)
        self.sums: dict[str, str] = {}  # sha256 of each file that is complete

    def path(self, name: str) -> pathlib.Path:
        """Where to write a file."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write_text(self, name: str, text: str) -> None:
        """Write a small file."""
        with local_errors(self.path(name)):
            self.path(name).write_text(text)
        self.done(name)

    def done(self, name: str, sha256: str | None = None) -> None:
        """This file is complete: put it where it belongs."""
        self.sums[name] = sha256 or hashlib.sha256((self.folder / name).read_bytes()).hexdigest()
        if self.remote and name != self.last:
            _upload(self.folder / name, store.join(self.target, name))

    def finish(self) -> None:
        """Put up what makes the folder whole."""
        if self.remote:
            _upload(self.folder / self.last, store.join(self.target, self.last))


@contextlib.contextmanager
def open_sink(target: Url, *, last: str) -> Iterator[Sink]:
    """A new folder at `target`, whole when the block ends well; a whole folder that is there already is refused."""
    target = str(target)
    if store.is_remote(target):
        _refuse_remote(target, last)
        with tempfile.TemporaryDirectory(prefix="stratos-convert-") as scratch:
            sink = Sink(pathlib.Path(scratch), target, last)
            yield sink
            sink.finish()
        return
    path = pathlib.Path(target)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError("the target is there already", where=target, do="remove it, or name another folder")
    for left in path.parent.glob(f"{TEMPORARY}*-{glob.escape(path.name)}"):  # by a conversion that was killed
        shutil.rmtree(left)
    with store.atomic_path(path) as building:
        building.mkdir()
        yield Sink(building, target, last)


def copy_files(source: str, names: list[str], sink: Sink, folder: str = "") -> None:
    """Carry files over as they are, into a folder of the target."""
    for name in names:
        path = sink.path(folder + name)
        with local_errors(path):
            path.write_bytes(store.read_bytes(store.join(source, name)))
        sink.done(folder + name)


def free_bytes(target: Url) -> int | None:
    """Room on the disk where a local target is to be; None for a bucket."""
    return None if store.is_remote(target) else shutil.disk_usage(_nearest(target)).free


def _nearest(target: Url) -> pathlib.Path:
    """The target, or the nearest folder above it that is there."""
    path = pathlib.Path(os.path.abspath(target))
    while not path.exists():
        path = path.parent
    return path


def check_room(target: Url, wanted: int) -> None:
    """Refuse before hours of work what the disk cannot hold, and a place that nobody can write to."""
    if not store.is_remote(target):
        nearest = _nearest(target)
        if not nearest.is_dir():
            raise UserError("a part of the path is a file, not a folder", where=target, got=nearest)
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise UserError("no permission", where=nearest, do="change the folder's owner or mode, or choose another")
    free = free_bytes(target)
    if free is not None and free < wanted:
        gib = lambda size: f"{size / 2**30:.2f} GiB"
        raise UserError(
            "no space left on the disk", where=target, got=f"{gib(free)} free", wanted=gib(wanted), do="free some space"
        )


def _upload(path: pathlib.Path, url: str) -> None:
    store.upload_file(path, url)
    path.unlink()


def _refuse_remote(target: str, last: str) -> None:
    try:
        there = store.list_files(target)
    except store.Missing:
        return
    if any(file.url == store.join(target, last) for file in there):
        raise UserError("the target is there already", where=target, do="remove it, or name another folder")
    if there:
        store.delete_tree(target)  # an interrupted conversion: it never got its last file
