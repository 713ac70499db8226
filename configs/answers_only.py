"""The quickstart's answers-only student, tuned in its own right: learning rate, decay, warm-up, order of the examples.

Command:  stratos run configs/answers_only.py
Chips:    2 CPU cores; Ctrl-C and run again goes on

Every student of the grid trains as long as the quickstart's two do, on the same problems.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.recipe import Arm, Recipe

LR = "train.optimizer.peak_lr="
GRID = {
    "lr_5e-4": (LR + "5e-4",),
    "lr_1e-3": (LR + "1e-3",),
    "lr_3e-3": (LR + "3e-3",),
    "lr_1e-2": (LR + "1e-2",),
    "decay_0.3": (LR + "1e-3", "train.optimizer.weight_decay=0.3"),
    "warm_up_0.3": (LR + "1e-3", "train.optimizer.warmup_ratio=0.3"),
    "short_first": (LR + "1e-3", "shards.curriculum_stages=4"),
}


def recipe() -> Recipe:
    """The quickstart with one arm for each setting."""
    base = beside(__file__, "quickstart.py")
    arms = tuple(Arm(name=name, overrides=("shards.target=answer", *words)) for name, words in GRID.items())
    return dataclasses.replace(base, name="answers_only", arms=arms)
