"""s1-32B: Qwen2.5-32B-Instruct on 1,000 chosen traces, five epochs.

Command:  stratos run configs/s1_32b.py launch.bucket=gs://BUCKET/s1
Chips:    v5p:4x4x4 (64 chips), 0.7 hours, $188 by `stratos plan`
Original: 16 x H100 with FSDP, 5,269 s; batch 16, AdamW betas 0.9 and 0.95, weight decay 1e-4, warm-up 0.05.

Sixteen rows on 64 chips: the mesh splits each row over four of them.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import SourceConfig
from stratos_jax.train.config import LossConfig


def recipe() -> Recipe:
    """s1's own settings; its loss is a plain mean over the step's tokens."""
    base: Recipe = beside(__file__, "stratos_32b_17k.py")
    shards = dataclasses.replace(
        base.shards, sources=(SourceConfig(path="simplescaling/s1K_tokenized"),), policy="clean", row_tokens=32_768
    )
    optimizer = dataclasses.replace(base.train.optimizer, b2=0.95, weight_decay=1e-4, warmup_ratio=0.05)
    train = dataclasses.replace(base.train, rows_per_step=16, epochs=5, optimizer=optimizer, loss=LossConfig())
    launch = dataclasses.replace(base.launch, expected_rows=1_000)
    return dataclasses.replace(base, name="s1_32b", shards=shards, train=train, launch=launch)
