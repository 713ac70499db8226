"""What must not change the loss and its gradients: the mesh, micro-batches, remat, packing; and the weights by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training

from stratos_jax.mesh import layout
from stratos_jax.mesh.rules import AXES
from stratos_jax.model.config import architecture_of
from stratos_jax.model.forward import forward, logits
from stratos_jax.train.state import init_state
from stratos_jax.train.step import make_train_step, micro_batch_rows
from stratos_jax.types import UserError

ARCH = architecture_of(training.model_config())
ONE = (1, 1, 1, 1)


def run(batch, shape=ONE, **changes):
    """(loss, gradients as numpy, metrics) of a batch on a mesh."""
    rows, tokens = batch["tokens_BT"].shape
    mesh = layout.make_mesh(dict(zip(AXES, shape)), jax.devices()[: int(np.prod(shape))])
    train = training.train_config(rows_per_step=rows, **changes)
    step = make_train_step(ARCH, training.model_config(), train, mesh, row_tokens=tokens, num_steps=10)
    state = init_state(step.layout, mesh, 0, jax.device_put(noisy(), step.state_shardings["params"]))
    placed = {name: jax.device_put(value, step.batch_shardings[name]) for name, value in batch.items()}
    metrics, grads = jax.jit(step.loss_and_grads)(state, placed)
    return float(metrics["loss"]), jax.tree.map(np.asarray, grads), {k: float(v) for k, v in metrics.items()}


@functools.cache
def noisy():
    """Parameters whose norms and biases are not ones and zeros."""
    from tiny_models import noisy_params

    return noisy_params(ARCH)


@functools.cache
def reference():
    return run(training.random_batch())


def assert_same(found, wanted, tolerance=1e-6):
    """Loss and gradients, each leaf against the largest of them all, to a relative tolerance."""
    assert abs(found[0] / wanted[0] - 1) < tolerance
    norm = np.sqrt(sum(np.sum(np.square(leaf, dtype=np.float64)) for leaf in jax.tree.leaves(wanted[1])))
    for (path, leaf), other in zip(jax.tree_util.tree_leaves_with_path(wanted[1]), jax.tree.leaves(found[1])):
        assert np.linalg.norm((leaf - other).ravel()) < tolerance * norm, jax.tree_util.keystr(path)


MESHES = [(1, 8, 1, 1), (2, 2, 2, 1), (1, 2, 2, 2)]
MORE_MESHES = [
    (8, 1, 1, 1),
    (2, 4, 1, 1),
    (1, 4, 2, 1),
    (1, 1, 8, 1),
    (1, 4, 1, 2),
    (2, 1, 1, 4),
    (1, 1, 4, 2),
    (2, 1, 2, 2),
]


@pytest.mark.parametrize("shape", MESHES)
def test_any_mesh_gives_what_one_device_gives(shape):
    assert_same(run(training.random_batch(), shape), reference())


@pytest.mark.slow
@pytest.mark.parametrize("shape", MORE_MESHES)
def test_any_other_mesh_gives_what_one_device_gives(shape):
    assert_same(run(training.random_batch(), shape), reference())


def test_tokens_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match=r"rows of 30 tokens are not a multiple of context x tensor = 4"):
        run({name: value[:, :30] for name, value in training.random_batch().items()}, (1, 1, 2, 2))


def test_a_cpu_walks_as_many_rows_at_once_as_its_cache_likes():
    mesh = layout.make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    rows = lambda tokens, **changes: micro_batch_rows(training.train_config(**changes), mesh, tokens)
    assert [rows(512), rows(2048), rows(16_384), rows(64)] == [2, 1, 1, 8] and rows(512, rows_per_device=8) == 8


@pytest.mark.parametrize("rows", [1, 4])
def test_micro_batches_add_up(rows):
    assert_same(run(training.random_batch(), rows_per_device=rows), reference())


@pytest.mark.parametrize("remat", ["none", "context_qkv"])
def test_remat_changes_nothing(remat):
    assert_same(run(training.random_batch(), remat=remat), reference())


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["context", "dots", "offload", "offload_context"])
def test_other_remat_policies_change_nothing(remat):
    assert_same(run(training.random_batch(), remat=remat), reference())


def test_packed_is_unpacked():
    packed = training.random_batch()
    found = run(unpack(packed))
    assert_same(found, reference())
    assert found[2]["end_probability"] == pytest.approx(reference()[2]["end_probability"], rel=1e-5)


def unpack(batch):
    """Each sample of a packed batch in a row of its own."""
    rows, tokens = batch["tokens_BT"].shape
    out = {name: np.zeros((2 * rows, tokens), value.dtype) for name, value in batch.items()}
    for row in range(rows):
        for segment in (1, 2):
            places = np.flatnonzero(batch["segment_ids_BT"][row] == segment)
            for name, value in batch.items():
                out[name][2 * row + segment - 1, : len(places)] = value[row, places]
    return {**out, "segment_ids_BT": (out["segment_ids_BT"] > 0).astype(np.int32)}


def token_losses(batch):
    """Loss of each token from full scores."""
    params = jax.tree.map(jnp.asarray, noisy())
    segments = {"positions_BT": batch["positions_BT"], "segment_ids_BT": batch["segment_ids_BT"]}
    hidden, _ = forward(params, ARCH, batch["tokens_BT"], compute_dtype="float32", attention="reference", **segments)
    log_probs = jax.nn.log_softmax(logits(params, ARCH, hidden), axis=-1)
    return -np.take_along_axis(np.asarray(log_probs), batch["targets_BT"][..., None], -1)[..., 0]


def test_the_chunked_loss_is_the_loss_of_full_scores_whatever_the_weights():
    batch = training.random_batch()
    losses = token_losses(batch)
    weights = np.random.default_rng(1).random(losses.shape).astype(np.float32) * batch["loss_weights_BT"]
    weights[2:] = 0  # whole chunks without weight
    loss, _, metrics = run({**batch, "loss_weights_BT": weights})
    assert loss == pytest.approx((weights * losses).sum() / weights.sum(), rel=1e-6)
    thought = (batch["spans_BT"] == 1) & (weights > 0)
    assert metrics["loss_thought"] == pytest.approx(losses[thought].mean(), rel=1e-5)
    assert metrics["trained_tokens"] == (weights > 0).sum()


def test_the_loss_gradient_is_that_of_full_scores():
    from stratos_jax.train.loss import token_losses as chunked

    rng = np.random.default_rng(0)
    hidden, head = rng.standard_normal((24, 16), np.float32), rng.standard_normal((50, 16), np.float32)
    targets, weights = rng.integers(0, 50, 24), (rng.random(24) > 0.5).astype(np.float32)

    def full(hidden, head):
        log_probs = jax.nn.log_softmax(hidden @ head.T, axis=-1)
        return -jnp.sum(weights * jnp.take_along_axis(log_probs, targets[:, None], -1)[:, 0])

    wanted = jax.grad(full, (0, 1))(hidden, head)
    found = jax.grad(lambda h, w: chunked(h, w, jnp.asarray(targets), jnp.asarray(weights), 8)[0], (0, 1))(hidden, head)
    for a, b in zip(found, wanted):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
