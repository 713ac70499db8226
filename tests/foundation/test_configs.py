"""Every config file loads, says what it reproduces, and has the published figures."""

import ast
import pathlib

import pytest

from stratos_jax import recipe

CONFIGS = sorted((pathlib.Path(__file__).resolve().parents[2] / "configs").glob("*.py"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config(path):
    loaded, values = recipe.load(path)
    assert loaded.name == path.stem
    assert values[0].name == "name"
    doc = ast.get_docstring(ast.parse(path.read_text()))
    assert doc and f"stratos run configs/{path.name}" in doc


@pytest.mark.parametrize("name", ["stratos_7b", "stratos_7b_17k", "stratos_32b", "stratos_32b_17k"])
def test_published_hyper_parameters(name):
    loaded, _ = recipe.load(CONFIGS[0].parent / f"{name}.py")
    train, optimizer, shards = loaded.train, loaded.train.optimizer, loaded.shards
    assert (train.rows_per_step, train.epochs, train.seed) == (96, 3, 42)
    assert (optimizer.peak_lr, optimizer.warmup_ratio, optimizer.schedule, optimizer.final_lr_ratio) == (
        1e-5,
        0.1,
        "cosine",
        0,
    )
    assert (optimizer.b1, optimizer.b2, optimizer.eps) == (0.9, 0.999, 1e-8)
    assert (optimizer.weight_decay, optimizer.clip_norm) == (0.0, 1.0)
    assert (train.loss.reduction, train.loss.ranks, train.loss.accumulation) == ("per_rank_token", 8, 12)
    assert (shards.row_tokens, shards.packing, shards.policy) == (16_384, False, "stratos17k")
    assert loaded.model.source == f"Qwen/Qwen2.5-{'32' if '32b' in name else '7'}B-Instruct"
