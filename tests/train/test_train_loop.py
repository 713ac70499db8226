"""A run from shards to checkpoints: its figures, its resume, and how bad input ends."""

import json
import math

import jax
import numpy as np
import pytest
import training

from stratos_jax import checkpoint, store
from stratos_jax.engine.config import EngineConfig
from stratos_jax.evaluate.config import EvaluateConfig, TaskConfig
from stratos_jax.evaluate.during import make_sampler
from stratos_jax.mesh.alive import Alive
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.shards import loader as shards_loader
from stratos_jax.train import loop, trial
from stratos_jax.train.config import CheckpointConfig, LoraConfig, OptimizerConfig
from stratos_jax.types import UserError

MESH = MeshConfig(fsdp=4, context=2)


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory):
    """All runs of this file compile the same step; the second one reads it from a file."""
    names = {"jax_compilation_cache_dir": str(tmp_path_factory.mktemp("cache"))}
    names |= {"jax_persistent_cache_min_compile_time_secs": 0, "jax_persistent_cache_min_entry_size_bytes": 0}
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return training.build_shards(tmp_path_factory.mktemp("data"), rows=60)


def settings(**changes):
    return training.train_config(**{"max_steps": 6, "checkpoint": CheckpointConfig(every_steps=3), **changes})


def train(shards, directory, *, model=None, mesh=MESH, **changes):
    model = model or training.model_config()
    return loop.run(settings(**changes), mesh, model, shards_dir=shards, directory=directory)


def records(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def straight(shards, tmp_path_factory):
    directory = tmp_path_factory.mktemp("straight")
    train(shards, directory)
    return directory


def test_a_run_learns_and_says_how(straight):
    lines = [r for r in records(straight) if "loss" in r]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["loss"] < lines[0]["loss"] and math.isclose(
        lines[0]["loss"], math.log(training.VOCAB), rel_tol=0.05
    )
    assert lines[0]["learning_rate"] == 0 and lines[1]["learning_rate"] == pytest.approx(1e-2)
    assert {"loss_thought", "loss_solution", "loss_format", "end_probability", "grad_norm"} <= lines[0].keys()
    assert any("tokens_per_second" in line for line in lines)
    assert checkpoint.steps(straight / "checkpoints") == [3, 6]
    assert (straight / "curves.png").stat().st_size > 10_000


def test_a_complete_run_is_not_done_again_and_another_one_is_refused(shards, straight):
    before = (straight / "metrics.jsonl").stat().st_mtime_ns
    assert train(shards, straight).counts["steps"] == 6
    assert (straight / "metrics.jsonl").stat().st_mtime_ns == before
    with pytest.raises(UserError, match=r"train.optimizer.peak_lr: there 0.01, now 0.001"):
        train(shards, straight, optimizer=OptimizerConfig(peak_lr=1e-3))


def test_a_shard_that_goes_missing_stops_the_run_and_the_same_command_goes_on_bitwise(
    shards, straight, tmp_path, monkeypatch, capfd
):
    whole = shards_loader.Loader.batch

    def batch(self, step, rows=None):
        if step == 4:
            raise UserError("a shard cannot be read", where="shard 1")
        return whole(self, step, rows)

    monkeypatch.setattr(shards_loader.Loader, "batch", batch)
    with pytest.raises(UserError, match="a shard cannot be read"):
        train(shards, tmp_path)
    assert checkpoint.steps(tmp_path / "checkpoints") == [3]
    monkeypatch.undo()
    train(shards, tmp_path)
    assert "goes on from step 3" in capfd.readouterr().err
    losses = lambda directory: [r["loss"] for r in records(directory)]
    assert losses(tmp_path) == losses(straight)
    for name in ("params", "optimizer"):
        for found, wanted in zip(leaves(tmp_path, name), leaves(straight, name), strict=True):
            np.testing.assert_array_equal(found, wanted)


def leaves(directory, name):
    reader = checkpoint.LeafReader(directory / "checkpoints", 6)
    paths = sorted(leaf.path for leaf in checkpoint.read_integrity(directory / "checkpoints", 6).leaves)
    return [reader.read(path) for path in paths if path.startswith(name)]


def poison(monkeypatch, step):
    """NaN in the data of one step."""
    whole = shards_loader.Loader.batch

    def batch(self, index, rows=None):
        found = whole(self, index, rows)
        if index == step:
            found["loss_weights_BT"] = np.where(found["loss_weights_BT"] > 0, np.nan, 0).astype(np.float32)
        return found

    monkeypatch.setattr(shards_loader.Loader, "batch", batch)


def test_nan_stops_the_run_and_names_step_samples_and_leaf(shards, tmp_path, monkeypatch):
    poison(monkeypatch, 1)
    with pytest.raises(UserError) as error:
        train(shards, tmp_path)
    assert "step 2" in str(error.value) and "row-" in str(error.value) and "embed" in str(error.value)
    assert checkpoint.steps(tmp_path / "checkpoints") == []


def test_nan_is_skipped_where_the_config_says_so(shards, tmp_path, monkeypatch, capfd):
    poison(monkeypatch, 1)
    train(shards, tmp_path, on_bad_step="skip")
    assert "the step was skipped" in capfd.readouterr().err
    lines = records(tmp_path)
    assert lines[1]["finite"] is False and "loss" not in lines[1]
    assert all(math.isfinite(line["loss"]) for line in lines[2:]) and lines[-1]["loss"] < lines[0]["loss"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": MeshConfig(tensor=8)}, "layers.*axis 'kv_heads' of size 4 over tensor=8"),
        ({"mesh": MeshConfig(fsdp=3)}, "no mesh has these axis sizes"),
        ({"rows_per_step": 7}, "rows_per_step 7 is not a multiple"),
        ({"optimizer": OptimizerConfig(peak_lr=0.0)}, "peak_lr cannot train"),
        ({"optimizer": OptimizerConfig(peak_lr=10.0)}, "peak_lr cannot train"),
        ({"remat": "most"}, "no remat policy has this name"),
        ({"model": training.model_config(hf={**training.HF, "vocab_size": 128})}, "another tokenizer"),
        ({"model": training.model_config(source="/nowhere", hf=training.HF)}, "weights of a folder need a loader"),
    ],
)
def test_what_cannot_run_is_one_clear_error(shards, tmp_path, changes, message):
    mesh = changes.get("mesh", MeshConfig(fsdp=1, context=8) if "rows_per_step" not in changes else MESH)
    with pytest.raises(UserError, match=message):
        train(shards, tmp_path, **{"mesh": mesh, **changes})


def test_no_shards_no_run(tmp_path):
    with pytest.raises(UserError, match="no data set here"):
        train(tmp_path / "nothing", tmp_path / "train")


def test_a_checkpoint_of_another_run_is_refused(shards, straight, tmp_path):
    (tmp_path / "checkpoints").symlink_to(straight / "checkpoints")
    with pytest.raises(UserError, match="another"):
        train(shards, tmp_path, seed=7)


@pytest.mark.slow
def test_held_out_rows_are_not_trained_on_and_their_loss_is_told(shards, tmp_path):
    train(shards, tmp_path, held_out_fraction=0.2, eval_every_steps=3)
    found = [r for r in records(tmp_path) if "held_out_loss" in r]
    assert [r["step"] for r in found] == [3, 6] and found[1]["held_out_loss"] < found[0]["held_out_loss"]
    rows = lambda **more: set(
        shards_loader.Loader(shards, rows_per_step=8, seed=42, epochs=1, held_out_fraction=0.2, **more)._rows.tolist()
    )
    assert not rows() & rows(held_out=True) and rows() and rows(held_out=True)


@pytest.mark.slow
def test_sinks_and_profile(shards, tmp_path):
    train(shards, tmp_path, sinks=("tensorboard",), profile_steps=(4, 5))
    assert list((tmp_path / "tensorboard").glob("events*"))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))


def test_a_run_in_a_bucket_ends_whole_and_another_machine_goes_on_with_its_figures(
    shards, straight, fake_gcs, tmp_path, monkeypatch
):
    url, wanted = "gs://test-bucket/run", [r["loss"] for r in records(straight)]
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(loop, "local_scratch", lambda directory: first)
    first.mkdir()
    with monkeypatch.context() as patch, pytest.raises(loop.Preempted):
        patch.setattr(Alive, "should_stop", lambda self, done: done == 4)
        train(shards, url)
    monkeypatch.setattr(loop, "local_scratch", lambda directory: second)
    second.mkdir()
    made = train(shards, url)
    store.download_tree(url, tmp_path / "copy")
    assert [r["loss"] for r in records(tmp_path / "copy")] == wanted
    assert {"metrics.jsonl", "curves.png"} <= {file.path for file in made.files}
    assert checkpoint.steps(f"{url}/checkpoints") == [4, 6]


def test_a_spike_is_found(shards, tmp_path):
    with pytest.raises(UserError, match="a loss far above its running mean"):
        train(shards, tmp_path, spike_factor=0.5)


@pytest.mark.slow
def test_a_lora_run_ends_with_an_adapter_folder_and_a_merged_network(shards, tmp_path):
    train(shards, tmp_path, lora=LoraConfig(rank=4, alpha=8.0, quantize_base="int8"))
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    assert checkpoint.steps(tmp_path / "merged") == [6]
    lines = [r for r in records(tmp_path) if "loss" in r]
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_the_student_answers_problems_while_it_trains(shards, straight, tmp_path):
    problems = [{"id": str(i), "question": f"{i} + {i}?", "kind": "math", "gold": str(2 * i)} for i in range(5)]
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text("".join(json.dumps({"source": "test", **p}) + "\n" for p in problems))
    asked = {"sample_every_steps": 3, "sample_problems": 3, "sample_max_tokens": 8}
    engine = EngineConfig(batch_size=4, cache_dtype="float32", compute_dtype="float32")
    task = TaskConfig(path=str(held_out), protocol="bare")
    sample = make_sampler(settings(**asked), EvaluateConfig(tasks=(task,)), engine, shards_dir=shards, held_out=None)
    assert sample is not None
    seen = []

    def watched(params, arch):
        seen.append(jax.device_get(params))
        return sample(params, arch)

    loop.run(
        settings(**asked), MESH, training.model_config(), shards_dir=shards, directory=tmp_path / "run", sample=watched
    )
    found = [r for r in records(tmp_path / "run") if "sampled_accuracy" in r]
    assert [r["step"] for r in found] == [3, 6] and all(0 < r["sampled_tokens"] <= 8 for r in found)
    losses = lambda folder: [r["loss"] for r in records(folder) if "loss" in r]
    assert losses(tmp_path / "run") == losses(straight)  # training knows nothing of it
    reader = checkpoint.LeafReader(tmp_path / "run" / "checkpoints", 6)
    for path, leaf in jax.tree_util.tree_leaves_with_path(seen[1]):
        name = "/".join(["params", *(str(k.key) for k in path)])
        np.testing.assert_array_equal(leaf, reader.read(name))


def test_a_student_too_large_to_be_sampled_while_it_trains_is_refused(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "SAMPLING_BYTES", 1000)
    with pytest.raises(UserError, match="too large to be sampled while it trains"):
        loop.run(
            settings(),
            MESH,
            training.model_config(),
            shards_dir=shards,
            directory=tmp_path,
            sample=lambda params, arch: {},
        )
