"""Our network equals transformers': logits, gradients, sampling; and every parameter counts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models

from stratos_jax.model.cache import init_cache
from stratos_jax.model.config import read_architecture
from stratos_jax.model.forward import forward, logits
from stratos_jax.model.names import hf_entries
from stratos_jax.model.rope import frequencies

torch = pytest.importorskip("torch")
TOKENS = 1024
QUICK = ("Qwen2.5-0.5B-Instruct", "Llama-3.3-70B-Instruct")
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in tiny_models.FAMILIES if name not in QUICK]


@functools.cache
def tiny(name: str) -> tuple:
    """Config, architecture, parameters and the torch model with the same parameters."""
    config = tiny_models.tiny_config(name)
    arch = read_architecture(config)
    params = tiny_models.noisy_params(arch)
    return config, arch, params, tiny_models.torch_model(config, params)


def some_tokens(arch, rows: int, length: int) -> np.ndarray:
    return np.random.default_rng(1).integers(3, arch.vocab_size, (rows, length), dtype=np.int32)


@functools.partial(jax.jit, static_argnames=("arch", "dtype"))
def all_logits(params, arch, tokens_BT, dtype):
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
    hidden_BTD, _ = forward(params, arch, tokens_BT, positions_BT=positions_BT, compute_dtype=dtype)
    return logits(params, arch, hidden_BTD)


@functools.partial(jax.jit, static_argnames=("arch",))
@functools.partial(jax.value_and_grad, has_aux=True)
def loss_and_grads(params, arch, tokens_BT):
    logits_BTV = all_logits(params, arch, tokens_BT, "float32")
    log_probs_BTV = jax.nn.log_softmax(logits_BTV[:, :-1])
    return -jnp.mean(jnp.take_along_axis(log_probs_BTV, tokens_BT[:, 1:, None], axis=-1)), logits_BTV


@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_logits_and_gradients_equal_transformers(name):
    """Float32: logits to 2e-5 of their scale and every gradient to 1e-4 of its own, over 1,024 tokens."""
    _, arch, params, model = tiny(name)
    tokens_BT = some_tokens(arch, 1, TOKENS)
    out = model(input_ids=torch.from_numpy(tokens_BT).long(), labels=torch.from_numpy(tokens_BT).long())
    wanted_BTV = out.logits.detach().numpy()
    (loss, got_BTV), grads = loss_and_grads(params, arch, tokens_BT)
    assert np.abs(got_BTV - wanted_BTV).max() <= 2e-5 * np.abs(wanted_BTV).max()

    model.zero_grad()
    out.loss.backward()
    wanted = {key: p.grad.numpy() for key, p in model.named_parameters() if p.grad is not None}
    np.testing.assert_allclose(loss, out.loss.item(), rtol=1e-6)
    got = tiny_models.to_hf_tensors(arch, jax.tree.map(np.asarray, grads))
    assert got.keys() == wanted.keys()
    for key in got:
        error = np.abs(got[key] - wanted[key]).max() / np.abs(wanted[key]).max()
        assert error <= 1e-4, (key, error)


@pytest.mark.parametrize("name", ["Qwen2.5-7B-Instruct", "Qwen2.5-0.5B-Instruct", "Llama-3.3-70B-Instruct"])
def test_every_parameter_moves_the_logits(name):
    """A leaf that the forward pass forgets would leave the logits as they are."""
    _, arch, params, _ = tiny(name)
    tokens_BT = some_tokens(arch, 1, 16)
    before_BTV = all_logits(params, arch, tokens_BT, "float32")
    for entry in hf_entries(arch):
        changed = jax.tree.map(np.copy, params)
        leaf = functools.reduce(lambda tree, key: tree[key], entry.path, changed)
        target = leaf if entry.layer is None else leaf[entry.layer]
        if entry.path[-1] == "k_bias":  # one constant for all keys of a head would cancel in the softmax
            target[..., : arch.head_dim // 2] += 0.5
        else:
            target += 0.1 * (1 + np.abs(target))
        moved = float(jnp.abs(all_logits(changed, arch, tokens_BT, "float32") - before_BTV).max())
        assert moved > 1e-3, (entry.hf_name, moved)


@pytest.mark.parametrize("name", ["Qwen2.5-7B-Instruct", pytest.param("Llama-3.1-8B", marks=pytest.mark.slow)])
def test_bfloat16_stays_near_float32(name):
    """bf16 compute: KL from the float32 model at most 1e-3 at each position, and no worse than transformers in bf16."""
    config, arch, params, model = tiny(name)
    tokens_BT = some_tokens(arch, 1, TOKENS)
    run = lambda model: model(input_ids=torch.from_numpy(tokens_BT).long()).logits.float().numpy()
    with torch.no_grad():
        wanted_BTV = run(model)
        theirs_BTV = run(tiny_models.torch_model(config, params).bfloat16())
    ours_BTV = all_logits(params, arch, tokens_BT, "bfloat16")
    assert kl(wanted_BTV, ours_BTV).max() <= 1e-3
    assert kl(wanted_BTV, ours_BTV).mean() <= kl(wanted_BTV, theirs_BTV).mean()


def kl(p_BTV, q_BTV) -> np.ndarray:
    """KL divergence of each position's next-token distribution, nats."""
    p_BTV, q_BTV = jax.nn.log_softmax(p_BTV), jax.nn.log_softmax(q_BTV)
    return np.asarray(jnp.sum(jnp.exp(p_BTV) * (p_BTV - q_BTV), axis=-1))


@functools.partial(jax.jit, static_argnames=("arch", "steps"))
def generate(params, arch, prompts_BT, segments_BT, steps):
    """Greedy tokens after right-padded prompts, through the KV cache."""
    B, T = prompts_BT.shape
    positions_BT = jnp.broadcast_to(jnp.arange(T), prompts_BT.shape)
    cache = init_cache(arch, B, T + steps, "float32")
    kwargs = {"compute_dtype": "float32"}
    hidden_BTD, cache = forward(
        params, arch, prompts_BT, positions_BT=positions_BT, segment_ids_BT=segments_BT, cache=cache, **kwargs
    )
    last_B1D = jnp.take_along_axis(hidden_BTD, (cache.lengths_B - 1)[:, None, None], axis=1)

    def step(carry, _):
        last_B1D, cache = carry
        tokens_B1 = jnp.argmax(logits(params, arch, last_B1D), axis=-1).astype(jnp.int32)
        hidden_B1D, cache = forward(
            params, arch, tokens_B1, positions_BT=cache.lengths_B[:, None], cache=cache, **kwargs
        )
        return (hidden_B1D, cache), tokens_B1[:, 0]

    return jax.lax.scan(step, (last_B1D, cache), length=steps)[1].T


@pytest.mark.parametrize("name", ["Qwen2.5-7B-Instruct", pytest.param("Llama-3.1-8B", marks=pytest.mark.slow)])
def test_greedy_continuation_equals_transformers_generate(name):
    """16 prompts of different lengths, 128 tokens each, token for token."""
    _, arch, params, model = tiny(name)
    tokens_BT = some_tokens(arch, 16, 24)
    lengths_B = 9 + np.arange(16) % 16
    segments_BT = (np.arange(24) < lengths_B[:, None]).astype(np.int32)
    got_BT = np.asarray(generate(params, arch, tokens_BT * segments_BT, segments_BT, 128))
    left_padded_BT = np.stack([np.roll(row, 24 - n) for row, n in zip(tokens_BT * segments_BT, lengths_B)])
    left_mask_BT = np.stack([np.roll(row, 24 - n) for row, n in zip(segments_BT, lengths_B)])
    out_BT = model.generate(
        torch.from_numpy(left_padded_BT).long(),
        attention_mask=torch.from_numpy(left_mask_BT).long(),
        max_new_tokens=128,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    np.testing.assert_array_equal(got_BT, out_BT.numpy()[:, 24:])
    assert len(np.unique(got_BT)) > 20  # a loop on one token would prove little


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_rotary_frequencies_are_pytorch_s(name):
    """Bit for bit, but for one unit in the last place of one frequency at most: far positions magnify it."""
    from transformers import AutoConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = tiny_models.real_config(name)
    kwargs = {key: value for key, value in config.items() if key not in ("model_type", "torch_dtype")}
    wanted = LlamaRotaryEmbedding(AutoConfig.for_model(config["model_type"], **kwargs)).inv_freq.numpy()
    got = frequencies(read_architecture(config))
    assert (got != wanted).sum() <= 1
    np.testing.assert_array_max_ulp(got, wanted, 1)


def test_logits_at_far_positions():
    """Positions round 30,000, heads of 64: a rotation that loses digits there would show."""
    config = tiny_models.tiny_config("Qwen2.5-7B-Instruct", head_dim=64)
    arch = read_architecture(config)
    params = tiny_models.noisy_params(arch)
    tokens_BT = some_tokens(arch, 1, 64)
    positions_BT = np.arange(30_000, 30_064, dtype=np.int32)[None]
    model = tiny_models.torch_model(config, params)
    with torch.no_grad():
        inputs = {"input_ids": tokens_BT, "position_ids": positions_BT}
        wanted_BTV = model(**{key: torch.from_numpy(value).long() for key, value in inputs.items()}).logits.numpy()
    hidden_BTD, _ = forward(params, arch, tokens_BT, positions_BT=positions_BT, compute_dtype="float32")
    got_BTV = np.asarray(logits(params, arch, hidden_BTD))
    assert np.abs(got_BTV - wanted_BTV).max() <= 2e-5 * np.abs(wanted_BTV).max()
