"""Batches of packed rows whose order is a fact: step k of a run holds the same rows on any number of hosts.

In: a built folder, rows per step, seed, epochs, the loss reduction. Out: dicts of numpy arrays [B, T], for all rows of
a step or for those that a host's devices need. The only state is the number of the step.
`tokens`, `positions` and `segment_ids` are of the inputs; `targets`, `loss_weights` and `spans` are aligned with each
other: entry t is about the token after t, and weighs nothing where that belongs to another sample.
B: rows; T: tokens of a row.
"""

import io
import os
import pathlib
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from stratos_jax import store
from stratos_jax.shards import features, schedule, write
from stratos_jax.types import Manifest, UserError, raise_all

THREADS = AHEAD = 4  # that read steps, and steps read before they are asked for

Batch = dict[str, np.ndarray]


class Loss(Protocol):
    """What the loader needs of `train.config.LossConfig`."""

    @property
    def reduction(self) -> str: ...
    @property
    def ranks(self) -> int: ...
    @property
    def accumulation(self) -> int: ...


class Loader:
    """Random access to the steps of a run over one built folder."""

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        rows_per_step: int,
        seed: int,
        epochs: float,
        loss: Loss | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        held_out_fraction: float = 0.0,
        held_out: bool = False,
    ):
        """With `held_out_fraction`, that share of the rows is never trained on: it is what `held_out` reads."""
        self.directory, self.rows_per_step = directory, rows_per_step
        self.manifest = read_manifest(directory)
        self.folder = folder = local_copy(directory, self.manifest, cache_dir)
        self.row_tokens = int(self.manifest.counts["row_tokens"])
        self.table = np.load(io.BytesIO(store.read_bytes(folder / write.ROWS_TABLE)), allow_pickle=False)
        self._reduction = _check_settings(self.manifest, rows_per_step, epochs, loss)
        self._ranks = loss.ranks if loss is not None and self._reduction == "per_rank_token" else 1
        balanced = self.manifest.counts["balance_rows"] is not None
        self._rows, self._epochs = schedule.run_order(self.table, epochs, seed, rows_per_step, balanced=balanced)
        if held_out_fraction or held_out:
            kept = np.isin(self._rows, schedule.held_out(len(self.table), held_out_fraction, seed)) == held_out
            self._rows, self._epochs = self._rows[kept], self._epochs[kept]
        self._source = _open_shards(folder, self.manifest)
        features.prepare(self.row_tokens)

    @property
    def num_steps(self) -> int:
        """Steps of the run; the last one may end in padding rows."""
        return -(-len(self._rows) // self.rows_per_step)

    def counts(self) -> dict[str, int]:
        """What the run holds, padding included."""
        places = self.num_steps * self.rows_per_step
        real = int(self.table["tokens"][self._rows].sum())
        return {
            "steps": self.num_steps,
            "rows": len(self._rows),
            "padding_rows": places - len(self._rows),
            "real_tokens": real,
            "padding_tokens": places * self.row_tokens - real,
            "target_tokens": int(self.table["targets"][self._rows].sum()),
        }

    def rows_of(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(row, epoch) of each place of a step; -1 where the data has ended."""
        if not 0 <= step < self.num_steps:
            raise IndexError(f"step {step} of {self.num_steps}")
        places = slice(step * self.rows_per_step, (step + 1) * self.rows_per_step)
        rows, epochs = self._rows[places], self._epochs[places]
        missing = self.rows_per_step - len(rows)
        return np.pad(rows, (0, missing), constant_values=-1), np.pad(epochs, (0, missing), constant_values=-1)

    def samples(self, step: int) -> list[list[str]]:
        """Ids of the samples in each row of a step."""
        return [row["ids"] for row in self.read_rows(self.rows_of(step)[0].tolist())]

    def batch(self, step: int, rows: slice | Sequence[int] | None = None) -> Batch:
        """A step, or only the places `rows` of it; nothing else is read."""
        row_of, _ = self.rows_of(step)
        places = np.arange(self.rows_per_step)[slice(None) if rows is None else rows]
        read = self.read_rows(row_of[places].tolist())
        scale = self._scales(row_of)[places]
        return self._assemble(read, scale)

    def steps(
        self, start: int = 0, rows: slice | Sequence[int] | None = None, *, stop: int | None = None
    ) -> Iterator[Batch]:
        """Batches from step `start` on, read ahead by threads; an error is raised at the step where it happened."""
        import grain

        stop = self.num_steps if stop is None else min(stop, self.num_steps)
        if start >= stop:
            return
        dataset = grain.MapDataset.range(start, stop).map(lambda step: self.batch(int(step), rows))
        options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=AHEAD)
        yield from dataset.to_iter_dataset(options, allow_nones=True)

    def first_step(self, epoch: int) -> int:
        """The first step with a row of this epoch."""
        return int(np.argmax(self._epochs == epoch)) // self.rows_per_step

    def read_rows(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Rows by their number in the files; an empty row for -1."""
        wanted = [row for row in rows if row >= 0]
        try:
            records = iter(self._source.__getitems__(wanted) if wanted else [])
            return [
                features.decode_row(next(records), self.row_tokens)
                if row >= 0
                else features.make_row([], [], self.row_tokens)
                for row in rows
            ]
        except Exception as error:  # array_record raises what its C++ happens to; each means the same to a person
            raise UserError(
                "a shard cannot be read",
                where=self.directory,
                got=f"rows {wanted[:8]}: {type(error).__name__}: {str(error)[:200]}",
                do="`stratos verify DIR --deep` names the damaged file; build the shards again, or bring it back",
            ) from error

    def _scales(self, row_of: np.ndarray) -> np.ndarray:
        """The weight of each place's tokens (per sample for `sequence_mean`), about 1 on average."""
        scale = np.ones(len(row_of), np.float64)
        real = row_of >= 0
        targets = np.where(real, self.table["targets"][row_of], 0).astype(np.float64)
        if self._reduction == "per_rank_token":
            rank = np.arange(len(row_of)) % self._ranks
            of_rank = np.bincount(rank, targets, minlength=self._ranks)
            mean = targets.sum() / max(1, np.count_nonzero(of_rank))
            scale = mean / np.maximum(of_rank, 1)[rank]
        elif self._reduction == "sequence_mean":
            scored = np.where(real, self.table["scored"][row_of], 0).sum()
            scale[:] = targets.sum() / max(1, scored)
        return scale

    def _assemble(self, rows: Sequence[dict[str, Any]], scale_B: np.ndarray) -> Batch:
        column = lambda name: np.stack([row[name] for row in rows])
        tokens_BT, segment_ids_BT = column("tokens"), column("segment_ids")
        same_BT = (segment_ids_BT == _next(segment_ids_BT)) & (segment_ids_BT > 0)
        counted_BT = same_BT & (_next(column("loss_mask")) > 0)
        weights_BT = np.where(counted_BT, scale_B[:, None], 0.0)
        if self._reduction == "sequence_mean":
            weights_BT = _per_sample(weights_BT, counted_BT, segment_ids_BT)
        return {
            "tokens_BT": tokens_BT,
            "targets_BT": np.where(same_BT, _next(tokens_BT), 0),
            "positions_BT": column("positions"),
            "segment_ids_BT": segment_ids_BT,
            "loss_weights_BT": weights_BT.astype(np.float32),
            "spans_BT": np.where(same_BT, _next(column("spans")), 0).astype(np.int8),
        }


def read_manifest(directory: str | os.PathLike[str]) -> Manifest:
    """The manifest of a built folder whose files are all there."""
    manifest = store.manifest.read_manifest(directory)
    if manifest is None:
        raise UserError("no data set here", where=directory, do="`stratos shards build CONFIG` makes one")
    if manifest.stage != "shards":
        raise UserError("not a folder of shards", where=directory, got=f"the output of stage {manifest.stage!r}")
    raise_all(
        store.manifest.verify(directory),
        what="the data set is not as it was built",
        where=directory,
        do="bring the files back, or build the shards again",
    )
    return manifest


def any_rows_per_step(directory: str | os.PathLike[str]) -> int:
    """A number of rows per step that the folder takes, for those who only look at its rows."""
    return read_manifest(directory).counts["balance_rows"] or 1


def local_copy(
    directory: str | os.PathLike[str], manifest: Manifest, cache_dir: str | os.PathLike[str] | None
) -> pathlib.Path:
    """The folder itself, or for a bucket a local copy, checked against the manifest."""
    if not store.is_remote(directory):
        return pathlib.Path(directory)
    folder = pathlib.Path(cache_dir or tempfile.gettempdir()) / f"stratos_rows_{manifest.content_hash()[:16]}"
    if store.manifest.read_manifest(folder) is None:
        store.download_tree(os.fspath(directory), folder)
    raise_all(
        store.manifest.verify(folder), what="the local copy of the shards is damaged", where=folder, do="delete it"
    )
    return folder


def _open_shards(folder: pathlib.Path, manifest: Manifest) -> Any:
    import grain

    count = len(manifest.counts["shard_lengths"])
    paths = [os.fspath(folder / features.shard_name(index, count)) for index in range(count)]
    try:
        source = grain.sources.ArrayRecordDataSource(paths)
        found = len(source)  # pyright: ignore[reportArgumentType]
    except Exception as error:  # as above: whatever the C++ reader raises
        raise UserError(
            "a shard cannot be opened",
            where=folder,
            got=f"{type(error).__name__}: {str(error)[:200]}",
            do="`stratos verify DIR --deep` names the damaged file",
        ) from error
    wanted = sum(manifest.counts["shard_lengths"])
    if found != wanted:
        raise UserError("the shards hold another number of rows", where=folder, got=found, wanted=wanted)
    return source


def _check_settings(manifest: Manifest, rows_per_step: int, epochs: float, loss: Loss | None) -> str:
    balance, problems = manifest.counts["balance_rows"], []
    if rows_per_step < 1 or epochs <= 0:
        problems.append(f"rows_per_step {rows_per_step} and epochs {epochs} must be above 0")
    if balance is not None and balance != rows_per_step:
        problems.append(f"the shards balance steps of {balance} rows (shards.balance_rows), not of {rows_per_step}")
    if loss is not None and loss.reduction == "per_rank_token" and loss.ranks * loss.accumulation != rows_per_step:
        problems.append(
            f"per_rank_token: {loss.ranks} ranks x {loss.accumulation} rows are {loss.ranks * loss.accumulation}, "
            f"but a step has {rows_per_step}"
        )
    raise_all(problems, what="the shards cannot be read this way")
    return "global_token" if loss is None else loss.reduction


def _next(x_BT: np.ndarray) -> np.ndarray:
    """Each entry's successor in its row; 0 after the last."""
    return np.concatenate([x_BT[:, 1:], np.zeros_like(x_BT[:, :1])], axis=1)


def _per_sample(weights_BT: np.ndarray, counted_BT: np.ndarray, segment_ids_BT: np.ndarray) -> np.ndarray:
    """Divide by the number of targets of each token's sample."""
    most = int(segment_ids_BT.max()) + 1
    flat = segment_ids_BT + most * np.arange(len(segment_ids_BT))[:, None]
    targets = np.bincount(flat.ravel(), counted_BT.ravel(), minlength=most * len(segment_ids_BT))
    return weights_BT / np.maximum(targets, 1)[flat]
