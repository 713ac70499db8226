"""The sampler against transformers.generate, and against itself under other batch sizes, orders and step counts."""

import jax
import numpy as np
import pytest
from tiny_models import noisy_params, tiny_config, torch_model

from stratos_jax.engine.config import EngineConfig, SamplingConfig
from stratos_jax.engine.engine import Engine
from stratos_jax.engine.request import Request
from stratos_jax.engine.sampler import Choice, next_tokens
from stratos_jax.model.config import read_architecture
from stratos_jax.types import UserError

EOS = 2
FLOAT32 = {"cache_dtype": "float32", "compute_dtype": "float32"}


@pytest.fixture(scope="module")
def small():
    config = tiny_config("Qwen2.5-7B-Instruct")
    arch = read_architecture(config)
    params = noisy_params(arch)
    return config, arch, params, Engine(params, arch, EngineConfig(batch_size=4, decode_steps=5, **FLOAT32), [EOS])


def prompts(count, seed=0):
    rng = np.random.default_rng(seed)
    return [tuple(int(t) for t in rng.integers(3, 160, rng.integers(3, 16))) for _ in range(count)]


def ask(engine, sampling, tokens, copies=1):
    requests = [
        Request(id=f"{i}/{k}", tokens=t, sampling=sampling, problem_key=f"problem {i}", sample_index=k)
        for i, t in enumerate(tokens)
        for k in range(copies)
    ]
    return {c.id: c for c in engine.generate(requests)}


def check_greedy(config, params, engine, torch):
    tokens = prompts(9)
    got = ask(engine, SamplingConfig(max_tokens=40), tokens)
    theirs = torch_model(config, params)
    for i, prompt in enumerate(tokens):
        with torch.no_grad():
            out = theirs.generate(
                torch.tensor([prompt]), max_new_tokens=40, do_sample=False, eos_token_id=EOS, pad_token_id=0
            )
        assert list(got[f"{i}/0"].tokens) == out[0, len(prompt) :].tolist()
        ended = got[f"{i}/0"].tokens[-1] == EOS
        assert got[f"{i}/0"].finish_reason == ("stop" if ended else "length")


def test_greedy_equals_transformers_token_for_token(small):
    config, _, params, engine = small
    check_greedy(config, params, engine, pytest.importorskip("torch"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Qwen2.5-3B", "Llama-3.1-8B"])
def test_greedy_equals_transformers_for_other_networks(name):
    config = tiny_config(name)
    arch, torch = read_architecture(config), pytest.importorskip("torch")
    params = noisy_params(arch)
    engine = Engine(params, arch, EngineConfig(batch_size=4, decode_steps=5, **FLOAT32), [EOS])
    check_greedy(config, params, engine, torch)


def test_samples_do_not_depend_on_batch_order_or_steps(small):
    _, arch, params, one = small
    sampling = SamplingConfig(temperature=1.0, top_p=0.95, max_tokens=25, seed=3)
    other = Engine(params, arch, EngineConfig(batch_size=8, decode_steps=16, **FLOAT32), [EOS])
    tokens = prompts(5)
    left, right = ask(one, sampling, tokens, copies=2), ask(other, sampling, tokens, copies=3)
    assert {k: right[k] for k in left} == left  # a third sample changes nothing of the first two
    assert left["0/0"].tokens != left["0/1"].tokens


def test_stop_tokens_end_a_sequence(small):
    engine = small[3]
    free = ask(engine, SamplingConfig(max_tokens=20), prompts(3))["1/0"].tokens
    stop = free[4]
    cut = ask(engine, SamplingConfig(max_tokens=20, stop_ids=(stop,)), prompts(3))["1/0"]
    assert cut.tokens == free[: free.index(stop) + 1] and cut.finish_reason == "stop"


def test_bad_requests_are_refused_together(small):
    engine = small[3]
    with pytest.raises(UserError, match="(?s)0/0.*1/0"):
        ask(engine, SamplingConfig(), [(), (160,)])
    with pytest.raises(UserError, match="top_p"):
        ask(engine, SamplingConfig(top_p=0.0), prompts(1))


def choice(count, *, temperature=1.0, top_p=1.0, top_k=0, problem=0):
    words = np.stack([np.zeros(count), np.full(count, problem), np.arange(count)], axis=1).astype(np.uint32)
    full = lambda value, dtype: np.full(count, value, dtype)
    return Choice(
        words_B3=words,
        temperature_B=full(temperature, np.float32),
        top_p_B=full(top_p, np.float32),
        top_k_B=full(top_k, np.int32),
    )


draw = jax.jit(next_tokens)


@pytest.mark.parametrize("top_p, top_k", [(1.0, 0), (0.7, 0), (1.0, 3), (0.8, 4)])
def test_draws_follow_the_filtered_distribution(top_p, top_k):
    logits = np.array([2.0, 1.0, 0.5, -0.5, -1.0, 1.5, -3.0], np.float32)
    temperature, count = 0.8, 20_000
    scaled = logits / temperature
    order = np.argsort(-scaled)
    kept = order[: top_k or len(order)]
    mass = np.exp(scaled[kept]) / np.exp(scaled[kept]).sum()
    kept = kept[: int(np.searchsorted(np.cumsum(mass), top_p - 1e-6)) + 1]
    wanted = np.zeros(len(logits))
    wanted[kept] = np.exp(scaled[kept]) / np.exp(scaled[kept]).sum()
    how = choice(count, temperature=temperature, top_p=top_p, top_k=top_k)
    drawn = draw(np.tile(logits, (count, 1)), how, np.zeros(count, np.int32))
    share = np.bincount(np.asarray(drawn), minlength=len(logits)) / count
    assert (share[wanted == 0] == 0).all()
    assert np.abs(share - wanted).max() < 4 * 0.5 / np.sqrt(count)


def test_noise_differs_with_each_of_its_words():
    logits = np.zeros((1, 1000), np.float32)
    draws = {int(draw(logits, choice(1), np.array([p], np.int32))[0]) for p in range(5)}
    draws |= {int(draw(logits, choice(1, problem=p), np.zeros(1, np.int32))[0]) for p in range(1, 5)}
    assert len(draws) >= 8
