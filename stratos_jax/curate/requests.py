"""The request store: what was paid for is kept under the hash of the exact request, and never asked again.

In: an endpoint, a request body, a sample index. Out: the answer that came, if it ever did. Append-only; a kill at any
moment loses at most the answers that were on their way.
"""

import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from stratos_jax import store
from stratos_jax.types import Json, json_hash

NAME = "answers.jsonl"
HEAD = b'{"key": "'


def request_key(endpoint: str, body: Mapping[str, Json], sample_index: int) -> str:
    """Hash of everything that decides an answer: where it was asked, every byte that was sent, which sample it is."""
    return json_hash({"endpoint": endpoint, "body": body, "sample_index": sample_index})


class RequestStore:
    """Answers by key, in one file; only where each line lies is held in memory."""

    def __init__(self, folder: str | os.PathLike[str]):
        self._path = pathlib.Path(folder) / NAME
        self._file = store.jsonl.JsonlAppender(self._path)  # repairs a torn end
        self._places: dict[str, tuple[int, int]] = {}
        offset = 0
        with open(self._path, "rb") as lines:
            for line in lines:
                if line.startswith(HEAD):
                    self._places[line[len(HEAD) : len(HEAD) + 64].decode()] = (offset, len(line))
                offset += len(line)
        self._end = offset

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __contains__(self, key: str) -> bool:
        return key in self._places

    def get(self, key: str) -> dict[str, Any]:
        """The record of an answer that is there."""
        offset, length = self._places[key]
        with open(self._path, "rb") as file:
            file.seek(offset)
            return json.loads(file.read(length))

    def put(self, key: str, record: Mapping[str, Json]) -> None:
        """Keep an answer; safe from kill -9 when this returns."""
        line = store.jsonl.encode_line({"key": key, **record})
        self._file.append({"key": key, **record})
        self._places[key] = (self._end, len(line))
        self._end += len(line)

    def close(self) -> None:
        """Put all on the disk."""
        self._file.close()

    def __enter__(self) -> "RequestStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
