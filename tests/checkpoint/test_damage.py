"""Damage is seen: no flipped bit, cut or missing file of a step is ever loaded; the step before it is."""

import gc
import os
import shutil

import numpy as np
import pytest
from checkpoint_trees import abstract, mesh, same, state

from stratos_jax import checkpoint
from stratos_jax.checkpoint import integrity
from stratos_jax.types import UserError


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    for step in (1, 2):
        checkpoint.save(folder, step, state(step), {"n": step})
    return folder


@pytest.fixture
def steps(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "steps")


def files_of(step):
    """Those that have bytes: Orbax also leaves empty markers."""
    return sorted(path for path in step.rglob("*") if path.is_file() and path.stat().st_size)


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(bytes(data))


def restore(folder, said):
    return checkpoint.restore(folder, abstract(state(), mesh((1, 2))), warn=said.append)


def test_a_flipped_bit_in_any_file_is_passed_over(steps, monkeypatch):
    """Also where only the leaves' digests can tell: big local files are not read beforehand."""
    monkeypatch.setattr(integrity, "SMALL", -1)
    rng = np.random.default_rng(0)
    biggest = max(files_of(steps / "2"), key=lambda path: path.stat().st_size)
    silent = harmless = 0
    for path in files_of(steps / "2"):
        original = path.read_bytes()
        for bit in rng.integers(0, 8 * len(original), 12 if path == biggest else 3):
            flip(path, int(bit))
            said = []
            tree, metadata = restore(steps, said)
            if metadata["step"] == 2:
                harmless += same(tree, state(2))
                silent += not same(tree, state(2))
            else:
                assert same(tree, state(1)) and metadata["passed_over"]["2"] and "step 2 is passed over" in said[0]
            path.write_bytes(original)
    gc.collect()  # a read that a failed load left half done would complain now
    assert silent == 0
    assert harmless < 30  # most are noticed; the rest hit what loading never reads


def test_checksums_of_files_notice_every_bit(steps):
    rng = np.random.default_rng(1)
    for path in files_of(steps / "2"):
        original = path.read_bytes()
        flip(path, int(rng.integers(0, 8 * len(original))))
        assert checkpoint.verify(steps, 2, deep=True), path
        assert checkpoint.verify(steps, 1, deep=True) == []
        path.write_bytes(original)
    assert checkpoint.verify(steps, deep=True) == []


def test_cut_and_missing_files(steps):
    for path in files_of(steps / "2"):
        original = path.read_bytes()
        path.write_bytes(original[: len(original) // 2])
        assert restore(steps, [])[1]["step"] == 1
        path.unlink()
        assert restore(steps, [])[1]["step"] == 1
        path.write_bytes(original)
    assert restore(steps, [])[1]["step"] == 2


def test_a_named_step_is_not_replaced_by_another(steps):
    os.remove(max(files_of(steps / "2"), key=lambda path: path.stat().st_size))
    with pytest.raises(UserError, match="not what was saved"):
        checkpoint.restore(steps, abstract(state(), mesh((1, 2))), step=2)


def test_all_damaged_says_why_of_each(steps):
    for step in (1, 2):
        flip(steps / str(step) / "integrity.json", 4000)
    with pytest.raises(UserError, match="no checkpoint verifies") as caught:
        restore(steps, [])
    assert "step 1" in str(caught.value) and "step 2" in str(caught.value)


def test_what_a_killed_save_left_is_not_a_step_and_is_cleared_away(steps):
    (steps / "2" / "integrity.json").unlink()
    (steps / "3.orbax-checkpoint-tmp-17").mkdir()
    assert checkpoint.steps(steps) == [1]
    checkpoint.save(steps, 4, state(4))
    assert sorted(os.listdir(steps)) == ["1", "4"]
