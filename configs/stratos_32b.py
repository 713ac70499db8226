"""Bespoke-Stratos-32B from its first problem: the data of stratos_7b.py, the model and chips of stratos_32b_17k.py.

Command:  stratos run configs/stratos_32b.py launch.bucket=gs://BUCKET/stratos_32b
Chips:    v5p:4x4x4 (64 chips), 2.9 hours, $792 by `stratos plan`
Scores:   AIME24 63.3, MATH500 93.0, GPQA-Diamond 58.1, LiveCodeBench v2 71.1 (the model's card).
Original: 8 x H100 with parameters and optimizer in host memory, 27 h.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.recipe import Recipe


def recipe() -> Recipe:
    """The 7B's curation before the 32B's training."""
    base: Recipe = beside(__file__, "stratos_32b_17k.py")
    small: Recipe = beside(__file__, "stratos_7b.py")
    return dataclasses.replace(base, name="stratos_32b", curate=small.curate, shards=small.shards)
