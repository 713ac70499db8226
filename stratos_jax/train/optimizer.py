"""AdamW with its schedule, on Optax.

In: `OptimizerConfig`, the number of steps, the parameters' logical axes. Out: an `optax.GradientTransformation` and the
schedule. The published run: betas 0.9/0.999, eps 1e-8, decay 0, clip 1.0, cosine to 0 after a warm-up of 0.1.
"""

import math
from typing import Any

import jax
import optax

from stratos_jax.mesh.rules import is_axes
from stratos_jax.train.config import OptimizerConfig
from stratos_jax.train.moments import stored
from stratos_jax.types import UserError


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate of each step, the first being 0; as transformers' schedules count them."""
    warmup = math.ceil(config.warmup_ratio * num_steps)
    rest, final = max(num_steps - warmup, 1), config.final_lr_ratio
    after = {
        "cosine": optax.cosine_decay_schedule(config.peak_lr, rest, alpha=final),
        "linear": optax.linear_schedule(config.peak_lr, final * config.peak_lr, rest),
        "constant": optax.constant_schedule(config.peak_lr),
    }[config.schedule]
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, config.peak_lr, warmup), after], [warmup])


def make_optimizer(config: OptimizerConfig, num_steps: int, axes_tree: Any) -> optax.GradientTransformation:
    """Clip, Adam, decay, learning rate."""
    check(config)
    schedule = make_schedule(config, num_steps)
    decayed = jax.tree.map(lambda axes: config.decay_norms_and_biases or is_matrix(axes), axes_tree, is_leaf=is_axes)
    adam = optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
    parts = [
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        adam if config.moments == "float32" else stored(adam, config.moments),
        optax.add_decayed_weights(config.weight_decay, decayed) if config.weight_decay else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    ]
    return optax.chain(*parts)


def is_matrix(axes: tuple[str, ...]) -> bool:
    """Whether a parameter is a weight matrix, and neither a norm nor a bias."""
    return "norm" not in axes and not {"embed", "vocab", "mlp", "rank"}.isdisjoint(axes)


def check(config: OptimizerConfig) -> None:
    """Refuse what cannot train."""
    if not 0 < config.peak_lr <= 1:
        raise UserError(
            "train.optimizer.peak_lr cannot train", got=config.peak_lr, wanted="above 0, at most 1", do="1e-5"
        )
    if not (0 <= config.b1 < 1 and 0 <= config.b2 < 1):
        raise UserError("train.optimizer betas must be in [0, 1)", got=(config.b1, config.b2))
    if config.clip_norm < 0:
        raise UserError("train.optimizer.clip_norm is negative", got=config.clip_norm, wanted="0 (off) or more")
