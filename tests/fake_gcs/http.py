"""The HTTP side: one keep-alive connection a thread, request bodies in pieces, replies, and faults on the wire."""

import http.server
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from fake_gcs.errors import HttpError
from fake_gcs.faults import Rule, flip

PIECE = 1 << 20


class Hangup(Exception):
    """Close the connection without a reply."""


class Connection(http.server.BaseHTTPRequestHandler):
    """Reads requests, hands them to `route`, and writes replies."""

    protocol_version = "HTTP/1.1"
    server_version = "UploadServer"
    sys_version = ""
    wbufsize = 1 << 16
    disable_nagle_algorithm = True
    close_connection: bool

    def handle_one(self) -> None:
        """Answer one request."""
        parts = urlsplit(self.path)
        self.url_path = parts.path
        self.query = dict(parse_qsl(parts.query, keep_blank_values=True))
        self._left = None
        self._chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        self._to_read = int(self.headers.get("Content-Length") or 0)
        self._replied = 0
        self._rule: Rule | None = self.server.faults.pick(f"{self.command} {self.path}")  # pyright: ignore
        try:
            try:
                self._fault_before()
                self.route()
            except HttpError as error:
                self.reply_error(error)
            self.wfile.flush()
        except Hangup:
            self._hang_up(hard=True)
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        if not self._replied:
            self._log(0)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = do_HEAD = handle_one  # noqa: N815

    def route(self) -> None:
        """Do what the request asks."""
        raise NotImplementedError

    def pieces(self) -> Iterator[bytes]:
        """The request's body, as it arrives."""
        rule = self._rule
        stop = self._to_read // 2 if rule and rule.kind == "reset" else None
        damage = rule is not None and rule.kind == "damage_upload"
        for data in self._chunks() if self._chunked else self._known():
            if damage:
                data, damage = flip(data), False
            if stop is not None and self._to_read <= stop:
                yield data[: len(data) // 2]
                raise Hangup
            yield data

    def body(self) -> bytes:
        """The whole body of the request."""
        return b"".join(self.pieces())

    def json(self) -> dict[str, Any]:
        """The body as JSON; an empty one is an empty object."""
        data = self.body()
        try:
            value = json.loads(data) if data.strip() else {}
        except ValueError as error:
            raise HttpError(400, "Parse Error", "parseError") from error
        if not isinstance(value, dict):
            raise HttpError(400, "Parse Error", "parseError")
        return value

    def reply(self, status: int, data: bytes = b"", headers: dict[str, Any] | None = None) -> None:
        """Send a short reply."""
        self.begin(status, len(data), headers or {})
        self.send_piece(data)

    def reply_json(self, value: dict[str, Any], headers: dict[str, Any] | None = None) -> None:
        """Send JSON."""
        data = json.dumps(value).encode()
        self.reply(200, data, {"Content-Type": "application/json; charset=UTF-8", **(headers or {})})

    def reply_error(self, error: HttpError) -> None:
        """Send an error: JSON, or plain text where media was asked for."""
        if error.status in (204, 304, 499):
            self.reply(error.status)
        elif self.query.get("alt") == "media":
            self.reply(error.status, error.message.encode(), {"Content-Type": "text/html; charset=UTF-8"})
        else:
            self.reply(error.status, error.body(), {"Content-Type": "application/json; charset=UTF-8"})

    def begin(self, status: int, length: int, headers: dict[str, Any]) -> None:
        """Send status and headers; the body of `length` bytes follows."""
        self._drain()
        if self._rule and self._rule.kind == "drop_reply":
            raise Hangup
        self._replied, self._length, self._sent = status, length, 0
        self._log(status)
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, str(value))
        self.send_header("X-GUploader-UploadID", "fake")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def send_piece(self, data: bytes) -> None:
        """Send a piece of the reply's body."""
        if self.command == "HEAD" or not data:
            return
        kind = self._rule.kind if self._rule else None
        if kind in ("reset_reply", "truncate") and self._sent + len(data) > self._length // 2:
            self.wfile.write(data[: max(self._length // 2 - self._sent, 0)])
            self.wfile.flush()
            self._hang_up(hard=kind == "reset_reply")
            raise ConnectionResetError
        if kind == "damage" and self._sent <= self._length // 2 < self._sent + len(data):
            data = flip(data)
        self._sent += len(data)
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """The server keeps its own log."""

    def _log(self, status: int) -> None:
        with self.server.log_lock:  # pyright: ignore
            self.server.requests.append((self.command, self.path, status))  # pyright: ignore

    def _fault_before(self) -> None:
        if self._rule and self._rule.kind == "slow":
            time.sleep(self._rule.seconds)
        if self._rule and self._rule.kind == "status":
            raise HttpError(self._rule.status)
        if self._rule and self._rule.kind == "reset" and not (self._to_read or self._chunked):
            raise Hangup

    def _known(self) -> Iterator[bytes]:
        while self._to_read:
            data = self.rfile.read1(min(self._to_read, PIECE))  # pyright: ignore
            if not data:
                raise ConnectionResetError  # killed in the middle of an upload
            self._to_read -= len(data)
            yield data

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0] or b"0", 16):
            data = self.rfile.read(size)
            if len(data) < size:
                raise ConnectionResetError
            self.rfile.readline()
            yield data
        while self.rfile.readline().strip():
            pass
        self._chunked = False

    def _drain(self) -> None:
        """Read what is left of the request, so that the connection can serve the next one."""
        for _ in self._chunks() if self._chunked else self._known():
            pass

    def _hang_up(self, *, hard: bool) -> None:
        self.close_connection = True
        if hard:  # a linger of 0 s makes close() send RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            self.connection.shutdown(socket.SHUT_RDWR)


class Server(http.server.ThreadingHTTPServer):
    """Listens on a free loopback port."""

    daemon_threads = True
    request_queue_size = 128
    block_on_close = False

    def __init__(self, handler: type[Connection], port: int = 0):
        super().__init__(("127.0.0.1", port), handler)
        self.requests: list[tuple[str, str, int]] = []
        self.log_lock = threading.Lock()

    def shutdown_request(self, request) -> None:
        """Close without the polite shutdown, which would turn a reset into an ordinary end."""
        self.close_request(request)

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no error of the server's."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)
