"""Where the conversations lie: files of a source, and their lines one after another.

In: a `SourceConfig`. Out: (file, line number, bytes of one JSON object), in an order that never changes.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stratos_jax import store
from stratos_jax.shards.config import SourceConfig
from stratos_jax.types import UserError

ENDINGS = (".jsonl", ".parquet")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def name_of(source: SourceConfig) -> str:
    """The source's name in statistics."""
    return source.name or source.path.rstrip("/").rsplit("/", 1)[-1].removesuffix(".jsonl").removesuffix(".parquet")


def files_of(source: SourceConfig, inputs: Mapping[str, str | os.PathLike[str]]) -> list[str]:
    """The files of a source, by name."""
    path = source.path
    if path in inputs:  # the output folder of a stage of the recipe
        return [store.join(inputs[path], "dataset.jsonl")]
    if store.exists(path):
        if not path.endswith(ENDINGS):
            raise UserError(
                "not a file of conversations", where=path, wanted=f"a name ending in {' or '.join(ENDINGS)}"
            )
        return [path]
    found = _conversations_in(path) if store.is_remote(path) or os.path.isdir(path) else []
    if found:
        return found
    if HUB_ID.fullmatch(path) and not os.path.isdir(path):
        return _from_hub(path)
    raise UserError("no conversations found", where=path, wanted=f"a file or folder of {' or '.join(ENDINGS)}")


def read_lines(path: str) -> Iterator[tuple[int, bytes]]:
    """(line number from 1, one JSON object) of a file; blank lines are passed over."""
    if path.endswith(".parquet"):
        yield from _read_parquet(path)
        return
    with store.open_read(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def hash_inputs(files: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Content hash of every file of every source."""
    return {
        f"{name}/{path.rsplit('/', 1)[-1]}": store.stage.input_hash(path)
        for name, paths in files.items()
        for path in paths
    }


def _conversations_in(folder: str) -> list[str]:
    names = [file.url for file in store.list_files(folder) if file.url.endswith(ENDINGS)]
    dataset = store.join(folder, "dataset.jsonl")
    return [dataset] if dataset in names else sorted(names)  # the output of `curate` holds other JSONL files too


def _read_parquet(path: str) -> Iterator[tuple[int, bytes]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with store.open_read(path) as file:
        try:
            number = 0
            for batch in pq.ParquetFile(file).iter_batches(batch_size=256):
                for row in batch.to_pylist():
                    number += 1
                    yield number, json.dumps(row, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass")
        except pa.ArrowException as error:
            raise UserError("not a parquet file, or a damaged one", where=path, got=str(error)) from error


def _from_hub(repository: str) -> list[str]:
    import huggingface_hub

    patterns = [f"*{ending}" for ending in ENDINGS]
    try:
        folder: Any = huggingface_hub.snapshot_download(repository, repo_type="dataset", allow_patterns=patterns)
    except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
        raise UserError(
            "no such file or folder, and the data set could not be fetched from the hub",
            where=repository,
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            do="check the path; without network, download the data set elsewhere and give its folder",
        ) from error
    return _conversations_in(folder)
