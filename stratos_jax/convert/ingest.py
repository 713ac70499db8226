"""HF folder -> checkpoint: tensor by tensor, each byte accounted for.

In: a model folder, local or gs://. Out: a folder with one step (0) that a trainer or `to-hf` starts from, what travels
with the weights under `hf/`, and `conversion_report.json` last.
"""

import hashlib
import json
import time
from collections.abc import Callable

import numpy as np

from stratos_jax import checkpoint
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.folder import HfFolder, carried_files, open_folder
from stratos_jax.convert.lora import merge
from stratos_jax.convert.proof import compare_logits
from stratos_jax.convert.safetensors import contiguous
from stratos_jax.convert.sink import Sink, check_room, copy_files, open_sink
from stratos_jax.model.names import Entry, hf_entries
from stratos_jax.store import Url
from stratos_jax.types import Json, raise_all

REPORT = "conversion_report.json"
CARRIED = "hf"  # the folder for what travels with the weights
PARAMS = "params"  # the subtree of a training state that holds the weights
DEFAULTS = ConvertConfig(dtype="keep")
Progress = Callable[[int, int], None]  # bytes done, bytes in all


def from_hf(
    src: Url,
    dst: Url,
    config: ConvertConfig = DEFAULTS,
    *,
    lora: Url | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Json]:
    """Convert `src`, with the adapter `lora` merged into it, to a checkpoint at `dst`; returns the report."""
    started = time.monotonic()
    folder = open_folder(src, mixed=config.dtype != "keep")
    if lora is not None:
        folder = merge(folder, lora)
    formats = {path: _format(folder, entries, config.dtype) for path, entries in by_path(folder).items()}
    check_room(dst, sum(folder.tensors[e.hf_name].bytes for e in hf_entries(folder.arch)))
    with open_sink(dst, last=REPORT) as sink:
        sums = _write_step(folder, sink, formats, progress)
        copy_files(folder.url, carried_files(folder.url), sink, f"{CARRIED}/")
        report: dict[str, Json] = {
            "source": {"kind": "hf", "path": folder.url, "adapter": str(lora) if lora is not None else None},
            "tensors": len(folder.tensors),
            "bytes": folder.bytes,
            "dtype": sorted({str(format) for format in formats.values()}),
            **(_prove(folder, sink.url, sums, config) if config.proof else {"proof": "not asked for"}),
            "seconds": round(time.monotonic() - started, 3),
        }
        sink.write_text(f"{CARRIED}/config.json", json.dumps(dict(folder.config), indent=2) + "\n")
        sink.write_text(REPORT, json.dumps(report, indent=2) + "\n")
    return report


def by_path(folder: HfFolder) -> dict[str, list[Entry]]:
    """The rows of the name table, grouped by the leaf of the training state that holds them."""
    groups: dict[str, list[Entry]] = {}
    for entry in hf_entries(folder.arch):
        groups.setdefault("/".join((PARAMS, *entry.path)), []).append(entry)
    return groups


def _format(folder: HfFolder, entries: list[Entry], dtype: str) -> np.dtype:
    return folder.tensors[entries[0].hf_name].dtype if dtype == "keep" else dtype_of(dtype)


def dtype_of(name: str) -> np.dtype:
    """A number format by name, bfloat16 among them."""
    import ml_dtypes

    return np.dtype(ml_dtypes.bfloat16) if name == "bfloat16" else np.dtype(name)


def _write_step(folder: HfFolder, sink: Sink, formats: dict[str, np.dtype], progress: Progress) -> dict[str, str]:
    """Write every tensor into its leaf; returns the sha256 of each tensor as it was read."""
    groups = by_path(folder)
    shapes = {
        path: (entries[0].our_shape if entries[0].layer is None else (len(entries), *entries[0].our_shape))
        for path, entries in groups.items()
    }
    writer = checkpoint.StepWriter(sink.url, 0, {path: (shapes[path], formats[path]) for path in groups})
    sums, done = {}, 0
    for path, entries in groups.items():
        for entry in entries:
            tensor = folder.tensors[entry.hf_name].read()
            sums[entry.hf_name] = sha256(tensor.astype(formats[path], copy=False))
            writer.write(path, contiguous(entry.to_ours(tensor).astype(formats[path], copy=False)), entry.layer)
            done += tensor.nbytes
            progress(done, folder.bytes)
    writer.finish({"hf_config": dict(folder.config), "source": folder.url})
    return sums


def _prove(folder: HfFolder, directory: str, sums: dict[str, str], config: ConvertConfig) -> dict[str, Json]:
    """Read the checkpoint back: the bytes of every tensor, then the logits, must be the folder's."""
    reader, problems = checkpoint.LeafReader(directory, 0), []
    for path, entries in by_path(folder).items():
        for entry in entries:
            if sha256(entry.to_hf(reader.read(path, entry.layer))) != sums[entry.hf_name]:
                problems.append(f"{entry.hf_name}: comes back with other bytes")
    raise_all(
        problems, what="the round trip is not bitwise", where=directory, do="check disk and memory; convert again"
    )
    read = lambda path, index: reader.read("/".join((PARAMS, *path)), index)
    return {
        "round_trip": {"bitwise": True, "tensors": len(sums)},
        "logits": compare_logits(read, folder, config),
    }


def sha256(array: np.ndarray) -> str:
    """Of the array's bytes in rows' order."""
    return hashlib.sha256(contiguous(array).reshape(-1).view(np.uint8).data).hexdigest()
