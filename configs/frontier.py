"""How far does a small student get with how many traces: sizes x numbers of examples, on one laptop.

Command:  stratos run configs/frontier.py
Chips:    2 CPU cores; Ctrl-C and run again goes on

Every student takes the same number of steps, half of the quickstart's. The report plots accuracy over
examples, a line for each size.
"""

import dataclasses
import json

from stratos_jax.config import beside
from stratos_jax.recipe import Arm, Recipe

SIZES = {"small": 32, "middle": 64, "large": 96}  # hidden size
EXAMPLES = (300, 1_200, 4_800)
STEPS = 600
HEAD_SIZE = 32


def recipe() -> Recipe:
    """The quickstart's problems and settings, with a grid of students."""
    base = beside(__file__, "quickstart.py")
    arms = tuple(
        Arm(
            name=f"{name}_{examples}",
            overrides=(
                f"model.hf={json.dumps(student(base, hidden))}",
                f"shards.sources={json.dumps([{'path': 'curate', 'max_samples': examples}])}",
            ),
        )
        for name, hidden in SIZES.items()
        for examples in EXAMPLES
    )
    train = dataclasses.replace(base.train, max_steps=STEPS)
    return dataclasses.replace(base, name="frontier", train=train, arms=arms)


def student(base: Recipe, hidden: int) -> dict:
    """The quickstart's student at another width."""
    heads = hidden // HEAD_SIZE
    shape = {"hidden_size": hidden, "intermediate_size": 3 * hidden, "num_attention_heads": heads}
    return {**base.model.hf, **shape, "num_key_value_heads": 1}
