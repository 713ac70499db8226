"""A recipe small enough for the TPU compiler to take seconds; also a config file for `stratos plan`."""

import pathlib

from stratos_jax.evaluate.config import EvaluateConfig, SamplingConfig, TaskConfig
from stratos_jax.model.config import ModelConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.train.config import TrainConfig

SMALL = pathlib.Path(__file__)
PATIENCE = 900  # seconds for one process; a compilation takes 10 on an idle machine
HF = {
    **{"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 1024, "hidden_size": 256},
    **{"intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2},
    **{"max_position_embeddings": 4096, "tie_word_embeddings": False},
}


def recipe():
    """Two layers, rows of 1,024 tokens."""
    return Recipe(
        name="small",
        model=ModelConfig(hf=HF),
        shards=ShardsConfig(sources=(SourceConfig(path="rows.jsonl"),), row_tokens=1024),
        train=TrainConfig(rows_per_step=8, remat="full"),
        evaluate=EvaluateConfig(tasks=(TaskConfig(name="AIME24"),), sampling=SamplingConfig(max_tokens=1024)),
    )
