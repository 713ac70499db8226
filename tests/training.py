"""A tiny student and a tiny set of shards, for tests of training."""

import functools
import pathlib
from typing import Any

import numpy as np
import shards_data

from stratos_jax.model.config import ModelConfig
from stratos_jax.shards import build
from stratos_jax.shards.config import ShardsConfig, SourceConfig, TokenizerConfig
from stratos_jax.train.config import CheckpointConfig, LossConfig, OptimizerConfig, TrainConfig

VOCAB, ROW = 400, 128
HF = {
    "model_type": "qwen2",
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}


def model_config(**changes: Any) -> ModelConfig:
    """A student from scratch in float32."""
    return ModelConfig(**{"hf": HF, "compute_dtype": "float32", "attention": "reference", **changes})


def train_config(**changes: Any) -> TrainConfig:
    """A short run of eight rows a step."""
    settings: dict[str, Any] = {
        "rows_per_step": 8,
        "remat": "full",
        "optimizer": OptimizerConfig(peak_lr=1e-2),
        "loss": LossConfig(chunk_tokens=64),
        "checkpoint": CheckpointConfig(every_steps=4),
        "max_steps": 8,
    }
    return TrainConfig(**{**settings, **changes})


def build_shards(folder: pathlib.Path, *, rows: int = 240) -> pathlib.Path:
    """Packed rows of made-up traces, with a small tokenizer trained on them."""
    source = shards_data.write(folder / "dataset.jsonl", shards_data.rows(rows, words=(5, 25)))
    config = ShardsConfig(
        sources=(SourceConfig(path=str(source)),),
        tokenizer=TokenizerConfig(train_vocab_size=VOCAB),
        row_tokens=ROW,
        num_shards=2,
    )
    build.run(config, folder / "shards", workers=1)
    return folder / "shards"


@functools.cache
def random_batch(rows: int = 8, tokens: int = 32, seed: int = 0) -> dict[str, np.ndarray]:
    """Packed rows of random tokens: two samples and some padding in each."""
    rng = np.random.default_rng(seed)
    first, second = tokens // 2 + 3, tokens // 4
    rest = tokens - first - second
    one_row = lambda parts: np.concatenate([np.asarray(part) for part in parts])
    segments = one_row([np.full(first, 1), np.full(second, 2), np.zeros(rest)]).astype(np.int32)
    positions = one_row([np.arange(first), np.arange(second), np.zeros(rest)]).astype(np.int32)
    tokens_BT = rng.integers(0, VOCAB, (rows, tokens + 1)).astype(np.int32)
    same_T = (segments == np.append(segments[1:], 0)) & (segments > 0)
    weights = ((rng.random((rows, tokens)) > 0.3) & same_T).astype(np.float32)
    return {
        "tokens_BT": tokens_BT[:, :-1],
        "targets_BT": tokens_BT[:, 1:],
        "positions_BT": np.tile(positions, (rows, 1)),
        "segment_ids_BT": np.tile(segments, (rows, 1)),
        "loss_weights_BT": weights,
        "spans_BT": rng.integers(0, 4, (rows, tokens)).astype(np.int8),
    }
