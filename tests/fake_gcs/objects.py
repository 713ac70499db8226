"""Buckets and objects of the fake: bodies in memory or on disk, generations, checksums, preconditions."""

import base64
import dataclasses
import datetime
import hashlib
import itertools
import os
import pathlib
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import google_crc32c
from fake_gcs.errors import HttpError, no_bucket, no_object

SPILL = 8 << 20  # bodies above this go to the directory, where there is one
WRITABLE = ("contentType", "contentEncoding", "contentDisposition", "contentLanguage", "cacheControl", "customTime")
_bodies = itertools.count()


class Body:
    """Bytes that arrive in order, with their checksums; moves to a file when it grows."""

    def __init__(self, directory: pathlib.Path | None = None):
        self.size, self._crc32c, self._md5 = 0, 0, hashlib.md5()
        self._memory: bytearray | bytes = bytearray()
        self._directory, self._file = directory, None

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes."""
        self._crc32c = google_crc32c.extend(self._crc32c, bytes(data))
        self._md5.update(data)
        self.size += len(data)
        if self._file is None and self._directory is not None and self.size > SPILL:
            path = self._directory / f"{os.getpid()}-{next(_bodies)}"
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            weakref.finalize(self, os.close, self._file)
            os.unlink(path)
            os.write(self._file, self._memory)
            self._memory = b""
        if self._file is None:
            self._memory += data
        else:
            os.write(self._file, data)

    def read(self, start: int, end: int) -> bytes:
        """Bytes [start, end)."""
        if self._file is not None:
            return os.pread(self._file, end - start, start)
        return bytes(memoryview(self._memory)[start:end])

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc32c.to_bytes(4, "big")).decode()

    @property
    def md5(self) -> str:
        return base64.b64encode(self._md5.digest()).decode()


@dataclasses.dataclass
class Object:
    """One live object."""

    bucket: str
    name: str
    body: Body
    generation: int
    metadata: dict[str, Any]  # the writable fields
    created: datetime.datetime
    updated: datetime.datetime
    metageneration: int = 1

    @property
    def etag(self) -> str:
        return base64.b64encode(f"{self.generation}/{self.metageneration}".encode()).decode()

    def resource(self, root: str) -> dict[str, Any]:
        """The object as JSON."""
        path = f"b/{self.bucket}/o/{quote(self.name, safe='')}"
        created, updated = _time(self.created), _time(self.updated)
        return {
            "kind": "storage#object",
            "id": f"{self.bucket}/{self.name}/{self.generation}",
            "selfLink": f"{root}/storage/v1/{path}",
            "mediaLink": f"{root}/download/storage/v1/{path}?generation={self.generation}&alt=media",
            "name": self.name,
            "bucket": self.bucket,
            "generation": str(self.generation),
            "metageneration": str(self.metageneration),
            "storageClass": "STANDARD",
            "size": str(self.body.size),
            "md5Hash": self.body.md5,
            "crc32c": self.body.crc32c,
            "etag": self.etag,
            "timeCreated": created,
            "updated": updated,
            "timeStorageClassUpdated": created,
            "timeFinalized": created,
            **{k: v for k, v in self.metadata.items() if v is not None},
        }


class Objects:
    """All buckets; every method is atomic."""

    def __init__(self, directory: pathlib.Path | None = None):
        self.directory = directory
        self._lock = threading.RLock()
        self._buckets: dict[str, dict[str, Object]] = {}
        self._bucket_times: dict[str, datetime.datetime] = {}
        self._last = 0

    def create_bucket(self, name: str) -> None:
        """Make an empty bucket; 409 where it is there."""
        with self._lock:
            if name in self._buckets:
                raise HttpError(409)
            self._buckets[name] = {}
            self._bucket_times[name] = _now()

    def delete_bucket(self, name: str) -> None:
        """Remove an empty bucket."""
        with self._lock:
            if self._bucket(name):
                raise HttpError(409, "The bucket you tried to delete is not empty.")
            del self._buckets[name]

    def bucket_names(self, prefix: str = "") -> list[str]:
        """Names of all buckets."""
        with self._lock:
            return sorted(name for name in self._buckets if name.startswith(prefix))

    def bucket_resource(self, name: str, root: str) -> dict[str, Any]:
        """A bucket as JSON."""
        with self._lock:
            self._bucket(name)
            created = _time(self._bucket_times[name])
        return {
            "kind": "storage#bucket", "id": name, "name": name, "selfLink": f"{root}/storage/v1/b/{name}",
            "projectNumber": "123456789012", "generation": "1", "metageneration": "1", "etag": "CAE=",
            "location": "US", "locationType": "multi-region", "storageClass": "STANDARD",
            "timeCreated": created, "updated": created,
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        }  # fmt: skip

    def get(self, bucket: str, name: str, query: Mapping[str, str], *, prefix: str = "if") -> Object:
        """A live object, with its preconditions and generation checked."""
        with self._lock:
            found = self._bucket(bucket).get(name)
            wanted = query.get("sourceGeneration" if prefix == "ifSource" else "generation")
            if found is None or (wanted and int(wanted) != found.generation):
                raise no_object(bucket, name)
            check(found, query, prefix=prefix)
            return dataclasses.replace(found)

    def check_insert(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Whether an insert may go on."""
        with self._lock:
            check(self._bucket(bucket).get(name), query)

    def insert(
        self, bucket: str, name: str, body: Body, metadata: Mapping[str, Any], query: Mapping[str, str]
    ) -> Object:
        """Make or replace an object, once its checksums and preconditions hold."""
        for field, title, actual in (("crc32c", "CRC32C", body.crc32c), ("md5Hash", "MD5 hash", body.md5)):
            claimed = metadata.get(field)
            if claimed and claimed != actual:
                raise HttpError(400, f'Provided {title} "{claimed}" doesn\'t match calculated {title} "{actual}".')
        with self._lock:
            self.check_insert(bucket, name, query)
            self._last = max(self._last + 1, time.time_ns() // 1000)
            kept = {key: metadata[key] for key in (*WRITABLE, "metadata") if key in metadata}
            now = _now()
            made = Object(bucket, name, body, self._last, kept, now, now)
            self._buckets[bucket][name] = made
            return made

    def patch(self, bucket: str, name: str, changes: Mapping[str, Any], query: Mapping[str, str]) -> Object:
        """Change an object's metadata; its metageneration grows."""
        with self._lock:
            self.get(bucket, name, query)
            found = self._buckets[bucket][name]
            merged = dict(found.metadata)
            if isinstance(changes.get("metadata"), dict):
                pairs = {**(merged.get("metadata") or {}), **changes["metadata"]}
                merged["metadata"] = {k: v for k, v in pairs.items() if v is not None}
            merged |= {key: changes[key] for key in WRITABLE if key in changes}
            found.metadata, found.metageneration, found.updated = merged, found.metageneration + 1, _now()
            return dataclasses.replace(found)

    def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
        """Remove an object."""
        with self._lock:
            self.get(bucket, name, query)
            del self._buckets[bucket][name]

    def listing(self, bucket: str, query: Mapping[str, str]) -> tuple[list[Object], list[str], str | None]:
        """Objects and prefixes of one page, and the token of the next."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        start, end = query.get("startOffset", ""), query.get("endOffset", "")
        limit = min(int(query.get("maxResults") or 1000), 1000)
        after = base64.urlsafe_b64decode(query["pageToken"]).decode() if query.get("pageToken") else None
        trailing = query.get("includeTrailingDelimiter", "").lower() == "true"
        with self._lock:
            names = sorted(
                n for n in self._bucket(bucket) if n.startswith(prefix) and n >= start and not (end and n >= end)
            )
            items: list[Object] = []
            prefixes: list[str] = []
            for name in names:
                cut = name.find(delimiter, len(prefix)) if delimiter else -1
                folder = name[: cut + len(delimiter)] if cut >= 0 else None
                entry = folder or name
                if after is not None and entry <= after:
                    continue
                is_new = folder is not None and (not prefixes or prefixes[-1] != folder)
                is_item = folder is None or (trailing and folder == name)
                if len(items) + len(prefixes) >= limit and (is_new or is_item):
                    last = max([item.name for item in items[-1:]] + prefixes[-1:])
                    return items, prefixes, base64.urlsafe_b64encode(last.encode()).decode()
                if is_new:
                    prefixes.append(folder)  # pyright: ignore[reportArgumentType]
                if is_item:
                    items.append(dataclasses.replace(self._buckets[bucket][name]))
            return items, prefixes, None

    def _bucket(self, name: str) -> dict[str, Object]:
        if name not in self._buckets:
            raise no_bucket()
        return self._buckets[name]


def check(found: Object | None, query: Mapping[str, str], *, prefix: str = "if") -> None:
    """Raise 412 or 304 where a precondition does not hold; an absent object has generation 0."""
    for noun, actual in (
        ("Generation", found.generation if found else 0),
        ("Metageneration", found.metageneration if found else 0),
    ):
        for suffix, holds, status in (("Match", True, 412), ("NotMatch", False, 304)):
            text = query.get(f"{prefix}{noun}{suffix}")
            if text is None:
                continue
            if not text.lstrip("-").isdigit():
                raise HttpError(400, f"Invalid value for {prefix}{noun}{suffix}: {text}")
            if (int(text) == actual) is not holds:
                raise HttpError(status)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.timezone.utc)  # noqa: UP017


def _time(value: datetime.datetime) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03d}Z"
