"""Barriers that name who is missing, a watchdog that ends a run, one step at which all preempted hosts stop."""

import threading
import time

import pytest

from stratos_jax.mesh.alive import Alive
from stratos_jax.mesh.hosts import RERUN, Hosts, HostsMissing, guard, on_cluster, preflight
from stratos_jax.types import UserError


class Table:
    """The coordination service's table, in this process."""

    def __init__(self):
        self.entries = {}

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.entries
        self.entries[key] = value

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in list(self.entries.items()) if key.startswith(prefix)]


def hosts(count):
    table = Table()
    return [Hosts(table, index, count) for index in range(count)]


def together(actions):
    """Run one action per host at once; what each returned or raised."""
    results = [None] * len(actions)

    def run(index):
        try:
            results[index] = actions[index]()
        except Exception as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(actions))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return results


def test_a_barrier_names_who_is_missing():
    first, second, third = hosts(3)
    found = together([lambda: first.barrier("restored", 0.3), lambda: third.barrier("restored", 0.3)])
    assert all(isinstance(error, HostsMissing) for error in found)
    assert str(found[0]) == "barrier 'restored': no word from host 1 within 0.3 s"


def test_hosts_meet_again_and_again_under_one_name():
    pair = hosts(2)
    for turn in range(3):
        found = together([lambda host=host, turn=turn: host.gather("step", host.index + turn, 5.0) for host in pair])
        assert found == [[turn, turn + 1]] * 2


def test_preflight_names_every_difference_on_every_host():
    pair = hosts(2)
    facts = lambda host: {"jax": "0.10.2", "recipe": f"hash {host.index}"}

    def refuse():
        raise PermissionError("bucket")

    checks = lambda host: {"the run folder cannot be written": refuse} if host.index else {}
    found = together([lambda host=host: preflight(host, facts(host), checks(host), 5.0) for host in pair])
    for error in found:
        assert isinstance(error, UserError)
        assert "recipe differs: host 0: hash 0, host 1: hash 1" in str(error)
        assert "host 1: the run folder cannot be written: PermissionError: bucket" in str(error)


def alive(host, **changes):
    said, codes = [], []
    watch = Alive(
        host,
        **{"watchdog_seconds": 60.0, "barrier_seconds": 5.0, "period": 0.02, **changes},
        say=said.append,
        leave=codes.append,
    )
    return watch, said, codes


def test_a_run_without_progress_ends_with_42_and_names_the_host_that_is_behind(capfd):
    first, second = hosts(2)
    (mine, said, codes), (theirs, _, _) = alive(first, watchdog_seconds=0.5), alive(second)
    with theirs, mine:
        mine.step(7)
        theirs.step(5)
        time.sleep(1.0)
    assert codes == [RERUN]
    assert "no progress" in said[0] and "host 1 at step 5 of 7" in said[0]


def test_a_run_with_progress_is_left_alone():
    watch, said, codes = alive(Hosts(), watchdog_seconds=0.4)
    with watch:
        for step in range(8):
            watch.step(step)
            time.sleep(0.1)
    assert not said and not codes


def test_all_preempted_hosts_stop_after_the_same_step():
    watches = [alive(host)[0] for host in hosts(2)]

    def loop(watch, pace):
        with watch:
            watch.phase("train")
            for step in range(1, 1000):
                time.sleep(pace)
                watch.step(step)
                if watch.should_stop(step):
                    return step
        return None

    def preempt():
        time.sleep(0.3)
        watches[1].hosts.put("notice/1", 0)

    *stopped, _ = together([lambda: loop(watches[0], 0.01), lambda: loop(watches[1], 0.02), preempt])
    assert stopped[0] == stopped[1] is not None


def test_a_phase_with_nothing_to_save_is_left_at_once():
    watch, said, codes = alive(hosts(1)[0])
    with watch:
        watch.phase("compile", interruptible=True)
        watch.hosts.put("notice/0", 0)
        time.sleep(0.3)
    assert codes[0] == RERUN and "nothing to save" in said[0]


def test_stragglers_are_named():
    trio = [alive(host)[0] for host in hosts(3)]
    with trio[0], trio[1], trio[2]:
        for watch, wait in zip(trio, (0.1, 9.0, 0.2)):
            watch.step(3, wait)
        time.sleep(0.3)
        assert trio[0].stragglers() == ["host 1 waited 9.0 s for data, the median host 0.2 s"]


def test_guard_lets_one_hosts_errors_through_and_returns_results():
    assert guard(Hosts(), lambda: 5, early=KeyError) == 5
    with pytest.raises(ZeroDivisionError):
        guard(Hosts(), lambda: 1 // 0, early=KeyError)


def test_clusters_are_told_by_what_their_schedulers_say():
    assert on_cluster({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"})
    assert on_cluster({"TPU_WORKER_HOSTNAMES": "a,b"})
    assert not on_cluster({"SLURM_NTASKS": "1", "TPU_SKIP_MDS_QUERY": "1"})
