"""What is saved comes back bitwise, on any mesh, under the retention that was asked for."""

import json
import threading

import jax
import numpy as np
import pytest
from checkpoint_trees import abstract, mesh, same, state

from stratos_jax import checkpoint
from stratos_jax.types import UserError


def test_back_bitwise_on_other_meshes(tmp_path):
    saved = state(3)
    checkpoint.save(tmp_path, 3, saved, {"recipe": {"name": "x"}})
    for shape in ((4, 2), (2, 4), (1, 2), (8, 1), (1, 1)):
        wanted = abstract(saved, mesh(shape))
        restored, metadata = checkpoint.restore(tmp_path, wanted)
        assert same(saved, restored)
        assert jax.tree.map(lambda leaf: leaf.sharding, restored) == jax.tree.map(lambda leaf: leaf.sharding, wanted)
        assert metadata == {"recipe": {"name": "x"}, "step": 3, "passed_over": {}}
    assert checkpoint.verify(tmp_path, deep=True) == []


def test_a_part_of_the_tree(tmp_path):
    saved = state(1)
    checkpoint.save(tmp_path, 1, saved)
    restored, _ = checkpoint.restore(tmp_path, {"params": abstract(saved["params"], mesh((1, 2)))})
    assert same(restored, {"params": saved["params"]})


def test_donated_arrays_are_safe_once_save_returns(tmp_path):
    saved = state(5)
    kept = jax.tree.map(lambda leaf: np.array(leaf), saved)
    with checkpoint.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(5, saved)
        step = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf * 0, tree), donate_argnums=0)
        jax.block_until_ready(step(saved))
    restored, _ = checkpoint.restore(tmp_path, abstract(kept, mesh()))
    assert same(kept, restored)


def test_saving_goes_on_in_the_background(tmp_path, monkeypatch):
    from stratos_jax.checkpoint import checkpointer as module

    gate = threading.Event()
    write = module.write_integrity
    monkeypatch.setattr(module, "write_integrity", lambda *args: (gate.wait(30), write(*args)))
    with checkpoint.Checkpointer(tmp_path) as checkpointer:
        checkpointer.save(1, state(1))
        assert checkpoint.steps(tmp_path) == []  # not complete, so not there
        gate.set()
        checkpointer.wait()
        assert checkpoint.steps(tmp_path) == [1]


def test_retention(tmp_path):
    with checkpoint.Checkpointer(tmp_path, keep_last=2, keep_every_steps=4) as checkpointer:
        for step in range(2, 13, 2):
            checkpointer.save(step, {"w": np.arange(4, dtype=np.float32)})
    assert checkpoint.steps(tmp_path) == [4, 8, 10, 12]
    assert checkpoint.newest(tmp_path) == 12


def test_a_slow_save_is_warned_of(tmp_path):
    said = []
    with checkpoint.Checkpointer(tmp_path, grace_seconds=1e-6, warn=said.append) as checkpointer:
        for step in (1, 2, 3):
            checkpointer.save(step, {"w": np.zeros(4, np.float32)})
    assert any("preempted host" in line for line in said)
    assert any("save less often" in line for line in said)
    assert checkpointer.last_seconds > 0


def test_a_checkpoint_of_another_model_is_refused_with_all_differences(tmp_path):
    saved = state(1)
    checkpoint.save(tmp_path, 1, saved)
    other = abstract(saved, mesh((1, 2)))
    other["params"]["embed"] = jax.ShapeDtypeStruct((32, 8), "bfloat16")
    other["params"]["layers"]["w"] = jax.ShapeDtypeStruct((3, 16, 8), "bfloat16")
    other["extra"] = jax.ShapeDtypeStruct((1,), "float32")
    with pytest.raises(UserError, match="another model") as caught:
        checkpoint.restore(tmp_path, other)
    for part in ("params/embed: bfloat16[16, 8]", "params/layers/w: float32", "extra: not in the checkpoint"):
        assert part in str(caught.value)


def test_nothing_there(tmp_path):
    with pytest.raises(UserError, match="no checkpoint here"):
        checkpoint.restore(tmp_path, {})
    with pytest.raises(UserError, match="cut short"):
        checkpoint.restore(tmp_path, {}, step=7)
    assert checkpoint.verify(tmp_path) == ["no step that was saved to the end"]


def test_leaves_are_read_in_parts(tmp_path):
    saved = state(2)
    checkpoint.save(tmp_path, 2, saved)
    reader = checkpoint.LeafReader(tmp_path, 2)
    whole = np.asarray(saved["params"]["layers"]["w"])
    assert np.array_equal(reader.read("params/layers/w", 1), whole[1])
    assert np.array_equal(reader.read("params/embed"), np.asarray(saved["params"]["embed"]))
    assert np.array_equal(np.concatenate(list(reader.parts("params/layers/w"))), whole)


def test_a_step_written_in_parts_is_an_orbax_checkpoint(tmp_path):
    from orbax.checkpoint import v1 as ocp

    whole = np.random.default_rng(0).standard_normal((3, 16, 8)).astype(np.float32)
    writer = checkpoint.StepWriter(tmp_path, 0, {"a/w": (whole.shape, whole.dtype), "b": ((4,), np.dtype(np.int32))})
    for i, part in enumerate(whole):
        writer.write("a/w", part, i)
    assert checkpoint.steps(tmp_path) == []
    writer.write("b", np.arange(4, dtype=np.int32))
    writer.finish({"from": "parts"})
    like = {"a": {"w": jax.ShapeDtypeStruct(whole.shape, "float32")}, "b": jax.ShapeDtypeStruct((4,), "int32")}
    restored, metadata = checkpoint.restore(tmp_path, like)
    assert np.array_equal(restored["a"]["w"], whole) and metadata["from"] == "parts"
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)
    plain = ocp.load(tmp_path / "0", jax.tree.map(place, like))
    assert np.array_equal(plain["a"]["w"], whole) and np.array_equal(plain["b"], np.arange(4))
    assert checkpoint.verify(tmp_path, deep=True) == []


def test_what_is_on_disk_is_said_in_integrity_json(tmp_path):
    checkpoint.save(tmp_path, 1, state(1), {"a": 1})
    record = json.loads((tmp_path / "1" / "integrity.json").read_text())
    assert {leaf["path"] for leaf in record["leaves"]} == {
        *("params/layers/w", "params/embed", "optimizer/0", "optimizer/1/scale", "step"),
    }
    on_disk = {p.relative_to(tmp_path / "1").as_posix() for p in (tmp_path / "1").rglob("*") if p.is_file()}
    assert {file["path"] for file in record["files"]} == on_disk - {"integrity.json"}
