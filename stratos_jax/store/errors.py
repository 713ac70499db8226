"""What can go wrong with files, said for a person: turns `OSError` into `UserError`."""

import contextlib
import errno
from collections.abc import Iterator

from stratos_jax.types import UserError


class Missing(UserError):
    """There is no such file."""


class AlreadyExists(UserError):
    """A create-only write found a file in its place."""


ADVICE = {
    errno.ENOSPC: ("no space left on the disk", "free some space and run the same command again"),
    errno.EDQUOT: ("the disk quota is used up", "free some space and run the same command again"),
    errno.EFBIG: ("the file is larger than this disk or process may write", "raise the limit (`ulimit -f`)"),
    errno.EROFS: ("the disk is read-only", "write somewhere else"),
    errno.EACCES: ("no permission", "change the owner or mode of the file, or choose another place"),
    errno.EPERM: ("no permission", "change the owner or mode of the file, or choose another place"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "check the path"),
    errno.EISDIR: ("this is a folder, not a file", "check the path"),
    errno.ENAMETOOLONG: ("the file name is too long", "choose a shorter one"),
    errno.EIO: ("the disk reports an input/output error", "check the disk; copy what can be read elsewhere"),
}


@contextlib.contextmanager
def local_errors(path: object) -> Iterator[None]:
    """Raise a `UserError` for what the operating system refuses; leave other exceptions alone."""
    try:
        yield
    except FileNotFoundError as error:
        raise Missing("no such file", where=error.filename or path, do="check the path") from error
    except FileExistsError as error:
        raise AlreadyExists("the file is already there", where=path) from error
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        what, do = ADVICE[error.errno]
        raise UserError(what, where=path, got=error.strerror, do=do) from error
