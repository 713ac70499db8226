"""Saves a tree of arrays step by step, keeps the ones that are to be kept, and restores the newest that verifies.

In: trees (any pytree of arrays) and JSON metadata. Out: folders `<directory>/<step>/`, and the same trees on any mesh.
A save ends in the background; a restore says in its metadata which newer steps it passed over and why.
"""

import concurrent.futures
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from stratos_jax.checkpoint import folders, hosts, orbax
from stratos_jax.checkpoint.digest import digest_tree, text, words_of
from stratos_jax.checkpoint.folders import step_url
from stratos_jax.checkpoint.integrity import (
    Damaged,
    Integrity,
    Leaf,
    file_problems,
    list_files,
    paths_of,
    read_integrity,
    write_integrity,
)
from stratos_jax.store import Url
from stratos_jax.types import Json, UserError, raise_all

log = logging.getLogger(__name__)


class Checkpointer:
    """One run's checkpoints; one save at a time is under way."""

    def __init__(
        self,
        directory: Url,
        *,
        keep_last: int | None = None,
        keep_every_steps: int | None = None,
        grace_seconds: float | None = None,
        warn: Callable[[str], None] = log.warning,
    ):
        self.directory = str(directory)
        self.keep_last, self.keep_every_steps = keep_last, keep_every_steps
        self.grace_seconds, self.warn = grace_seconds, warn
        self.last_seconds: float | None = None  # how long the last save took
        self._last_start: float | None = None
        self._pending: concurrent.futures.Future | None = None
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def save(self, step: int, tree: Any, metadata: Mapping[str, Json] | None = None) -> None:
        """Start to save; waits for the save before this one, and raises what went wrong with it."""
        self.wait()
        start = time.monotonic()
        self._check_interval(start)
        leaves = dict(zip(paths_of(tree), _leaves(tree), strict=True))
        if hosts.is_primary():
            for name in folders.unfinished(self.directory):
                folders.remove(self.directory, name)
        digests = _digests(list(leaves.values()))
        response = orbax.save_async(step_url(self.directory, step), leaves)
        self._pending = self._thread.submit(self._finish, step, leaves_of(leaves), digests, response, metadata, start)

    def wait(self) -> None:
        """Until the last save stands; raises what went wrong with it."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and stop the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()

    def __enter__(self) -> "Checkpointer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _finish(self, step: int, leaves: list[tuple], digests: list, response: Any, metadata: Any, start: float):
        with orbax.user_errors(step_url(self.directory, step)):
            response.result()
        records = tuple(
            Leaf(path=path, shape=shape, dtype=dtype, digest=text(words))
            for (path, shape, dtype), words in zip(leaves, digests, strict=True)
        )
        if hosts.is_primary():
            seconds = time.monotonic() - start
            files = list_files(self.directory, step)
            record = Integrity(step=step, leaves=records, files=files, metadata=dict(metadata or {}), seconds=seconds)
            write_integrity(self.directory, record)
            self._retain()
        self.last_seconds = time.monotonic() - start
        if self.grace_seconds is not None and self.last_seconds > self.grace_seconds:
            self.warn(
                f"saving step {step} took {self.last_seconds:.1f} s, longer than the {self.grace_seconds:g} s that a "
                "preempted host may live: a preemption will fall back to the last regular checkpoint"
            )

    def _check_interval(self, start: float) -> None:
        if self._last_start is not None and self.last_seconds is not None:
            interval = start - self._last_start
            if self.last_seconds > 0.9 * interval:
                self.warn(
                    f"a save takes {self.last_seconds:.1f} s and one starts every {interval:.1f} s: training waits for "
                    "checkpoints; save less often"
                )
        self._last_start = start

    def _retain(self) -> None:
        if self.keep_last is None:
            return
        for step in folders.steps(self.directory)[: -self.keep_last]:
            if not self.keep_every_steps or step % self.keep_every_steps:
                folders.remove(self.directory, str(step))


def save(directory: Url, step: int, tree: Any, metadata: Mapping[str, Json] | None = None) -> None:
    """Save one step and wait until it stands."""
    with Checkpointer(directory) as checkpointer:
        checkpointer.save(step, tree, metadata)


def restore(
    directory: Url, abstract: Any, step: int | None = None, *, warn: Callable[[str], None] = log.warning
) -> tuple[Any, dict[str, Json]]:
    """A tree shaped and sharded as `abstract`, and its metadata with "step" and "passed_over" (step -> why).

    Without `step`, the newest one that verifies; with it, that one or an error. `abstract` may be a part of what was
    saved. A checkpoint of another model is an error, never passed over.
    """
    chosen = hosts.same_everywhere(folders.steps(directory)[::-1] if step is None else [step])
    if not chosen:
        raise UserError(
            "no checkpoint here", where=directory, do="check the path; a step is a folder named by its number"
        )
    passed_over: dict[str, str] = {}
    for candidate in chosen:
        try:
            tree, integrity = _restore_step(directory, candidate, abstract)
        except Damaged as error:
            if step is not None:
                raise
            passed_over[str(candidate)] = str(error)
            warn(f"step {candidate} is passed over: {error}")
            continue
        return tree, {**integrity.metadata, "step": candidate, "passed_over": passed_over}
    reasons = [f"step {number}: {reason}" for number, reason in passed_over.items()]
    raise_all(reasons, what="no checkpoint verifies", where=directory, do="restore the folder from a copy")
    raise AssertionError


def _restore_step(directory: Url, step: int, abstract: Any) -> tuple[Any, Integrity]:
    url = step_url(directory, step)
    with hosts.together(url):
        integrity = read_integrity(directory, step)
        check_same_model(integrity, abstract, where=url)
        if problems := file_problems(directory, integrity):
            raise Damaged("files are not what was saved: " + "; ".join(problems), where=url)
    with hosts.together(url):
        return _load(url, integrity, abstract), integrity


def _load(url: str, integrity: Integrity, abstract: Any) -> Any:
    """Read the leaves, and digest them where they lie now."""
    import jax

    leaves, structure = jax.tree.flatten(abstract)
    wanted = dict(zip(paths_of(abstract), map(_with_sharding, leaves), strict=True))
    with orbax.damage_as(Damaged, "the step", url):
        loaded = orbax.load(url, wanted)
    arrays: list[Any] = [loaded.get(path) for path in wanted]
    for (path, leaf), array in zip(wanted.items(), arrays, strict=True):
        if not isinstance(array, jax.Array) or (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise Damaged(f"{path} is not what was saved", where=url, got=getattr(array, "shape", array))
    for path, words in zip(wanted, _digests(arrays), strict=True):
        if text(words) != integrity.leaf(path).digest:
            raise Damaged(
                f"{path} is not what was saved", where=url, got=text(words), wanted=integrity.leaf(path).digest
            )
    return jax.tree.unflatten(structure, arrays)


def check_same_model(integrity: Integrity, abstract: Any, where: str) -> None:
    """Refuse a checkpoint whose leaves are not the wanted ones; all differences at once."""
    import jax

    stored = {leaf.path: leaf for leaf in integrity.leaves}
    problems = []
    for path, leaf in zip(paths_of(abstract), jax.tree.leaves(abstract), strict=True):
        found = stored.get(path)
        if found is None:
            problems.append(f"{path}: not in the checkpoint")
        elif (found.shape, found.dtype) != (tuple(leaf.shape), str(leaf.dtype)):
            problems.append(
                f"{path}: {found.dtype}{list(found.shape)} in the checkpoint, {leaf.dtype}{list(leaf.shape)} wanted"
            )
    raise_all(
        problems, what="a checkpoint of another model", where=where, do="give the config that it was trained with"
    )


def _with_sharding(leaf: Any) -> Any:
    import jax

    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def leaves_of(leaves: Mapping[str, Any]) -> list[tuple]:
    """Path, shape and number format of each leaf."""
    return [(path, tuple(leaf.shape), str(leaf.dtype)) for path, leaf in leaves.items()]


def _leaves(tree: Any) -> list[Any]:
    import jax
    import numpy as np

    return [leaf if isinstance(leaf, jax.Array) else np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def _digests(leaves: list[Any]) -> list[Any]:
    """Digests of all leaves; of those on devices still under way when this returns."""
    import jax

    on_device = [i for i, leaf in enumerate(leaves) if isinstance(leaf, jax.Array)]
    digests = {i: words_of(leaf) for i, leaf in enumerate(leaves) if i not in set(on_device)}
    digests |= dict(zip(on_device, digest_tree([leaves[i] for i in on_device]), strict=True))
    return [digests[i] for i in range(len(leaves))]
