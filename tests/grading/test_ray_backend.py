"""The Ray backend: the verdicts of the local one, whatever dies meanwhile."""

import os
import threading
import time

import pytest

from stratos_jax import grading
from stratos_jax.grading import ray_backend
from stratos_jax.grading.config import CodeConfig, GradingConfig
from stratos_jax.types import UserError

ray = pytest.importorskip("ray")
pytestmark = [
    pytest.mark.slow,  # starting Ray takes most of it
    pytest.mark.filterwarnings("ignore"),  # Ray's own
]
CONFIG = GradingConfig(code=CodeConfig(packages=()))
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}


def records(count):
    """Right, wrong, failing and codeless answers in turn."""
    programs = ["print(int(input()) + 1)", "print(input())", "1/0", None]
    for i in range(count):
        program, cases = programs[i % 4], [{"input": f"{i}\n", "output": str(i + 1)}]
        given = {"response": "no code"} if program is None else {"code": program}
        yield {"id": str(i), **given, "tests": {"kind": "stdin", "cases": cases}}


def told(verdicts):
    return [(v.id, v.outcome, v.reason, v.extracted) for v in verdicts]


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    os.environ["RAY_health_check_period_ms"] = "500"
    made = Cluster(initialize_head=True, head_node_args=NODE)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_two_nodes_one_killed_in_the_middle_of_two_thousand(cluster):
    count = 2000
    node = cluster.add_node(**{k: v for k, v in NODE.items() if k != "include_dashboard"})
    expected = told(grading.grade("code", records(count), CONFIG, 2))
    found, killing = [], None
    for verdict in ray_backend.grade("code", records(count), CONFIG, 2, batch_size=25):
        found.append(verdict)
        if len(found) == count // 3:
            killing = threading.Thread(target=cluster.remove_node, args=(node, False))  # as if its power failed
            killing.start()
    assert killing and told(found) == expected
    killing.join()
    deadline = time.monotonic() + 120  # the cluster takes its time to see that a node is gone
    while len(alive := [n for n in ray.nodes() if n["Alive"]]) > 1 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert len(alive) == 1


def test_workers_that_die_are_replaced_and_in_the_end_given_up(cluster, monkeypatch, tmp_path):
    def dies_twice(kind, batch, config, version):
        deaths = tmp_path / batch[0]["id"]
        if batch[0]["id"] == "8" or (batch[0]["id"] == "4" and len(list(tmp_path.glob("4-*"))) < 2):
            deaths.with_name(f"{deaths.name}-{time.monotonic_ns()}").touch()
            os._exit(1)
        return list(grading.grade(kind, batch, config, 1))

    monkeypatch.setattr(ray_backend, "grade_batch", dies_twice)
    found = list(ray_backend.grade("code", records(12), CONFIG, 1, batch_size=4))
    expected = told(grading.grade("code", records(12), CONFIG, 1))
    assert told(found)[:8] == expected[:8]
    assert [(v.id, v.outcome, v.reason) for v in found[8:]] == [
        (str(i), "unknown", "unknown.infra") for i in range(8, 12)
    ]
    assert len(list(tmp_path.glob("8-*"))) == ray_backend.ATTEMPTS and len(list(tmp_path.glob("4-*"))) == 2


def test_back_pressure_and_cancellation(cluster):
    taken = []

    def supply():
        for record in records(10_000):
            taken.append(record["id"])
            yield record

    verdicts = ray_backend.grade("code", supply(), CONFIG, 1, batch_size=5)
    assert next(verdicts).id == "0"
    assert len(taken) <= 5 * ray_backend.AHEAD
    verdicts.close()
    deadline = time.monotonic() + 120
    while ray.available_resources().get("CPU", 0) < 1 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert ray.available_resources()["CPU"] >= 1 and len(taken) <= 5 * ray_backend.AHEAD


def test_a_bad_record_is_the_users_to_mend(cluster):
    with pytest.raises(UserError, match="not a record of the code grader"):
        list(ray_backend.grade("code", [{"id": "1"}], CONFIG, 1))


def test_math_goes_the_same_way(cluster):
    pairs = [{"id": str(i), "gold": "\\frac{1}{2}", "answer": answer} for i, answer in enumerate(["0.5", "1/2", "3"])]
    found = told(ray_backend.grade("math", pairs, CONFIG, 1))
    assert found == told(grading.grade("math", pairs, CONFIG, 1))
