"""Packing changes nothing: loss, each sample's loss and gradients of packed rows equal those of a row per sample."""

import dataclasses

import jax
import numpy as np
import pytest
import shards_data
import tiny_models
import training

from stratos_jax.mesh import layout
from stratos_jax.mesh.rules import AXES
from stratos_jax.model.config import read_architecture
from stratos_jax.shards import build, loader
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.train.config import LossConfig
from stratos_jax.train.state import init_state
from stratos_jax.train.step import make_train_step

ROW, SAMPLES, CLOSE = 384, 8, 1e-6
MESHES = {"one device": {}, "context": {"context": 4}, "all axes": {"fsdp": 2, "context": 2, "tensor": 2}}
ALL = [pytest.param(name, marks=pytest.mark.slow) if name == "all axes" else name for name in MESHES]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same conversations packed, and one to a row."""
    folder = tmp_path_factory.mktemp("packed")
    path = shards_data.write(folder / "dataset.jsonl", shards_data.rows(SAMPLES, words=(2, 12)))
    tokenizer = shards_data.tiny_tokenizer(folder / "tokenizer")
    packed = ShardsConfig(sources=(SourceConfig(path=str(path)),), row_tokens=ROW, num_shards=1)
    for name, config in (("packed", packed), ("single", dataclasses.replace(packed, packing=False))):
        build.run(config, folder / name, tokenizer_dir=tokenizer, workers=1)
    return folder


def whole_epoch(folder, loss: LossConfig) -> tuple[loader.Loader, loader.Batch]:
    """All rows as one step, and padding rows up to a multiple of what the meshes need."""
    rows = len(loader.Loader(folder, rows_per_step=1, seed=0, epochs=1).table)
    opened = loader.Loader(folder, rows_per_step=-(-rows // 4) * 4, seed=0, epochs=1, loss=loss)
    assert opened.num_steps == 1
    return opened, opened.batch(0)


def loss_and_grads(batch, mesh_shape, loss: LossConfig):
    config = tiny_models.tiny_config("Qwen2.5-7B-Instruct", vocab=400)
    arch = read_architecture(config)
    sizes = dict.fromkeys(AXES, 1) | mesh_shape
    mesh = layout.make_mesh(sizes, jax.devices()[: int(np.prod(list(sizes.values())))])
    train = training.train_config(rows_per_step=len(batch["tokens_BT"]), loss=loss, rows_per_device=1)
    step = make_train_step(arch, training.model_config(hf=config), train, mesh, row_tokens=ROW, num_steps=1)
    params = jax.device_put(tiny_models.noisy_params(arch), step.state_shardings["params"])
    state = init_state(step.layout, mesh, 0, params)
    metrics, grads = jax.jit(step.loss_and_grads)(state, jax.device_put(batch, step.batch_shardings))
    return float(metrics["loss"]), jax.tree.map(lambda g: np.asarray(g, np.float64), grads)


@pytest.fixture(scope="module")
def reference(folders):
    """One sample a row, one device."""
    loss = LossConfig(chunk_tokens=384)
    _, batch = whole_epoch(folders / "single", loss)
    assert batch["segment_ids_BT"].max() == 1
    return loss_and_grads(batch, {}, loss)


@pytest.mark.parametrize("name", ALL)
def test_packed_loss_and_gradients_equal_unpacked_ones(folders, reference, name):
    loss = LossConfig(chunk_tokens=384)
    _, batch = whole_epoch(folders / "packed", loss)
    assert batch["segment_ids_BT"].max() >= 3, "rows share samples"
    found, grads = loss_and_grads(batch, MESHES[name], loss)
    wanted, wanted_grads = reference
    assert abs(found - wanted) <= CLOSE * abs(wanted)
    for (path, got), want in zip(
        jax.tree_util.tree_leaves_with_path(grads), jax.tree.leaves(wanted_grads), strict=True
    ):
        assert np.linalg.norm(got - want) <= CLOSE * np.linalg.norm(want), jax.tree_util.keystr(path)


@pytest.mark.slow
def test_sequence_mean_is_the_mean_over_samples_whether_packed_or_not(folders):
    loss = LossConfig(chunk_tokens=384, reduction="sequence_mean")
    found = {name: loss_and_grads(whole_epoch(folders / name, loss)[1], {}, loss)[0] for name in ("packed", "single")}
    assert abs(found["packed"] - found["single"]) <= CLOSE * found["single"]


def test_per_rank_token_is_the_mean_of_what_each_rank_would_compute_alone(folders):
    """Loss and gradients of a step, against those of each rank's rows by themselves, averaged by hand."""
    plain = LossConfig(chunk_tokens=384)
    by_rank = dataclasses.replace(plain, reduction="per_rank_token", ranks=2, accumulation=4)
    loss, grads = loss_and_grads(whole_epoch(folders / "single", by_rank)[1], {}, by_rank)
    _, batch = whole_epoch(folders / "single", plain)
    alone = [loss_and_grads({name: rows[rank::2] for name, rows in batch.items()}, {}, plain) for rank in range(2)]
    weights = [batch["loss_weights_BT"][rank::2].sum() for rank in range(2)]
    assert weights[0] != weights[1], "else the mean over all tokens is the same"
    assert abs(loss - (alone[0][0] + alone[1][0]) / 2) <= CLOSE * loss
    wanted = jax.tree.map(lambda a, b: (a + b) / 2, alone[0][1], alone[1][1])
    for got, want in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        assert np.linalg.norm(got - want) <= CLOSE * np.linalg.norm(want)


def test_the_check_sees_a_leak_between_samples(folders, reference):
    """With one segment to a row, as a packer that forgets segments would have it, the losses differ."""
    loss = LossConfig(chunk_tokens=384)
    _, batch = whole_epoch(folders / "packed", loss)
    leaky = {**batch, "segment_ids_BT": np.minimum(batch["segment_ids_BT"], 1)}
    leaky["positions_BT"] = np.tile(np.arange(ROW, dtype=np.int32), (len(leaky["tokens_BT"]), 1))
    found, _ = loss_and_grads(leaky, {}, loss)
    assert abs(found - reference[0]) > 100 * CLOSE * reference[0]
