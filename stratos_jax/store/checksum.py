"""Checksums of files and bytes as object stores print them."""

import base64
import hashlib
from typing import BinaryIO

import google_crc32c

CHUNK = 1 << 20


def crc32c_text(value: int) -> str:
    """A crc32c as base64 of its big-endian bytes."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32c(data: bytes) -> str:
    """crc32c of bytes, in base64."""
    return crc32c_text(google_crc32c.value(data))


def file_crc32c(file: BinaryIO) -> str:
    """crc32c of what is left to read, in base64."""
    value = 0
    while chunk := file.read(CHUNK):
        value = google_crc32c.extend(value, chunk)
    return crc32c_text(value)


def file_hashes(file: BinaryIO) -> tuple[int, str, str]:
    """Length, sha256 (hex) and crc32c (base64) of what is left to read, in one pass."""
    length, digest, value = 0, hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        length += len(chunk)
        digest.update(chunk)
        value = google_crc32c.extend(value, chunk)
    return length, digest.hexdigest(), crc32c_text(value)
