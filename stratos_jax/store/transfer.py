"""Whole folders to and from a bucket: only what is missing, in parallel, checked on arrival, the manifest last.

A transfer that is killed leaves a folder without a manifest, so that nobody takes it for complete; run again, it
sends what had not arrived.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

from stratos_jax.store import checksum, files, local, manifest
from stratos_jax.store.errors import AlreadyExists, Missing
from stratos_jax.store.names import MANIFEST, Stat, Url, is_remote, join, relative_name
from stratos_jax.store.progress import Progress
from stratos_jax.types import File, Manifest, UserError, raise_all

BIG = 32 << 20  # files from here on are downloaded one at a time, in parallel pieces; smaller ones pass through memory


def upload_tree(local_dir: Url, url: Url, *, replace: bool = False) -> Manifest:
    """Copy a folder, with its manifest or one made here; other files there are refused, or with `replace` removed."""
    if is_remote(local_dir):
        raise UserError("only local folders are uploaded", where=local_dir)
    found = manifest.read_manifest(local_dir)
    if found is None:
        found = manifest.make_manifest(local_dir, stage="upload")
    else:
        raise_all(manifest.verify(local_dir), what="the folder is not what its manifest says", where=local_dir)
    _copy_tree(found, url, lambda file: _put(join(local_dir, file.path), join(url, file.path), file), replace=replace)
    return found


def upload_file(path: Url, url: Url) -> None:
    """Copy one local file to a bucket, whole or not at all."""
    from stratos_jax.store import gcs

    with local.open_read(path) as source:
        size, value = os.fstat(source.fileno()).st_size, checksum.file_crc32c(source)
        gcs.write_file(url, source, size, value)


def download_tree(url: Url, local_dir: Url, *, replace: bool = False, complete_only: bool = True) -> Manifest | None:
    """Copy a folder to the local disk; without `complete_only`, one that has no manifest is copied as it stands."""
    if is_remote(local_dir):
        raise UserError("folders are downloaded to the local disk", where=local_dir)
    found = manifest.read_manifest(url)
    if found is None and complete_only:
        do = "wait for the upload to finish, or run it again"
        raise UserError(f"the folder is not complete: it has no {MANIFEST}", where=url, do=do)
    listed = None if found else Manifest(
        stage="listing", config_hash="", code_version="", inputs={}, files=_as_listed(url)
    )  # fmt: skip
    wanted = found or listed
    assert wanted is not None
    big = [file for file in wanted.files if file.bytes >= BIG] if is_remote(url) else []

    def get(file: File) -> None:
        _get(join(url, file.path), _inside(local_dir, file.path), file, in_pieces=file in big)

    _copy_tree(wanted, local_dir, get, replace=replace, alone=big, mark=found is not None)
    return found


def _copy_tree(
    wanted: Manifest,
    target: Url,
    copy: Callable[[File], None],
    *,
    replace: bool,
    alone: Sequence[File] = (),
    mark: bool = True,
) -> None:
    """Bring `target` to what `wanted` lists, and then, with `mark`, write the manifest there."""
    there = _listed(target)
    todo = [file for file in wanted.files if not _same(file, there.get(file.path))]
    done = manifest.read_manifest(target)
    strangers = sorted(there.keys() - {file.path for file in wanted.files})
    in_the_way = sorted({file.path for file in todo} & there.keys()) + strangers
    if done is not None and done.content_hash() == wanted.content_hash() and not todo and not strangers:
        return
    if in_the_way and not replace:
        raise UserError(
            "the place holds other files",
            where=target,
            got=f"{', '.join(in_the_way[:5])}{' ...' if len(in_the_way) > 5 else ''} ({len(in_the_way)})",
            do="choose another place, delete this one, or ask for it to be replaced",
        )
    if done is not None:
        files.delete_tree(join(target, MANIFEST))  # from here on the place must not look complete
    for name in in_the_way:
        files.delete_tree(there[name].url)
    rest = [file for file in sorted(todo, key=lambda file: -file.bytes) if file not in alone]
    with Progress(f"to {target}", sum(file.bytes for file in todo)) as progress:
        for size in files.in_parallel(lambda file: (copy(file), file.bytes)[1], rest):
            progress.add(size)
        for file in (file for file in todo if file in alone):
            copy(file)
            progress.add(file.bytes)
    if is_remote(target):
        raise_all(_missing(wanted, target), what="the upload did not arrive whole", where=target, do="run it again")
    else:
        os.sync()  # once, for all files: what the manifest names must survive a power cut
    if mark:
        _mark(wanted, target)


def _mark(wanted: Manifest, target: Url) -> None:
    """Write the manifest, unless somebody else has just completed another folder in the same place."""
    try:
        manifest.write_manifest(target, wanted, create_only=True)
    except AlreadyExists:
        there = manifest.read_manifest(target)
        if there is None or there.content_hash() != wanted.content_hash():
            raise UserError("another folder was put here at the same time", where=target) from None


def _missing(wanted: Manifest, target: Url) -> list[str]:
    there = _listed(target)
    return [f"{file.path}: not there as sent" for file in wanted.files if not _same(file, there.get(file.path))]


def _put(path: str, url: str, file: File) -> None:
    if not is_remote(url):
        _get(path, pathlib.Path(url), file, in_pieces=False)
        return
    from stratos_jax.store import gcs

    try:
        with local.open_read(path) as source:
            gcs.write_file(url, source, file.bytes, file.crc32c, generation=0)
    except AlreadyExists:  # another uploader's; welcome where it is the same file
        if not _same(file, files.stat(url)):
            raise


def _get(url: str, path: pathlib.Path, file: File, *, in_pieces: bool) -> None:
    """One file to the local disk, seen there only when its checksum is right."""
    with local.atomic_path(path, durable=False) as temporary:
        if in_pieces:
            from stratos_jax.store import gcs

            got = gcs.download_pieces(url, temporary)
        elif is_remote(url):
            data = files.read_bytes(url)
            temporary.write_bytes(data)
            got = checksum.crc32c(data)
        else:
            shutil.copyfile(url, temporary)
            with local.open_read(temporary) as copied:
                got = checksum.file_crc32c(copied)
        if got != file.crc32c:
            what = "the file is not what its manifest says"
            raise UserError(what, where=url, got=got, wanted=file.crc32c, do="write the folder anew")


def _listed(target: Url) -> Mapping[str, Stat]:
    """Files at a place by name, without its manifest; a place that is not there has none."""
    try:
        found = files.list_files(target)
    except Missing:
        return {}
    named = {relative_name(file.url, target): file for file in found if file.url != os.fspath(target)}
    return {name: file for name, file in named.items() if name != MANIFEST}


def _same(wanted: File, found: Stat | None) -> bool:
    if found is None or found.bytes != wanted.bytes:
        return False
    if found.crc32c is not None:
        return found.crc32c == wanted.crc32c
    with files.open_read(found.url) as file:
        return checksum.file_crc32c(file) == wanted.crc32c


def _as_listed(url: Url) -> tuple[File, ...]:
    files_there = _listed(url).items()
    return tuple(File(path=n, bytes=s.bytes, sha256="", crc32c=s.crc32c or _read_crc32c(s)) for n, s in files_there)


def _read_crc32c(found: Stat) -> str:
    with files.open_read(found.url) as file:
        return checksum.file_crc32c(file)


def _inside(folder: Url, name: str) -> pathlib.Path:
    """The path of a name from a bucket, which must not lead out of the folder."""
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise UserError("a file's name would lead out of the folder", where=folder, got=name)
    return pathlib.Path(folder, *name.split("/"))
