"""The processes of one run: how they find each other, meet, and tell who is missing.

In: where the run takes place. Out: `Hosts`, whose barriers have names and time-outs. The table behind barriers,
heartbeats and notices is the coordination service of `jax.distributed`, which lives in process 0.
"""

import dataclasses
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from stratos_jax.types import UserError

T = TypeVar("T")
LOST_PEER = (
    "Gloo",
    "gloo",
    "Connection reset",
    "Connection closed",
    "coordination",
    "UNAVAILABLE",
    "DEADLINE_EXCEEDED",
)
RERUN = 42  # exit code: stopped early, safe to run again


class HostsMissing(Exception):
    """Some hosts did not come; the run ends with exit code 42."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rendezvous:
    """Where plain processes meet; TPU VM, GKE and Slurm tell by themselves."""

    coordinator: str  # address:port of process 0
    num_hosts: int
    host: int


class Hosts:
    """This process among the processes of the run."""

    def __init__(self, client: Any = None, index: int = 0, count: int = 1):
        self._client, self.index, self.count = client, index, count
        self._generation: dict[str, int] = {}

    @property
    def is_primary(self) -> bool:
        """Whether this process writes what is written once."""
        return self.index == 0

    def put(self, key: str, value: Any) -> None:
        """Write JSON to the table; overwrites."""
        if self._client is not None:
            self._client.key_value_set(f"stratos/{key}", json.dumps(value), allow_overwrite=True)

    def read_all(self, prefix: str) -> dict[str, Any]:
        """All entries below a prefix, by what follows it."""
        if self._client is None:
            return {}
        entries = self._client.key_value_dir_get(f"stratos/{prefix}/")
        return {key.rsplit("/", 1)[1]: json.loads(value) for key, value in entries}

    def gather(self, name: str, value: Any, seconds: float) -> list[Any]:
        """Every host's value, in order of hosts; `HostsMissing` names those that do not come in time."""
        if self.count == 1:
            return [value]
        turn = self._generation[name] = self._generation.get(name, -1) + 1
        self.put(f"meet/{name}/{turn}/{self.index}", value)
        deadline = time.monotonic() + seconds
        while True:
            arrived = self.read_all(f"meet/{name}/{turn}")
            if len(arrived) == self.count:
                return [arrived[str(i)] for i in range(self.count)]
            if time.monotonic() > deadline:
                missing = [i for i in range(self.count) if str(i) not in arrived]
                raise HostsMissing(f"barrier {name!r}: no word from host {_list(missing)} within {seconds:g} s")
            time.sleep(0.05)

    def leave(self) -> None:
        """The end: waits for nobody who is gone."""
        if self._client is not None:
            import jax

            jax.distributed.shutdown()

    def barrier(self, name: str, seconds: float) -> None:
        """Until all hosts are here."""
        self.gather(name, None, seconds)


def _list(hosts: list[int]) -> str:
    return ", ".join(map(str, hosts))


def start(rendezvous: Rendezvous | None = None, *, seconds: float = 600.0, silence: float = 100.0) -> Hosts:
    """Join the run's other processes, if there are any; call before jax touches a device.

    `silence`: after so long without a sign of life the coordination service ends the run.
    """
    if rendezvous is None and not on_cluster(os.environ):
        return Hosts()
    import jax

    # SIGTERM is ours: the loop saves and exits. jax's own notifier would take the signal away.
    jax.config.update("jax_enable_preemption_service", False)
    arguments: dict[str, Any] = {"initialization_timeout": int(seconds), "heartbeat_timeout_seconds": int(silence)}
    if rendezvous is not None:
        arguments |= {
            "coordinator_address": rendezvous.coordinator,
            "num_processes": rendezvous.num_hosts,
            "process_id": rendezvous.host,
        }
    try:
        jax.distributed.initialize(**arguments)
    except RuntimeError as error:
        raise HostsMissing(f"not all hosts came within {seconds:g} s: {str(error)[:500]}") from error
    from jax._src import distributed

    state = distributed.global_state
    return Hosts(state.client, state.process_id or 0, state.num_processes or 1)


def on_cluster(environment: Mapping[str, str]) -> bool:
    """Whether jax can find the other processes by itself: several tasks of Slurm, several TPU workers."""
    slurm = int(environment.get("SLURM_NTASKS", "1")) > 1 and "SLURM_PROCID" in environment
    workers = environment.get("TPU_WORKER_HOSTNAMES", "")
    tpu_vm = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0")
    return slurm or "," in workers or (tpu_vm and "TPU_SKIP_MDS_QUERY" not in environment and not workers)


def preflight(hosts: Hosts, facts: Mapping[str, Any], checks: Mapping[str, Callable[[], Any]], seconds: float) -> None:
    """Refuse to start hosts that differ; `facts` must be equal everywhere, `checks` must not raise anywhere."""
    problems = []
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            problems.append(f"host {hosts.index}: {name}: {type(error).__name__}: {str(error)[:300]}")
    everyone = hosts.gather("preflight", {"facts": dict(facts), "problems": problems, "clock": time.time()}, seconds)
    found = [problem for one in everyone for problem in one["problems"]]
    for name in facts:
        values = [one["facts"][name] for one in everyone]
        if any(value != values[0] for value in values):
            found.append(f"{name} differs: " + ", ".join(f"host {i}: {value}" for i, value in enumerate(values)))
    clocks = [one["clock"] for one in everyone]
    if max(clocks) - min(clocks) > seconds + 60:
        found.append(f"clocks differ by {max(clocks) - min(clocks):.0f} s")
    if found:
        listing = "".join(f"\n    - {problem}" for problem in found)
        raise UserError(f"the hosts are not ready{listing}", do="install the same code and config on all hosts")


def guard(hosts: Hosts, body: Callable[[], T], *, early: type[Exception]) -> T:
    """Run a part of a run; whatever ends it ends this process, with an exit code, and never waits for other hosts.

    0 done; 2 something that the user can mend; 42 stopped early or a host was lost: the same command goes on.
    """
    try:
        result = body()
        hosts.leave()
        return result
    except (early, HostsMissing) as error:
        code, text = RERUN, str(error)
    except UserError as error:
        code, text = 2, f"error: {error}"
    except Exception as error:
        if hosts.count == 1:
            raise
        # A collective fails on all hosts when one dies; only the one that is at fault says more than that.
        lost = any(sign in str(error) for sign in LOST_PEER)
        code, text = (RERUN, f"host {hosts.index}: another host was lost: {str(error)[:300]}") if lost else (1, "")
        if not lost:
            traceback.print_exc()
    print(text, file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(code)  # the ordinary way out waits for the other hosts
