"""Names of files: what is remote, how names are joined, and `Stat`, what a listing says of a file."""

import dataclasses
import os
import pathlib
import re

from stratos_jax.types import UserError

Url = str | os.PathLike

SCHEME = "gs://"
MANIFEST = "manifest.json"  # written last into a folder: its presence means that the folder is complete
TEMPORARY = ".tmp-"  # begins the name of a file that is still being written; no listing shows it
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stat:
    """One file of a listing; `crc32c` (base64) is None where knowing it would mean reading the file."""

    url: str
    bytes: int
    crc32c: str | None
    generation: int  # changes with every write: GCS generation, or local mtime in ns


def is_remote(url: Url) -> bool:
    """Whether this is a gs:// URL; any other scheme is refused."""
    text = os.fspath(url)
    if text.startswith(SCHEME):
        return True
    if re.match(r"gs:/[^/]", text):
        raise UserError("a gs:// URL lost a slash (pathlib does that)", got=text, wanted="gs://bucket/name as a string")
    if re.match(r"[a-z][a-z0-9+.-]*://", text):
        raise UserError("this kind of URL is not known", got=text, wanted="a local path or gs://bucket/name")
    return False


def join(url: Url, *parts: str) -> str:
    """`url` with names added to it, local or remote."""
    text = os.fspath(url)
    if not is_remote(text):
        return os.path.join(text, *parts)
    return "/".join([text.rstrip("/"), *(part.strip("/") for part in parts)]) if parts else text


def split_remote(url: Url) -> tuple[str, str]:
    """Bucket and object name (or prefix) of a gs:// URL."""
    bucket, _, name = os.fspath(url)[len(SCHEME) :].partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UserError(
            "not a bucket's name", where=url, got=bucket, wanted="3 to 222 lower-case letters, digits, '-', '_', '.'"
        )
    return bucket, name


def relative_name(url: str, root: Url) -> str:
    """The name of a listed file below `root`, with forward slashes."""
    base = os.fspath(root).rstrip("/")
    if is_remote(root):
        assert url.startswith(f"{base}/"), (url, base)
        return url[len(base) + 1 :]
    return pathlib.Path(url).relative_to(base or "/").as_posix()
