"""Adapters start as the base, have the gradients of the merged weights, and fit the names and shapes of PEFT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import training
from safetensors.numpy import load_file

from stratos_jax.mesh import layout
from stratos_jax.mesh.rules import AXES
from stratos_jax.model.config import architecture_of
from stratos_jax.model.names import hf_entries
from stratos_jax.train import lora, quantized
from stratos_jax.train.config import LoraConfig
from stratos_jax.train.state import init_state
from stratos_jax.train.step import make_train_step
from stratos_jax.types import UserError

ARCH = architecture_of(training.model_config())
LORA = LoraConfig(rank=4, alpha=8.0)


def one_step(shape, config):
    mesh = layout.make_mesh(dict(zip(AXES, shape)), jax.devices()[: int(np.prod(shape))])
    train = training.train_config(lora=config, remat="none")
    step = make_train_step(ARCH, training.model_config(), train, mesh, row_tokens=32, num_steps=4)
    state = init_state(step.layout, mesh, 0)
    noise = lambda leaf: leaf + 0.05 * jax.random.normal(jax.random.key(leaf.size), leaf.shape)
    state["params"] = jax.tree.map(noise, state["params"])
    metrics, grads = jax.jit(step.loss_and_grads)(state, jax.device_put(training.random_batch(), step.batch_shardings))
    return jax.tree.map(np.asarray, (state, float(metrics["loss"]), grads))


@pytest.fixture(scope="module")
def on_one_device():
    return one_step((1, 1, 1, 1), LORA)


def test_gradients_are_those_through_merged_weights(on_one_device):
    state, loss, grads = on_one_device
    mesh = layout.make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    train = training.train_config(remat="none")
    step = make_train_step(ARCH, training.model_config(), train, mesh, row_tokens=32, num_steps=4)
    full = lambda adapters: {"params": lora.merge(state["base"], adapters, LORA)}
    batch = jax.tree.map(jnp.asarray, training.random_batch())
    metrics, of_weights = jax.jit(step.loss_and_grads)(full(state["params"]), batch)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-6)
    _, pull = jax.vjp(lambda adapters: full(adapters)["params"], jax.tree.map(jnp.asarray, state["params"]))
    (wanted,) = pull(of_weights)
    for found, right in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_any_mesh_gives_what_one_device_gives(on_one_device):
    _, loss, grads = one_step((1, 2, 2, 2), LORA)
    assert loss == pytest.approx(on_one_device[1], rel=1e-6)
    for found, wanted in zip(jax.tree.leaves(grads), jax.tree.leaves(on_one_device[2]), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 2e-3), ("nf4", 2e-2)])
def test_a_quantized_base_is_nearly_the_base(on_one_device, kind, tolerance):
    _, loss, _ = one_step((1, 2, 1, 2), LoraConfig(rank=4, alpha=8.0, quantize_base=kind))
    assert loss == pytest.approx(on_one_device[1], rel=tolerance)


def test_blocks_of_a_quantized_base_are_not_cut():
    with pytest.raises(UserError, match="in whole blocks only"):
        one_step((1, 1, 1, 4), LoraConfig(rank=4, alpha=8.0, quantize_base="int8"))


@pytest.mark.parametrize(("kind", "most"), [("int8", 1 / 254), ("nf4", 0.153)])
def test_packed_weights_are_off_by_half_a_level_at_most(kind, most):
    weight = jax.random.normal(jax.random.key(0), (6, 128))
    found = quantized.unpack(quantized.pack(weight, kind), jnp.float32)
    top = jnp.max(jnp.abs(weight).reshape(6, 2, 64), axis=-1).repeat(64, axis=-1).reshape(6, 128)
    assert float(jnp.max(jnp.abs(found - weight) / top)) <= most * 1.0001
    assert quantized.pack(weight, kind).codes.nbytes == weight.size // (1 if kind == "int8" else 2)


def test_the_adapter_folder_holds_what_peft_adds_to_the_base(on_one_device, tmp_path):
    state = on_one_device[0]
    lora.export_peft(state["params"], ARCH, LORA, tmp_path, "base")
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    merged = lora.merge(state["base"], state["params"], LORA)
    for entry in hf_entries(ARCH):
        if not entry.hf_name.endswith("_proj.weight"):
            continue
        name = f"base_model.model.{entry.hf_name.removesuffix('.weight')}"
        delta = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"] * (LORA.alpha / LORA.rank)
        part, leaf = entry.path[1:]
        before, after = (entry.to_hf(tree["layers"][part][leaf][entry.layer]) for tree in (state["base"], merged))
        np.testing.assert_allclose(after, before + delta, rtol=1e-5, atol=1e-6)


def test_unknown_targets_are_refused():
    with pytest.raises(UserError, match="targets of q, k, v, o, gate, up, down"):
        lora.check(LoraConfig(targets=("query",)))
