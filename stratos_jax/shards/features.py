"""One packed row as bytes: the features of the TFDS data set, made and read without TensorFlow.

In and out: dicts of numpy arrays of T entries; `ids` names the samples in the row, in the order of their segments.
T: tokens of a row.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from stratos_jax.shards import labels

NAME, SPLIT, VERSION, SUFFIX = "stratos", "train", "1.0.0", "array_record"
DTYPES = {
    "tokens": np.int32,
    "segment_ids": np.int32,  # 1, 2, ...; 0 is padding
    "positions": np.int32,  # from 0 in each segment
    "loss_mask": np.uint8,  # of the token itself, not of its successor
    "spans": np.uint8,  # labels.SPANS
}


@functools.cache
def features(row_tokens: int) -> Any:
    """The `tfds.features` of a row."""
    import tensorflow_datasets as tfds

    raw = tfds.features.Encoding.BYTES
    columns = {k: tfds.features.Tensor(shape=(row_tokens,), dtype=v, encoding=raw) for k, v in DTYPES.items()}
    return tfds.features.FeaturesDict({**columns, "ids": tfds.features.Sequence(tfds.features.Text())})


@functools.cache
def _serializer(row_tokens: int) -> Any:
    import tensorflow_datasets as tfds

    return tfds.core.example_serializer.ExampleSerializer(features(row_tokens).get_serialized_info())  # pyright: ignore[reportAttributeAccessIssue]


def make_row(samples: Sequence[np.ndarray], ids: Sequence[str], row_tokens: int) -> dict[str, Any]:
    """Lay samples (words) one after another and pad on the right."""
    words = np.concatenate(samples) if samples else np.zeros(0, np.uint32)
    row: dict[str, Any] = {name: np.zeros(row_tokens, dtype) for name, dtype in DTYPES.items()}
    used = len(words)
    assert used <= row_tokens, (used, row_tokens)
    row["tokens"][:used] = labels.tokens_of(words)
    row["segment_ids"][:used] = np.repeat(np.arange(1, len(samples) + 1), [len(s) for s in samples])
    row["positions"][:used] = np.concatenate([np.arange(len(s)) for s in samples]) if samples else 0
    row["loss_mask"][:used] = labels.learned(words)
    row["spans"][:used] = labels.spans_of(words)
    row["ids"] = list(ids)
    return row


def encode_row(row: dict[str, Any]) -> bytes:
    """A row as the record of a TFDS data set; the same bytes in every process, which protobuf's maps are not."""
    row_tokens = len(row["tokens"])
    example = _serializer(row_tokens).get_tf_example(features(row_tokens).encode_example(row))
    return example.SerializeToString(deterministic=True)


def prepare(row_tokens: int) -> None:
    """Import and set up what rows need, in the calling thread: threads that import TFDS at once lock each other out."""
    decode_row(encode_row(make_row([], [], row_tokens)), row_tokens)


def decode_row(record: bytes, row_tokens: int) -> dict[str, Any]:
    """A record as a row."""
    row = features(row_tokens).deserialize_example_np(record)
    row["ids"] = [name.decode() for name in row["ids"]]
    return row


def write_info(directory: str, shard_lengths: Sequence[int], num_bytes: int, row_tokens: int, text: str) -> None:
    """Write dataset_info.json and features.json, which make the folder a TFDS data set."""
    import tensorflow_datasets as tfds

    identity = tfds.core.dataset_info.DatasetIdentity(  # pyright: ignore[reportAttributeAccessIssue]
        name=NAME, version=tfds.core.Version(VERSION), data_dir=directory, module_name="stratos_jax.shards"
    )
    template = tfds.core.ShardedFileTemplate(data_dir=directory, dataset_name=NAME, split=SPLIT, filetype_suffix=SUFFIX)  # pyright: ignore[reportArgumentType]
    split = tfds.core.SplitInfo(
        name=SPLIT, shard_lengths=list(shard_lengths), num_bytes=num_bytes, filename_template=template
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features(row_tokens), description=text)
    info.set_file_format(SUFFIX)
    info.set_splits(tfds.core.splits.SplitDict([split]))  # pyright: ignore[reportAttributeAccessIssue]
    info.write_to_directory(directory)


def shard_name(index: int, count: int) -> str:
    """File name of a shard, as TFDS has it."""
    return f"{NAME}-{SPLIT}.{SUFFIX}-{index:05d}-of-{count:05d}"
