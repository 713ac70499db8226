"""Fifty optimizer steps beside transformers and torch's AdamW: same data, weights, schedule and clipping, float32."""

import jax
import numpy as np
import pytest
import tiny_models
import training

from stratos_jax.mesh import layout
from stratos_jax.mesh.rules import AXES
from stratos_jax.model.config import read_architecture
from stratos_jax.model.names import hf_entries
from stratos_jax.train.config import OptimizerConfig
from stratos_jax.train.state import init_state
from stratos_jax.train.step import make_train_step

STEPS, ROWS, TOKENS = 50, 4, 24
# The rate is such that Adam does not blow rounding noise up to 1e-4 where a gradient is nearly zero (key biases).
OPTIMIZER = OptimizerConfig(peak_lr=1e-3, weight_decay=0.05, decay_norms_and_biases=True)


def batches(vocab: int):
    """Full rows of one sample each: what transformers sees without packing."""
    rng = np.random.default_rng(0)
    for _ in range(STEPS):
        tokens = rng.integers(3, vocab, (ROWS, TOKENS + 1)).astype(np.int32)
        weights = (rng.random((ROWS, TOKENS)) > 0.25).astype(np.float32)
        yield tokens, weights


def ours(config, params):
    arch = read_architecture(config)
    mesh = layout.make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    train = training.train_config(rows_per_step=ROWS, optimizer=OPTIMIZER, remat="none")
    model = training.model_config(hf=config)
    step = make_train_step(arch, model, train, mesh, row_tokens=TOKENS, num_steps=STEPS)
    state = init_state(step.layout, mesh, 0, jax.device_put(params, step.state_shardings["params"]))
    losses = []
    for tokens, weights in batches(arch.vocab_size):
        batch = {
            "tokens_BT": tokens[:, :-1],
            "targets_BT": tokens[:, 1:],
            "positions_BT": np.tile(np.arange(TOKENS, dtype=np.int32), (ROWS, 1)),
            "segment_ids_BT": np.ones((ROWS, TOKENS), np.int32),
            "loss_weights_BT": weights,
            "spans_BT": np.ones((ROWS, TOKENS), np.int8),
        }
        state, metrics = step.run(state, jax.device_put(batch, step.batch_shardings))
        losses.append(float(metrics["loss"]))
    return losses, tiny_models.to_hf_tensors(arch, jax.tree.map(np.asarray, state["params"]))


def theirs(config, params):
    import torch
    import transformers

    model = tiny_models.torch_model(config, params).train()
    c = OPTIMIZER
    adam = torch.optim.AdamW(model.parameters(), c.peak_lr, (c.b1, c.b2), c.eps, weight_decay=c.weight_decay)
    warmup = int(np.ceil(c.warmup_ratio * STEPS))
    schedule = transformers.get_cosine_schedule_with_warmup(adam, warmup, STEPS)
    losses = []
    for tokens, weights in batches(config["vocab_size"]):
        ids = torch.from_numpy(tokens.astype(np.int64))
        labels = ids.masked_fill(torch.from_numpy(np.pad(weights, ((0, 0), (1, 0))) == 0), -100)
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip_norm)
        adam.step()
        schedule.step()
        adam.zero_grad()
        losses.append(loss.item())
    return losses, {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_fifty_steps_are_those_of_transformers_and_torch():
    config = tiny_models.tiny_config("Qwen2.5-7B-Instruct")
    params = tiny_models.noisy_params(read_architecture(config))
    our_losses, our_weights = ours(config, params)
    their_losses, their_weights = theirs(config, params)
    np.testing.assert_allclose(our_losses, their_losses, rtol=0, atol=1e-4)
    for entry in hf_entries(read_architecture(config)):
        np.testing.assert_allclose(
            our_weights[entry.hf_name], their_weights[entry.hf_name], rtol=0, atol=1e-4, err_msg=entry.hf_name
        )
    assert our_losses[-1] < our_losses[0]  # something was learned, so something could differ
