"""Bespoke-Stratos-32B from the published 17k rows: Qwen2.5-32B-Instruct, full fine-tuning, original hyper-parameters.

Command:  stratos run configs/stratos_32b_17k.py launch.bucket=gs://BUCKET/stratos_32b
Chips:    v5p:4x4x4 (64 chips), 2.9 hours, $792 by `stratos plan`
Scores:   AIME24 63.3, MATH500 93.0, GPQA-Diamond 58.1, LiveCodeBench v2 71.1 (the model's card).
Original: 8 x H100 with parameters and optimizer in host memory, 27 h.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.launch.config import LaunchConfig
from stratos_jax.model.config import ModelConfig
from stratos_jax.recipe import Recipe


def recipe() -> Recipe:
    """The 7B's recipe on the 32B: the published runs differ in nothing else."""
    base: Recipe = beside(__file__, "stratos_7b_17k.py")
    return dataclasses.replace(
        base,
        name="stratos_32b_17k",
        model=ModelConfig(source="Qwen/Qwen2.5-32B-Instruct", hf=beside(__file__, "hf/qwen2.5-32b-instruct.json")),
        launch=LaunchConfig(topology="v5p:4x4x4", expected_rows=16_710),
    )
