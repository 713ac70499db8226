"""The only module that calls Orbax: writes a tree of named leaves, reads it back on any sharding.

In: `{"params/embed": array}`. Out: an Orbax v1 checkpoint of plain nested dicts, which any other reader of Orbax opens,
in chunks of one layer so that a part can be read by itself.
"""

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from typing import Any

from stratos_jax import store
from stratos_jax.types import UserError

CHUNK_BYTES = 64 << 20
ITEM = "state"  # the checkpoint's only item
CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}]  # weights hardly compress
REFUSALS = {
    "no space left": ("no space left for the checkpoint", "free some space; the last saved step is untouched"),
    "disk quota": ("the disk quota is used up", "free some space; the last saved step is untouched"),
    "file too large": ("the file is larger than this process may write", "raise the limit (`ulimit -f`)"),
    "permission denied": ("no permission to write the checkpoint", "change the folder's owner or mode"),
    **dict.fromkeys(
        ("permission_denied", "forbidden", "unauthenticated", "unauthorized"),
        ("no permission for the bucket", "grant this account object access to the bucket"),
    ),
    "read-only file system": ("the disk is read-only", "write somewhere else"),
}
UNREACHABLE = (
    *("UNAVAILABLE", "DEADLINE_EXCEEDED", "PERMISSION_DENIED", "PERMISSION DENIED"),
    *("UNAUTHENTICATED", "UNAUTHORIZED", "FORBIDDEN"),
)


def save_async(url: str, leaves: Mapping[str, Any]) -> Any:
    """Start to write; arrays may be changed or donated once this returns. `.result()` waits for the rest."""
    ocp = _orbax()
    with user_errors(url), _context(ocp):
        return ocp.save_async(_absolute(url), nest(leaves), overwrite=True)


def load(url: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Read leaves (`jax.ShapeDtypeStruct` with a sharding) out of a checkpoint that may have others besides."""
    ocp = _orbax()
    context = _context(ocp)
    context.pytree.loading.partial_load = True
    with context:
        return flatten(ocp.load(_absolute(url), nest(wanted)))


def open_array(url: str, path: str) -> Any:
    """One leaf as an open TensorStore array; a part of it is read by indexing."""
    import tensorstore

    return tensorstore.open({"driver": "zarr3", "kvstore": _storage(url, path)}, open=True, read=True).result()


def save_places(url: str, dtypes: Mapping[str, Any]) -> None:
    """A checkpoint whose leaves are only named yet; `create_array` gives them their shapes."""
    import jax.numpy as jnp

    ocp = _orbax()
    context = _context(ocp)
    context.array.saving.array_metadata_store = None  # it would tell of the shapes that are replaced
    with user_errors(url), context:
        ocp.save(_absolute(url), nest({path: jnp.zeros(1, dtype) for path, dtype in dtypes.items()}), overwrite=True)


def create_array(url: str, path: str, shape: tuple[int, ...], dtype: Any, chunk: tuple[int, ...]) -> Any:
    """One leaf of `save_places` at its final shape, as an open TensorStore array to write to."""
    import tensorstore

    grid = {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}
    metadata = {"shape": list(shape), "data_type": str(dtype), "chunk_grid": grid, "codecs": CODECS}
    spec = {"driver": "zarr3", "kvstore": _storage(url, path), "metadata": metadata}
    spec["store_data_equal_to_fill_value"] = True
    return tensorstore.open(spec, create=True, delete_existing=True).result()


def nest(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """`{"a/b": x}` as `{"a": {"b": x}}`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *folders, name = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[name] = leaf
    return tree


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The inverse of `nest`."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= flatten(value, f"{prefix}{key}/") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


@contextlib.contextmanager
def user_errors(url: str) -> Iterator[None]:
    """Say a full disk, a missing permission or an unreachable bucket in one sentence."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        said = str(error).lower()
        for sign, (what, do) in REFUSALS.items():
            if sign in said:
                raise UserError(what, where=url, got=str(error).strip().splitlines()[0][:300], do=do) from error
        raise


@contextlib.contextmanager
def damage_as(kind: type[UserError], what: str, url: str) -> Iterator[None]:
    """Say that stored data cannot be read; a store that does not answer is not damage."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:  # damaged metadata make Orbax fail in any way
        if "RESOURCE_EXHAUSTED" in str(error):
            raise
        said = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
        if any(sign in said.upper() for sign in UNREACHABLE):
            do = "run the same command again once the store answers"
            raise UserError(f"{what} cannot be read now", where=url, got=said, do=do) from error
        raise kind(f"{what} cannot be read", where=url, got=said) from error


def _storage(url: str, path: str) -> dict[str, str]:
    root = store.join(_absolute(url), ITEM) + "/"
    base = root if store.is_remote(url) else f"file://{root}"
    return {"driver": "ocdbt", "base": base, "path": path.replace("/", ".") + "/"}


def _orbax() -> Any:
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # it prints a traceback per thread of what it also raises
    from orbax.checkpoint import v1 as ocp

    return ocp


def _context(ocp: Any) -> Any:
    context = ocp.Context()
    options = ocp.options.ArrayOptions.Saving.StorageOptions(chunk_byte_size=CHUNK_BYTES, shard_axes=(0,))
    context.array.saving.scoped_storage_options_creator = lambda _, leaf: options if leaf.ndim > 1 else None
    return context


def _absolute(url: str) -> str:
    if not store.is_remote(url):
        return os.path.abspath(url)
    import fsspec.config

    # The listing cache of gcsfs never expires: a reader would not see the steps that others save.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    return url
