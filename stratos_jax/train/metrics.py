"""Figures of each step, taken from the device when they are ready, and written where they are wanted.

In: the step's metrics as device arrays. Out: one JSON object a step in `metrics.jsonl` (always), TensorBoard and
Weights & Biases where they are installed and wanted. The device is never waited for: a step's figures are read when it
is `LAG` steps behind.
"""

import collections
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.store.jsonl import JsonlAppender
from stratos_jax.types import Json, UserError

WINDOW = 8  # steps that a rate is taken over
LAG = 2  # steps that may be under way; at least one keeps the device busy while the host reads
Record = dict[str, Json]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """What turns a step's sums into rates."""

    flops: Callable[[float, float], float]  # (real tokens, attended pairs) -> FLOPs of the step
    peak_flops: float | None  # of all devices
    memory: Callable[[], float | None]  # GiB in use on the fullest device at most so far


class Recorder:
    """Holds the metrics of steps under way, and hands out records in order."""

    def __init__(self, rates: Rates, leaf_names: Sequence[str]):
        self._rates, self._leaf_names = rates, leaf_names
        self._pending: collections.deque[tuple[int, Mapping[str, Any]]] = collections.deque()
        self._window: collections.deque[tuple[float, float, float]] = collections.deque(maxlen=WINDOW + 1)

    def push(self, step: int, metrics: Mapping[str, Any]) -> list[Record]:
        """Take a step's metrics; returns the records of steps that are due."""
        for value in metrics.values():
            value.copy_to_host_async()
        self._pending.append((step, metrics))
        return [self._finish() for _ in range(len(self._pending) - LAG)]

    def drain(self) -> list[Record]:
        """Wait for all steps."""
        return [self._finish() for _ in range(len(self._pending))]

    def restart_clock(self) -> None:
        """Leave the time since the last step out of the rates: something else was done in it."""
        self._window.clear()

    def _finish(self) -> Record:
        step, metrics = self._pending.popleft()
        values = {name: np.asarray(value) for name, value in metrics.items()}
        norms = values.pop("leaf_norms")
        record: Record = {"step": step, **{name: _plain(value) for name, value in values.items() if value.ndim == 0}}
        record["bad_leaves"] = [name for name, norm in zip(self._leaf_names, norms) if not math.isfinite(norm)]
        record |= self._rate(float(values["tokens"]), float(values["pairs"]))
        record["memory_gib"] = self._rates.memory()
        return {name: value for name, value in record.items() if value is not None and value != []}

    def _rate(self, tokens: float, pairs: float) -> Record:
        """Seconds of a step, tokens a second and MFU, over the last few steps."""
        self._window.append((time.monotonic(), tokens, self._rates.flops(tokens, pairs)))
        steps = len(self._window) - 1
        seconds = self._window[-1][0] - self._window[0][0]
        if steps < 2 or seconds <= 0:
            return {}
        tokens, flops = (sum(entry[i] for entry in list(self._window)[1:]) for i in (1, 2))
        rate: Record = {"seconds": seconds / steps, "tokens_per_second": tokens / seconds}
        if self._rates.peak_flops:
            rate["mfu"] = flops / seconds / self._rates.peak_flops
        return rate


def _plain(value: np.ndarray) -> Json:
    """A number as JSON has it; what is not finite (a mean over nothing, say) is left out."""
    if value.dtype == bool:
        return bool(value)
    number = float(value)
    return number if math.isfinite(number) else None


def check_record(record: Record, policy: str, samples: Callable[[int], Any]) -> str | None:
    """None for a good step; else what is wrong with it, raised where the policy is to stop."""
    if record["finite"] and not record["spike"]:
        return None
    kind = "a loss far above its running mean" if record["finite"] else "a loss or gradient that is not finite"
    leaves = record.get("bad_leaves", [])
    got = f"loss {record.get('loss', 'nan')}, gradient norm {record.get('grad_norm', 'nan')}"
    if leaves:
        got += f", in {', '.join(leaves[:4])}{f' and {len(leaves) - 4} more' if len(leaves) > 4 else ''}"
    ids = [sample for row in samples(record["step"] - 1) for sample in row]
    where = f"step {record['step']}, samples {', '.join(ids[:16])}{' ...' if len(ids) > 16 else ''}"
    if policy == "skip":
        return f"{kind} at {where}: {got}; the step was skipped"
    raise UserError(
        kind,
        where=where,
        got=got,
        do='look at these samples; train.on_bad_step="skip" leaves such steps out. The weights are those before it',
    )


class Sinks:
    """Where records go; only the primary host has any."""

    def __init__(self, directory: pathlib.Path, start: int, wanted: Sequence[str], name: str, config: Json):
        self._jsonl = reopen(directory / METRICS, start)
        self._board = self._wandb = None
        if "tensorboard" in wanted:
            self._board = _need("tensorboardX", "tensorboard").SummaryWriter(
                str(directory / "tensorboard"), purge_step=start
            )
        if "wandb" in wanted:
            self._wandb = _need("wandb", "wandb").init(name=name, config=config, dir=str(directory), resume="allow")

    def write(self, record: Record) -> None:
        """One step everywhere."""
        self._jsonl.append(record)
        numbers = {k: v for k, v in record.items() if isinstance(v, (int, float)) and k != "step"}
        if self._board is not None:
            for name, value in numbers.items():
                self._board.add_scalar(name, value, record["step"])
        if self._wandb is not None:
            self._wandb.log(numbers, step=record["step"])

    def close(self) -> None:
        """Flush all."""
        self._jsonl.close()
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


METRICS = "metrics.jsonl"


def put(scratch: pathlib.Path, directory: str) -> None:
    """The records so far, beside the checkpoint that comes next: another machine may go on from there."""
    if store.is_remote(directory):
        store.write_bytes(store.join(directory, METRICS), (scratch / METRICS).read_bytes())


def fetch(directory: str, scratch: pathlib.Path) -> None:
    """The records that belong to the newest checkpoint, in place of whatever an earlier try left on this machine."""
    url = store.join(directory, METRICS)
    if store.is_remote(directory) and store.exists(url):
        store.write_bytes(scratch / METRICS, store.read_bytes(url))


def reopen(path: pathlib.Path, start: int) -> JsonlAppender:
    """The metrics file, without the steps that will be done again."""
    if path.exists():
        JsonlAppender(path).close()  # mends a torn last line
        kept = [record for _, record in store.jsonl.read_jsonl(path) if record["step"] <= start]
        store.jsonl.write_jsonl(path, kept)
    return JsonlAppender(path)


def _need(module: str, sink: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(
            f"{module} is not installed", where=f"train.sinks: {sink}", do=f"pip install {module}"
        ) from None
