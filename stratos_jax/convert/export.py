"""Checkpoint -> HF folder: tensor by tensor, and not finished before it is proved.

In: a step of a checkpoint, the model's raw config, a tokenizer folder. Out: `model-*.safetensors`, index, config,
tokenizer files, `SHA256SUMS`, and `conversion_report.json`, which says how each claim was checked.
"""

import fnmatch
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO

from stratos_jax import store
from stratos_jax.convert.config import ConvertConfig
from stratos_jax.convert.folder import INDEX, carried_files, open_folder
from stratos_jax.convert.ingest import CARRIED, REPORT, Progress, sha256
from stratos_jax.convert.proof import compare_logits, settings
from stratos_jax.convert.safetensors import Planned, plan_shards, write_header, write_tensor
from stratos_jax.convert.sink import Sink, check_room, copy_files, open_sink
from stratos_jax.convert.source import Source
from stratos_jax.model.tokenizer import load_tokenizer
from stratos_jax.store import Url
from stratos_jax.store.errors import local_errors
from stratos_jax.types import Json, UserError, raise_all

SUMS = "SHA256SUMS"
LAST = "config.json"
GENERATION = "generation_config.json"
DEFAULTS = ConvertConfig()
VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.*")


def to_hf(
    checkpoint_dir: Url,
    directory: Url,
    config: ConvertConfig = DEFAULTS,
    *,
    step: int | None = None,
    hf_config: Mapping[str, Json] | None = None,
    tokenizer_dir: Url | None = None,
    eos_ids: Sequence[int] | None = None,
    progress: Progress = lambda done, total: None,
) -> dict[str, Json]:
    """Write a checkpoint's weights as an HF folder at `directory`; returns the report.

    `hf_config` and `tokenizer_dir` default to what the checkpoint names. `eos_ids` are the tokens that end a turn as
    it was trained; they are added to those that stop generation.
    """
    started = time.monotonic()
    source = Source(checkpoint_dir, step, hf_config, config)
    tokenizer = str(tokenizer_dir) if tokenizer_dir else _carried_folder(str(checkpoint_dir), source.metadata)
    check_room(directory, sum(tensor.bytes for tensor in source.planned))
    with open_sink(directory, last=LAST) as sink:
        files = _write_shards(source, sink, config, progress)
        raise_all(source.damage(), what="the checkpoint is not what was saved", where=checkpoint_dir)
        if len(files) > 1:
            sink.write_text(INDEX, json.dumps(_index(files), indent=2) + "\n")
        if tokenizer:
            copy_files(tokenizer, [n for n in carried_files(tokenizer) if n != GENERATION], sink)
        generation = _generation_config(tokenizer, eos_ids)
        if generation:
            sink.write_text(GENERATION, json.dumps(generation, indent=2) + "\n")
        sink.write_text(LAST, json.dumps(source.out_config, indent=2) + "\n")
        report: dict[str, Json] = {
            "source": {"kind": "checkpoint", "path": source.url, "step": source.step},
            "tensors": len(source.planned),
            "bytes": sum(tensor.bytes for tensor in source.planned),
            "dtype": sorted({str(tensor.dtype) for tensor in source.planned}),
            "settings": settings(source.out_config),
            "vocabulary": _vocabulary(tokenizer, source.arch.vocab_size),
            "end_tokens": {
                "generation": generation.get("eos_token_id"),
                "config": source.out_config.get("eos_token_id"),
            },
            **(prove(source, sink, config) if config.proof else {"proof": "not asked for"}),
        }
        sink.write_text(SUMS, "".join(f"{digest}  {name}\n" for name, digest in sorted(sink.sums.items())))
        report["seconds"] = round(time.monotonic() - started, 3)
        sink.write_text(REPORT, json.dumps(report, indent=2) + "\n")
    return report


def _carried_folder(directory: str, metadata: Mapping[str, Any]) -> str | None:
    """What travels with the weights: beside the step, or in the folder that training began from."""
    source = metadata.get("task", {}).get("model", {}).get("source")
    folders = (store.join(directory, CARRIED), source)
    return next((folder for folder in folders if folder and store.exists(store.join(folder, "config.json"))), None)


def _write_shards(source: Source, sink: Sink, config: ConvertConfig, progress: Progress) -> dict[str, list[Planned]]:
    """Write all tensors; returns which are in which file."""
    files = plan_shards(source.planned, int(config.max_shard_gib * 2**30))
    entries = {entry.hf_name: entry for entry in source.entries}
    total, done = sum(tensor.bytes for tensor in source.planned), 0
    for name, tensors in files.items():
        path = sink.path(name)
        with local_errors(path), open(path, "wb") as raw:
            file = Hashing(raw)
            write_header(file, tensors)
            for tensor in tensors:
                write_tensor(file, tensor, source.tensor(entries[tensor.name]))
                done += tensor.bytes
                progress(done, total)
        sink.done(name, file.hexdigest())
    return files


def _index(files: Mapping[str, Sequence[Planned]]) -> dict[str, Json]:
    total = sum(tensor.bytes for tensors in files.values() for tensor in tensors)
    weight_map = {tensor.name: name for name, tensors in files.items() for tensor in tensors}
    return {"metadata": {"total_size": total}, "weight_map": weight_map}


def _generation_config(tokenizer: str | None, eos_ids: Sequence[int] | None) -> dict[str, Json]:
    """What stops generation: what the model came with, and what ends a turn as it was trained."""
    url = store.join(tokenizer, GENERATION) if tokenizer else ""
    settings = dict(json.loads(store.read_text(url))) if url and store.exists(url) else {}
    if eos_ids:
        known = settings.get("eos_token_id")
        before = known if isinstance(known, list) else [known] if known is not None else []
        settings["eos_token_id"] = [*eos_ids, *(token for token in before if token not in eos_ids)]
    return settings


def prove(source: Source, sink: Sink, config: ConvertConfig) -> dict[str, Json]:
    """Open the folder as any reader would; its bytes, then its logits, must be the checkpoint's."""
    folder = open_folder(sink.url, mixed=True, config=source.out_config)
    problems = []
    for entry in source.entries:
        if sha256(entry.to_ours(folder.tensors[entry.hf_name].read())) != source.sums[entry.hf_name]:
            problems.append(f"{entry.hf_name}: comes back with other bytes")
    raise_all(problems, what="the round trip is not bitwise", where=sink.url, do="check disk and memory; convert again")
    return {
        "round_trip": {"bitwise": True, "tensors": len(source.sums)},
        "logits": compare_logits(source.read_leaf, folder, config),
    }


def _vocabulary(tokenizer: str | None, rows: int) -> dict[str, Json]:
    """Rows of the embedding, and how many of them no token of the tokenizer has."""
    if not tokenizer or not any(fnmatch.fnmatch(n, p) for n in carried_files(tokenizer) for p in VOCABULARIES):
        return {"rows": rows}
    size = len(load_tokenizer(tokenizer))
    if size > rows:
        do = "convert with the tokenizer that the model was trained with"
        raise UserError("the tokenizer has more tokens than the model", where=tokenizer, got=size, wanted=rows, do=do)
    return {"rows": rows, "tokens": size, "unused_rows": rows - size}


class Hashing:
    """A file that is hashed while it is written."""

    def __init__(self, file: BinaryIO):
        self._file, self._sha256 = file, hashlib.sha256()

    def write(self, data: Any, /) -> None:
        """Write bytes."""
        self._file.write(data)
        self._sha256.update(data)

    def hexdigest(self) -> str:
        """sha256 of what was written so far."""
        return self._sha256.hexdigest()
