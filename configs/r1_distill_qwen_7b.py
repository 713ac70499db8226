"""DeepSeek-R1-Distill-Qwen-7B: Qwen2.5-Math-7B on 800k samples of R1.

What is known of the recipe stands in r1_distill_qwen_1_5b.py.

Command:  stratos run configs/r1_distill_qwen_7b.py 'shards.sources=[{"path": "gs://BUCKET/r1_800k"}]'
Chips:    v6e:4x8 (32 chips), 12.4 s a step by `stratos plan`
Scores:   AIME24 55.5, MATH500 92.8, GPQA-Diamond 49.1 (DeepSeek, mean of 64 samples, temperature 0.6).
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
    tokenizer = TokenizerConfig(source="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B")
    return dataclasses.replace(
        base,
        name="r1_distill_qwen_7b",
        model=ModelConfig(source="Qwen/Qwen2.5-Math-7B", hf=beside(__file__, "hf/qwen2.5-math-7b.json")),
        shards=dataclasses.replace(base.shards, tokenizer=tokenizer),
        train=dataclasses.replace(base.train, optimizer=dataclasses.replace(base.train.optimizer, peak_lr=8e-5)),
        launch=LaunchConfig(topology="v6e:4x8"),
    )
