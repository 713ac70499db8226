"""Uploads: multipart bodies, resumable sessions and their content ranges, checksums claimed in headers."""

import dataclasses
import json
import re
import secrets
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from fake_gcs.errors import HttpError
from fake_gcs.objects import Body, Object

_RANGE = re.compile(r"bytes (?:(\d+)-(\d+|\*)|\*)/(\d+|\*)")


@dataclasses.dataclass
class Session:
    """One resumable upload; preconditions are those of the request that began it."""

    bucket: str
    name: str
    metadata: dict[str, Any]
    query: Mapping[str, str]
    declared: int | None  # X-Upload-Content-Length
    body: Body
    done: Object | None = None
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def receive(self, content_range: str | None, pieces: Iterable[bytes]) -> bool:
        """Take in a chunk, keeping what arrived of one that was cut off; True where the object is whole."""
        if content_range is None:
            skip, total = self.body.size, None  # one request with everything
            for piece in pieces:
                skip = self._keep(piece, skip)
            return True
        match = _RANGE.fullmatch(content_range.strip())
        if not match:
            raise HttpError(400, "Failed to parse Content-Range header.", "badRequest")
        first, last, total_text = match.groups()
        total = int(total_text) if total_text != "*" else self.declared
        if self.declared is not None and total != self.declared:
            raise HttpError(400, f"Content-Range total {total} differs from X-Upload-Content-Length {self.declared}.")
        if first is not None:
            if int(first) > self.body.size:
                raise HttpError(503, f"Expected offset {self.body.size}, got {first}.")
            skip = self.body.size - int(first)
            received = 0
            for piece in pieces:
                received += len(piece)
                skip = self._keep(piece, skip)
            if last != "*" and received != int(last) - int(first) + 1:
                raise HttpError(400, "Content-Range does not match the length of the body.", "badRequest")
        if total is not None and self.body.size > total:
            raise HttpError(
                400, "Attempt to finalize resumable session with fewer bytes than the backend has received."
            )
        return total is not None and self.body.size == total

    def _keep(self, piece: bytes, skip: int) -> int:
        """Append what of `piece` is new; returns how many bytes are still to be passed over."""
        if skip < len(piece):
            self.body.append(piece[skip:])
        return max(skip - len(piece), 0)


class Sessions:
    """All resumable uploads by id."""

    def __init__(self):
        self._sessions: dict[str, Session] = {}

    def add(self, session: Session) -> str:
        """Keep a session; returns its id."""
        name = secrets.token_hex(32)
        self._sessions[name] = session
        return name

    def get(self, name: str) -> Session:
        """A session, 404 where there is none."""
        if name not in self._sessions:
            raise HttpError(404, f"Upload {name} does not exist.")
        return self._sessions[name]

    def remove(self, name: str) -> None:
        """Cancel a session."""
        self.get(name)
        del self._sessions[name]


def parse_multipart(content_type: str, body: bytes) -> tuple[dict[str, Any], str | None, bytes]:
    """Metadata, content type and media of a multipart/related body; lines may end with CRLF or LF."""
    match = re.search(r'boundary="?([^";,]+)"?', content_type)
    if not match:
        raise HttpError(400, "Missing multipart boundary in Content-Type header.", "badContent")
    marker = b"--" + match[1].encode()
    position, parts, closed = body.find(marker), [], False
    newline = b"\r\n" if body[position + len(marker) : position + len(marker) + 2] == b"\r\n" else b"\n"
    while position >= 0 and not closed:
        start = position + len(marker)
        closed = body[start : start + 2] == b"--"
        stop = body.find(newline + marker, start)
        if stop >= 0 and not closed:
            parts.append(_split_part(body[start:stop]))
        position = stop + len(newline) if stop >= 0 else -1
    if not closed or len(parts) != 2:
        raise HttpError(400, "Malformed multipart body.", "badContent")
    try:
        metadata = json.loads(parts[0][1] or b"{}")
    except ValueError as error:
        raise HttpError(400, "Parse Error", "parseError") from error
    return metadata, parts[1][0].get("content-type"), parts[1][1]


def claimed_hashes(headers: Iterable[str]) -> dict[str, str]:
    """crc32c and md5Hash as X-Goog-Hash headers claim them."""
    pairs = (item.strip().partition("=")[::2] for header in headers for item in header.split(","))
    return {{"md5": "md5Hash"}.get(key, key): value for key, value in pairs if key in ("crc32c", "md5")}


def _split_part(part: bytes) -> tuple[dict[str, str], bytes]:
    """Headers and content of one part, which begins right after its boundary."""
    found = re.match(rb"[ \t]*\r?\n((?:[^\r\n]+\r?\n)*)\r?\n", part)
    if not found:
        raise HttpError(400, "Malformed multipart body.", "badContent")
    lines = found[1].decode().splitlines()
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return headers, part[found.end() :]
