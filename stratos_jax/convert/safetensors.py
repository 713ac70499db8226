"""The safetensors format as a stream: headers are read alone, tensors and runs of rows by byte ranges.

In: a file, local or gs://. Out: NumPy arrays; and the other way, files written tensor by tensor. The library
`safetensors` maps whole local files; this reads a bucket by ranges and never holds more than one tensor.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from stratos_jax import store
from stratos_jax.store import Url
from stratos_jax.types import UserError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
MAX_HEADER = 100 << 20  # the reference implementation refuses more
SLICE = 64 << 20  # bytes handed to the file at once
BLOCK = 128  # columns of a transpose that are copied together


@dataclasses.dataclass(frozen=True, slots=True)
class Tensor:
    """Where a tensor lies."""

    name: str
    url: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int  # of its first byte in the file

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self, rows: slice | None = None) -> np.ndarray:
        """The tensor, or a run of its rows; only those bytes are read."""
        first, end, _ = (rows or slice(None)).indices(self.shape[0]) if self.shape else (0, 1, 1)
        shape = (end - first, *self.shape[1:]) if self.shape else ()
        row_bytes = math.prod(self.shape[1:]) * self.dtype.itemsize
        data = store.read_bytes(self.url, self.start + first * row_bytes, self.start + end * row_bytes)
        if len(data) != (end - first) * row_bytes:
            raise UserError("the file ends within a tensor", where=f"{self.url}: {self.name}", do="fetch it again")
        return np.frombuffer(data, self.dtype).reshape(shape)


def read_header(url: Url, size: int) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file of `size` bytes, and what is wrong with the file."""
    url = str(url)
    if size < 8:
        return {}, [f"has {size} bytes, too short for a safetensors file"]
    (length,) = struct.unpack("<Q", store.read_bytes(url, 0, 8))
    if length > min(MAX_HEADER, size - 8):
        return {}, [f"is truncated or no safetensors file: it states a header of {length} bytes and has {size} in all"]
    try:
        header = json.loads(store.read_bytes(url, 8, 8 + length))
        header.pop("__metadata__", None)
        return _tensors(url, header, 8 + length, size)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return {}, [f"has a header that cannot be read: {error!r}"]


def _tensors(url: str, header: Mapping, base: int, size: int) -> tuple[dict[str, Tensor], list[str]]:
    tensors, problems, end = {}, [], 0
    for name, row in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, stop = row["data_offsets"]
        if row["dtype"] not in DTYPES:
            problems.append(f"{name}: number format {row['dtype']} is not known")
            end = stop
            continue
        tensor = Tensor(name, url, DTYPES[row["dtype"]], tuple(row["shape"]), base + begin)
        if begin != end or tensor.bytes != stop - begin:
            problems.append(f"{name}: {row['dtype']}{row['shape']} at bytes {begin} to {stop} does not fit its place")
        end = stop
        tensors[name] = tensor
    if base + end != size:
        verb = "is truncated" if base + end > size else "has bytes too many"
        problems.insert(0, f"{verb}: has {size} bytes, its header says {base + end}")
    return tensors, problems


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A tensor that is to be written."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """Its size."""
        return math.prod(self.shape) * self.dtype.itemsize


def plan_shards(tensors: Iterable[Planned], max_bytes: int) -> dict[str, list[Planned]]:
    """File names and their tensors in order, each file at most `max_bytes` unless one tensor is larger."""
    shards: list[list[Planned]] = [[]]
    total = 0
    for tensor in tensors:
        if shards[-1] and total + tensor.bytes > max_bytes:
            shards.append([])
            total = 0
        shards[-1].append(tensor)
        total += tensor.bytes
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{i:05}-of-{len(shards):05}.safetensors": shard for i, shard in enumerate(shards, 1)}


class Writable(Protocol):
    """What takes bytes."""

    def write(self, data: Any, /) -> Any:
        """Write bytes."""
        ...


def write_header(file: Writable, tensors: Iterable[Planned]) -> None:
    """The header; the tensors' bytes follow in the same order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.bytes
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data begin at a multiple of 8
    file.write(struct.pack("<Q", len(text)) + text)


def write_tensor(file: Writable, tensor: Planned, array: np.ndarray) -> None:
    """The next tensor's bytes, little-endian, in rows' order."""
    assert (array.shape, array.dtype) == (tensor.shape, tensor.dtype), (tensor, array.shape, array.dtype)
    flat = contiguous(array).reshape(-1).view(np.uint8)
    for start in range(0, len(flat), SLICE):
        file.write(flat[start : start + SLICE].data)


def contiguous(view: np.ndarray) -> np.ndarray:
    """An array in rows' order; a transpose is copied block by block, twice as fast as at once."""
    if view.ndim < 2 or view.flags.c_contiguous:
        return np.ascontiguousarray(view)
    last_two_merge = view.ndim > 2 and view.strides[-2] == view.strides[-1] * view.shape[-1]
    flat = (view.shape[0], -1) if last_two_merge else (-1, view.shape[-1])
    made = np.empty(view.shape, view.dtype)
    source, target = view.reshape(flat), made.reshape(flat)
    for first in range(0, source.shape[1], BLOCK):
        target[:, first : first + BLOCK] = source[:, first : first + BLOCK]
    return made
