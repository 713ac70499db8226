"""The same graders on a Ray cluster: batches out, verdicts back in input order.

In: as `grading.grade`, and a cluster's address (`ray://host:port`, `host:port`, `auto`); None starts Ray here.
Out: the verdicts that the local backend gives. At most a few batches per worker are out or waiting for the reader;
a batch whose node or process died is sent again; when the reader goes away, what is still out is cancelled.
Every node needs this package, in this version, installed.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stratos_jax import __version__, grading
from stratos_jax.grading.config import GradingConfig
from stratos_jax.types import UserError, Verdict

AHEAD = 3  # batches in flight or waiting for the reader, per worker
ATTEMPTS = 5  # of one batch, before its verdicts are unknown
POLL_S = 1.0
OBJECT_STORE_BYTES = 100 << 20  # of a Ray that is started here; records and verdicts are small


def grade(
    kind: str,
    records: Iterable[Mapping[str, Any]],
    config: GradingConfig | None = None,
    workers: int = 1,
    *,
    address: str | None = None,
    batch_size: int = 32,
) -> Iterator[Verdict]:
    """Grade with up to `workers` batches at once, each on one core anywhere in the cluster."""
    ray = connect(address, workers)
    remote = ray.remote(num_cpus=1, max_retries=0)(grade_batch)  # what died is counted and sent again here
    config = config or GradingConfig()
    send = lambda batch: remote.remote(kind, batch, config, __version__)
    supply = iter(lambda: list(itertools.islice(source, batch_size)), [])
    source = iter(records)
    out: dict[Any, tuple[int, list[Mapping[str, Any]], int]] = {}  # ref -> (place, batch, attempt)
    done: dict[int, list[Verdict]] = {}
    sent = given = 0
    try:
        while True:
            while len(out) < workers and len(out) + len(done) < AHEAD * workers and (batch := next(supply, None)):
                out[send(batch)] = (sent, batch, 1)
                sent += 1
            while given in done:
                yield from done.pop(given)
                given += 1
            if not out and given == sent:
                return
            if out:
                ready, _ = ray.wait(list(out), num_returns=1, timeout=POLL_S)
                for ref in ready:
                    place, batch, attempt = out.pop(ref)
                    verdicts = fetch(ray, ref)
                    if verdicts is None and attempt < ATTEMPTS:
                        out[send(batch)] = (place, batch, attempt + 1)
                    else:
                        done[place] = verdicts or [given_up(record) for record in batch]
    finally:
        for ref in out:
            ray.cancel(ref, force=True)


def connect(address: str | None, workers: int) -> Any:
    """The ray module, connected; a cluster that is already joined is used as it is."""
    try:
        import ray
    except ImportError as error:
        raise UserError("ray is not installed", do="pip install 'stratos_jax[curate]'") from error
    if ray.is_initialized():
        return ray
    try:
        if address:
            ray.init(address=address, log_to_driver=False)
        else:
            ray.init(
                num_cpus=workers,
                include_dashboard=False,
                log_to_driver=False,
                object_store_memory=OBJECT_STORE_BYTES,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise UserError(f"no Ray cluster to be reached: {error}", where=address) from error
    return ray


def grade_batch(kind: str, batch: list[Mapping[str, Any]], config: GradingConfig, version: str) -> list[Verdict]:
    """On a worker: the local backend, with one worker of its own."""
    if version != __version__:
        raise UserError("a node has another version of stratos_jax", got=__version__, wanted=version)
    return list(grading.grade(kind, batch, config, 1))


def fetch(ray: Any, ref: Any) -> list[Verdict] | None:
    """The verdicts of a batch; None where the process or node that graded it died; what a grader raised is raised."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        raise (error.cause if isinstance(error.cause, UserError) else error) from None
    except ray.exceptions.RayError:
        return None


def given_up(record: Mapping[str, Any]) -> Verdict:
    """Nobody is wrong for the cluster's faults."""
    return Verdict(id=str(record.get("id", "")), outcome="unknown", reason="unknown.infra")
