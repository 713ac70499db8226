"""DeepSeek-R1-Distill-Qwen-32B: Qwen2.5-32B on 800k samples of R1.

What is known of the recipe stands in r1_distill_qwen_1_5b.py.

Command:  stratos run configs/r1_distill_qwen_32b.py 'shards.sources=[{"path": "gs://BUCKET/r1_800k"}]'
Chips:    v5p:4x4x4 (64 chips), 38.1 s a step by `stratos plan`
Scores:   AIME24 72.6, MATH500 94.3, GPQA-Diamond 62.1 (DeepSeek, mean of 64 samples, temperature 0.6).
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.launch.config import LaunchConfig
from stratos_jax.model.config import ModelConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import TokenizerConfig


def recipe() -> Recipe:
    """Model, rate and chips; the rest is common."""
    base: Recipe = beside(__file__, "r1_distill_qwen_1_5b.py")
    tokenizer = TokenizerConfig(source="deepseek-ai/DeepSeek-R1-Distill-Qwen-32B")
    return dataclasses.replace(
        base,
        name="r1_distill_qwen_32b",
        model=ModelConfig(source="Qwen/Qwen2.5-32B", hf=beside(__file__, "hf/qwen2.5-32b.json")),
        shards=dataclasses.replace(base.shards, tokenizer=tokenizer),
        train=dataclasses.replace(base.train, optimizer=dataclasses.replace(base.train.optimizer, peak_lr=6e-5)),
        launch=LaunchConfig(topology="v5p:4x4x4"),
    )
