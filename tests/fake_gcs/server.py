"""A fake Google Cloud Storage for tests: the JSON API that the client libraries use, and XML paths for objects.

In: requests of google-cloud-storage, TensorStore, gcsfs and google-cloud-cpp on a free loopback port.
Out: what the real service answers, but for the faults that a test asks for.
"""

import contextlib
import gzip
import pathlib
import re
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote
from xml.sax.saxutils import escape

from fake_gcs import fields
from fake_gcs.errors import HttpError
from fake_gcs.faults import Faults
from fake_gcs.http import PIECE, Connection, Server
from fake_gcs.objects import Body, Object, Objects
from fake_gcs.uploads import Session, Sessions, claimed_hashes, parse_multipart

_TARGET = re.compile(r"(.+)/(rewriteTo|copyTo)/b/([^/]+)/o/(.+)")
_MOVE = re.compile(r"(.+)/moveTo/o/(.+)")
_XML_CODES = {
    403: "AccessDenied",
    404: "NoSuchKey",
    412: "PreconditionFailed",
    416: "InvalidRange",
    400: "InvalidArgument",
}


class FakeGcs(Server):
    """The server; `objects`, `faults` and the log `requests` are there for tests."""

    def __init__(self, directory: pathlib.Path | None = None, port: int = 0, seed: int = 0):
        super().__init__(Handler, port)
        self.objects, self.sessions, self.faults = Objects(directory), Sessions(), Faults(seed)

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://localhost:{self.server_address[1]}"

    def environment(self) -> dict[str, str]:
        """The variables that send every client library here, without credentials and without metadata server."""
        return {
            "STORAGE_EMULATOR_HOST": self.url,
            "TENSORSTORE_GCS_HTTP_URL": self.url,
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "fake",
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,
            "FSSPEC_GCS": '{"token": "anon", "use_listings_cache": false}',
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
            "NO_GCE_CHECK": "true",
            "GOOGLE_CLOUD_PROJECT": "test-project",
        }

    @contextlib.contextmanager
    def running(self) -> Iterator["FakeGcs"]:
        """Serve from a thread until the block ends."""
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class Handler(Connection):
    """Finds out what a request asks of the objects."""

    server: FakeGcs

    def route(self) -> None:
        path, method = self.url_path, self.command
        override = self.headers.get("X-HTTP-Method-Override")
        method = override.upper() if method == "POST" and override else method
        if match := re.fullmatch(r"/upload(?:/storage/v1)?/b/([^/]+)/o", path):
            self._upload(unquote(match[1]), method)
        elif match := re.fullmatch(r"(?:/download)?/storage/v1/b/([^/]+)/o/(.+)", path):
            self._object(unquote(match[1]), match[2], method)
        elif match := re.fullmatch(r"/storage/v1/b/([^/]+)/o/?", path):
            self._list(unquote(match[1]), method)
        elif match := re.fullmatch(r"/storage/v1/b(?:/([^/]+)(/.+)?)?/?", path):
            self._bucket(match[1] and unquote(match[1]), match[2] or "", method)
        elif path == "/":
            self.reply(200, b"OK", {"Content-Type": "text/plain"})
        elif match := re.fullmatch(r"/([^/]+)/(.+)", path):
            self._xml(unquote(match[1]), unquote(match[2]), method)
        else:
            raise HttpError(404)

    def _bucket(self, name: str | None, rest: str, method: str) -> None:
        objects = self.server.objects
        if name is None and method == "POST":
            wanted = self.json().get("name")
            if not isinstance(wanted, str) or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", wanted):
                raise HttpError(400, f"Invalid bucket name: '{wanted}'")
            objects.create_bucket(wanted)
            self._json(objects.bucket_resource(wanted, self.server.url))
        elif name is None and method == "GET":
            items = [
                objects.bucket_resource(n, self.server.url) for n in objects.bucket_names(self.query.get("prefix", ""))
            ]
            self._json({"kind": "storage#buckets", **({"items": items} if items else {})})
        elif name is not None and method == "GET" and rest == "/storageLayout":
            objects.bucket_resource(name, self.server.url)
            flat = {"hierarchicalNamespace": {"enabled": False}, "location": "US", "locationType": "multi-region"}
            self._json({"kind": "storage#storageLayout", "bucket": name, **flat})
        elif name is not None and method == "GET" and rest == "/iam/testPermissions":
            objects.bucket_resource(name, self.server.url)
            asked = re.findall(r"permissions=([^&]+)", self.path)
            self._json({"kind": "storage#testIamPermissionsResponse", "permissions": asked})
        elif name is not None and not rest and method == "GET":
            self._json(objects.bucket_resource(name, self.server.url))
        elif name is not None and not rest and method == "DELETE":
            objects.delete_bucket(name)
            self.reply(204)
        else:
            raise HttpError(501)

    def _list(self, bucket: str, method: str) -> None:
        if method != "GET":
            raise HttpError(405)
        items, prefixes, token = self.server.objects.listing(bucket, self.query)
        page: dict[str, Any] = {"kind": "storage#objects"}
        if token:
            page["nextPageToken"] = token
        if prefixes:
            page["prefixes"] = prefixes
        if items:
            page["items"] = [item.resource(self.server.url) for item in items]
        self._json(page)

    def _object(self, bucket: str, rest: str, method: str) -> None:
        objects = self.server.objects
        if method == "POST" and (match := _TARGET.fullmatch(rest)):
            self._copy(bucket, unquote(match[1]), match[2], unquote(match[3]), unquote(match[4]))
        elif method == "POST" and (match := _MOVE.fullmatch(rest)):
            self._json(self._move(bucket, unquote(match[1]), unquote(match[2])).resource(self.server.url))
        elif method == "POST" and rest.endswith("/compose"):
            self._compose(bucket, unquote(rest.removesuffix("/compose")))
        elif method == "GET":
            found = objects.get(bucket, unquote(rest), self.query)
            if self.query.get("alt") == "media":
                self._media(found)
            else:
                self._json(found.resource(self.server.url), {"ETag": found.etag})
        elif method == "DELETE":
            objects.delete(bucket, unquote(rest), self.query)
            self.reply(204)
        elif method in ("PATCH", "PUT"):
            self._json(objects.patch(bucket, unquote(rest), self.json(), self.query).resource(self.server.url))
        else:
            raise HttpError(405)

    def _copy(self, bucket: str, name: str, verb: str, to_bucket: str, to_name: str) -> None:
        changes = self.json()
        source = self.server.objects.get(bucket, name, self.query, prefix="ifSource")
        kept = {k: v for k, v in self.query.items() if k.startswith("if") and not k.startswith("ifSource")}
        metadata = {**source.metadata, **changes}
        made = self.server.objects.insert(to_bucket, to_name, source.body, metadata, kept).resource(self.server.url)
        if verb == "copyTo":
            self._json(made)
        else:
            size = str(source.body.size)
            told = {"kind": "storage#rewriteResponse", "totalBytesRewritten": size, "objectSize": size, "done": True}
            self._json({**told, "resource": made})

    def _move(self, bucket: str, name: str, to_name: str) -> Object:
        source = self.server.objects.get(bucket, name, self.query, prefix="ifSource")
        kept = {k: v for k, v in self.query.items() if k.startswith("if") and not k.startswith("ifSource")}
        made = self.server.objects.insert(bucket, to_name, source.body, source.metadata, kept)
        self.server.objects.delete(bucket, name, {"ifGenerationMatch": str(source.generation)})
        return made

    def _compose(self, bucket: str, name: str) -> None:
        asked = self.json()
        body = Body(self.server.objects.directory)
        sources = asked.get("sourceObjects", [])
        if not 1 <= len(sources) <= 32:
            raise HttpError(400, f"The number of source components provided ({len(sources)}) exceeds the maximum (32).")
        for source in sources:
            query = {k: str(v) for k, v in source.get("objectPreconditions", {}).items()}
            if "generation" in source:
                query["generation"] = str(source["generation"])
            found = self.server.objects.get(bucket, source["name"], query)
            for start in range(0, found.body.size, PIECE):
                body.append(found.body.read(start, min(start + PIECE, found.body.size)))
        made = self.server.objects.insert(bucket, name, body, asked.get("destination", {}), self.query)
        self._json(made.resource(self.server.url))

    def _upload(self, bucket: str, method: str) -> None:
        kind, session_id = self.query.get("uploadType"), self.query.get("upload_id")
        if session_id and method in ("PUT", "POST"):
            self._resume(self.server.sessions.get(session_id))
        elif session_id and method == "DELETE":
            self.server.sessions.remove(session_id)
            self.reply(499)
        elif method != "POST":
            raise HttpError(400, "Missing upload_id.", "required")
        elif kind == "resumable":
            self._begin(bucket)
        elif kind == "media":
            body = self._receive()
            content_type = self.headers.get("Content-Type") or "application/octet-stream"
            metadata = {"contentType": content_type, **claimed_hashes(self.headers.get_all("X-Goog-Hash", []))}
            if "contentEncoding" in self.query:
                metadata["contentEncoding"] = self.query["contentEncoding"]
            self._insert(bucket, self.query.get("name"), body, metadata)
        elif kind == "multipart":
            metadata, content_type, media = parse_multipart(self.headers.get("Content-Type", ""), self.body())
            if content_type and metadata.setdefault("contentType", content_type) != content_type:
                raise HttpError(400, f"Content-Type '{content_type}' differs from '{metadata['contentType']}'.")
            body = Body(self.server.objects.directory)
            body.append(media)
            metadata |= claimed_hashes(self.headers.get_all("X-Goog-Hash", []))
            self._insert(bucket, self.query.get("name") or metadata.get("name"), body, metadata)
        else:
            raise HttpError(400, f"Invalid value for uploadType: {kind}")

    def _begin(self, bucket: str) -> None:
        metadata = self.json()
        self.server.objects.bucket_resource(bucket, self.server.url)
        name = self.query.get("name") or metadata.get("name")
        if not name:
            raise HttpError(400, "Required parameter: name", "required")
        if metadata.get("name") not in (None, name):
            raise HttpError(400, f"Value '{metadata['name']}' in content does not agree with value '{name}'.")
        declared_type = self.headers.get("X-Upload-Content-Type") or "application/octet-stream"
        metadata = {"contentType": declared_type, **metadata}
        length = self.headers.get("X-Upload-Content-Length")
        body = Body(self.server.objects.directory)
        session = Session(bucket, name, metadata, dict(self.query), int(length) if length else None, body)
        upload_id = self.server.sessions.add(session)
        location = f"{self.server.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={upload_id}"
        self.reply(200, b"", {"Location": location, "X-GUploader-UploadID": upload_id})

    def _resume(self, session: Session) -> None:
        with session.lock:
            if session.done is None and not session.receive(self.headers.get("Content-Range"), self.pieces()):
                held = {"Range": f"bytes=0-{session.body.size - 1}"} if session.body.size else {}
                self.reply(308, b"", held)
                return
            if session.done is None:
                metadata = session.metadata | claimed_hashes(self.headers.get_all("X-Goog-Hash", []))
                insert = self.server.objects.insert
                session.done = insert(session.bucket, session.name, session.body, metadata, session.query)
            self._json(session.done.resource(self.server.url))

    def _receive(self) -> Body:
        body = Body(self.server.objects.directory)
        for piece in self.pieces():
            body.append(piece)
        return body

    def _insert(self, bucket: str, name: str | None, body: Body, metadata: dict[str, Any]) -> None:
        if not name:
            raise HttpError(400, "Required parameter: name", "required")
        made = self.server.objects.insert(bucket, name, body, metadata, self.query)
        self._json(made.resource(self.server.url), {"ETag": made.etag})

    def _media(self, found: Object) -> None:
        """An object's bytes, or the range asked for."""
        size, encoding = found.body.size, found.metadata.get("contentEncoding")
        headers = {
            "Content-Type": found.metadata.get("contentType") or "application/octet-stream",
            "ETag": found.etag,
            "x-goog-hash": f"crc32c={found.body.crc32c},md5={found.body.md5}",
            "x-goog-generation": found.generation,
            "x-goog-metageneration": found.metageneration,
            "x-goog-storage-class": "STANDARD",
            "x-goog-stored-content-length": size,
            "x-goog-stored-content-encoding": encoding or "identity",
        }
        if encoding == "gzip" and "gzip" not in self.headers.get("Accept-Encoding", ""):
            data = gzip.decompress(found.body.read(0, size))
            self.reply(200, data, headers | {"x-guploader-response-body-transformations": "gunzipped"})
            return
        if encoding:
            headers["Content-Encoding"] = encoding
        asked = byte_range(self.headers.get("Range"), size)
        start, end = asked or (0, size)
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        self.begin(206 if asked else 200, end - start, headers | {"Accept-Ranges": "bytes"})
        for position in range(start, end, PIECE):
            self.send_piece(found.body.read(position, min(position + PIECE, end)))

    def _xml(self, bucket: str, name: str, method: str) -> None:
        """The same objects by /bucket/name, as the XML API has them."""
        query = dict(self.query)
        for key, parameter in (("generation", "ifGenerationMatch"), ("metageneration", "ifMetagenerationMatch")):
            if value := self.headers.get(f"x-goog-if-{key}-match"):
                query[parameter] = value
        try:
            if method in ("GET", "HEAD"):
                self._media(self.server.objects.get(bucket, name, query))
            elif method == "PUT":
                body, content_type = self._receive(), self.headers.get("Content-Type")
                metadata = {"contentType": content_type, **claimed_hashes(self.headers.get_all("X-Goog-Hash", []))}
                made = self.server.objects.insert(bucket, name, body, metadata, query)
                hashes = f"crc32c={made.body.crc32c},md5={made.body.md5}"
                self.reply(200, b"", {"x-goog-hash": hashes, "x-goog-generation": made.generation})
            elif method == "DELETE":
                self.server.objects.delete(bucket, name, query)
                self.reply(204)
            else:
                raise HttpError(501)
        except HttpError as error:
            code = _XML_CODES.get(error.status, "InternalError")
            text = f"<Error><Code>{code}</Code><Message>{escape(error.message)}</Message></Error>"
            data = f"<?xml version='1.0' encoding='UTF-8'?>{text}".encode()
            self.reply(error.status, data, {"Content-Type": "application/xml; charset=UTF-8"})

    def _json(self, value: dict[str, Any], headers: dict[str, Any] | None = None) -> None:
        wanted = self.query.get("fields")
        self.reply_json(fields.select(value, wanted) if wanted else value, headers)


def byte_range(header: str | None, size: int) -> tuple[int, int] | None:
    """[start, end) of a Range header; None where it asks for all or makes no sense."""
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", (header or "").strip())
    if not match or match[0] == "bytes=-":
        return None
    if not match[1]:
        start, end = max(size - int(match[2]), 0), size
    else:
        start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
        if match[2] and int(match[2]) < start:
            return None
    if start >= size:
        raise HttpError(416)
    return start, end
