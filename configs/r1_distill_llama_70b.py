"""DeepSeek-R1-Distill-Llama-70B: Llama-3.3-70B-Instruct on 800k samples of R1.

What is known of the recipe stands in r1_distill_qwen_1_5b.py.

Command:  stratos run configs/r1_distill_llama_70b.py 'shards.sources=[{"path": "gs://BUCKET/r1_800k"}]'
Chips:    v5p:4x4x8 (128 chips), 35.6 s a step by `stratos plan`
Scores:   AIME24 70.0, MATH500 94.5, GPQA-Diamond 65.2 (DeepSeek, mean of 64 samples, temperature 0.6).
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
    tokenizer = TokenizerConfig(source="deepseek-ai/DeepSeek-R1-Distill-Llama-70B")
    return dataclasses.replace(
        base,
        name="r1_distill_llama_70b",
        model=ModelConfig(
            source="meta-llama/Llama-3.3-70B-Instruct", hf=beside(__file__, "hf/llama-3.3-70b-instruct.json")
        ),
        shards=dataclasses.replace(base.shards, tokenizer=tokenizer),
        train=dataclasses.replace(base.train, optimizer=dataclasses.replace(base.train.optimizer, peak_lr=2e-5)),
        launch=LaunchConfig(topology="v5p:4x4x8"),
    )
