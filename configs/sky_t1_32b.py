"""Sky-T1-32B-Preview: Qwen2.5-32B-Instruct on NovaSky's 17k rows, the same trainer settings as Bespoke-Stratos-32B.

Command:  stratos run configs/sky_t1_32b.py launch.bucket=gs://BUCKET/sky_t1
Chips:    v5p:4x4x4 (64 chips), 2.9 hours, $777 by `stratos plan`
Scores:   AIME24 43.3, MATH500 86.4, GPQA-Diamond 56.8, LiveCodeBench v2 57.9 (the model's card).
Original: 8 x H100, 19 h, about $450.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import SourceConfig


def recipe() -> Recipe:
    """Another data set, nothing else."""
    base: Recipe = beside(__file__, "stratos_32b_17k.py")
    shards = dataclasses.replace(base.shards, sources=(SourceConfig(path="NovaSky-AI/Sky-T1_data_17k"),))
    launch = dataclasses.replace(base.launch, expected_rows=16_401)
    return dataclasses.replace(base, name="sky_t1_32b", shards=shards, launch=launch)
