"""The schedule of transformers, moments in fewer bytes, and which parameters decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import training

from stratos_jax.model.config import architecture_of
from stratos_jax.model.params import logical_axes
from stratos_jax.train import moments
from stratos_jax.train.config import OptimizerConfig
from stratos_jax.train.optimizer import is_matrix, make_optimizer, make_schedule
from stratos_jax.types import UserError

AXES = logical_axes(architecture_of(training.model_config()))


def test_the_schedule_is_that_of_transformers():
    import torch
    import transformers

    steps = 37
    found = make_schedule(OptimizerConfig(peak_lr=2e-3), steps)
    sgd = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-3)
    wanted = transformers.get_cosine_schedule_with_warmup(sgd, int(np.ceil(0.1 * steps)), steps)
    for step in range(steps):
        assert float(found(step)) == pytest.approx(wanted.get_last_lr()[0], rel=1e-5, abs=1e-12)
        sgd.step()
        wanted.step()


@pytest.mark.parametrize(("kind", "tolerance", "most_bytes"), [("bfloat16", 0.02, 4.0), ("int8", 0.12, 2.1)])
def test_narrow_moments_end_near_wide_ones(kind, tolerance, most_bytes):
    """Distance of the end points on a noisy quadratic, relative to the way that was gone."""
    target = jax.random.normal(jax.random.key(0), (16, 256))

    def descend(kind):
        adam = optax.scale_by_adam()
        optimizer = adam if kind == "float32" else moments.stored(adam, kind)

        def step(carry, key):
            params, state = carry
            grads = (params - target) * (1 + 0.3 * jax.random.normal(key, target.shape))
            updates, state = optimizer.update(grads, state)
            return (params - 0.02 * updates, state), None

        start = (jnp.zeros_like(target), optimizer.init(jnp.zeros_like(target)))
        (params, state), _ = jax.lax.scan(step, start, jax.random.split(jax.random.key(1), 60))
        return params, state

    wide, _ = descend("float32")
    narrow, state = descend(kind)
    assert float(jnp.linalg.norm(narrow - wide) / jnp.linalg.norm(wide)) < tolerance
    assert sum(leaf.nbytes for leaf in jax.tree.leaves((state.mu, state.nu))) <= most_bytes * target.size


def test_quantized_second_moments_are_never_zero_where_they_were_not():
    values = jnp.array([[1.0, 1e-4, 1e-6, 0.0] * 32])
    found = moments.dequantize(moments.quantize(values, jnp.ceil, 127))
    assert bool(jnp.all((found > 0) == (values > 0))) and bool(jnp.all(found >= values * (1 - 1e-6)))


def test_norms_and_biases_do_not_decay_unless_asked():
    assert is_matrix(AXES["layers"]["attention"]["o"]) and is_matrix(AXES["embed"])
    assert not is_matrix(AXES["layers"]["attention"]["q_bias"]) and not is_matrix(AXES["final_norm"]["scale"])


@pytest.mark.parametrize("changes", [{"peak_lr": 0.0}, {"peak_lr": 3.0}, {"b2": 1.0}, {"clip_norm": -1.0}])
def test_settings_that_cannot_train_are_refused(changes):
    with pytest.raises(UserError):
        make_optimizer(OptimizerConfig(**changes), 10, AXES)
