"""Files, wherever they are: local paths and gs:// URLs through one set of functions; manifests, JSONL, ArrayRecord.

In: `str` or `Path`. Out: bytes, records, `Stat`s and `Manifest`s. The only room that knows gs://; imports no jax.
"""

from stratos_jax.store import arrayrecord, jsonl, manifest, stage
from stratos_jax.store.errors import AlreadyExists, Missing
from stratos_jax.store.files import (
    delete_tree,
    exists,
    is_remote,
    join,
    list_files,
    open_read,
    read_bytes,
    read_text,
    stat,
    write_bytes,
    write_text,
)
from stratos_jax.store.local import atomic_path
from stratos_jax.store.names import Stat, Url
from stratos_jax.store.transfer import download_tree, upload_file, upload_tree

__all__ = [
    "AlreadyExists",
    "Missing",
    "Stat",
    "Url",
    "arrayrecord",
    "atomic_path",
    "delete_tree",
    "download_tree",
    "exists",
    "is_remote",
    "join",
    "jsonl",
    "list_files",
    "manifest",
    "open_read",
    "read_bytes",
    "read_text",
    "stage",
    "stat",
    "upload_file",
    "upload_tree",
    "write_bytes",
    "write_text",
]
