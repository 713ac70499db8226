"""DeepSeek-R1-Distill-Qwen-14B: Qwen2.5-14B on 800k samples of R1.

What is known of the recipe stands in r1_distill_qwen_1_5b.py.

Command:  stratos run configs/r1_distill_qwen_14b.py 'shards.sources=[{"path": "gs://BUCKET/r1_800k"}]'
Chips:    v5p:4x4x4 (64 chips), 17.8 s a step by `stratos plan`
Scores:   AIME24 69.7, MATH500 93.9, GPQA-Diamond 59.1 (DeepSeek, mean of 64 samples, temperature 0.6).
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
    tokenizer = TokenizerConfig(source="deepseek-ai/DeepSeek-R1-Distill-Qwen-14B")
    return dataclasses.replace(
        base,
        name="r1_distill_qwen_14b",
        model=ModelConfig(source="Qwen/Qwen2.5-14B", hf=beside(__file__, "hf/qwen2.5-14b.json")),
        shards=dataclasses.replace(base.shards, tokenizer=tokenizer),
        train=dataclasses.replace(base.train, optimizer=dataclasses.replace(base.train.optimizer, peak_lr=7e-5)),
        launch=LaunchConfig(topology="v5p:4x4x4"),
    )
