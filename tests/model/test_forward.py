"""Invariances of the forward pass: packing, recomputation, caching, and how many devices share it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_models
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.model.attention import AttentionSharding, zigzag_order
from stratos_jax.model.cache import init_cache
from stratos_jax.model.config import read_architecture
from stratos_jax.model.forward import forward, logits
from stratos_jax.model.params import logical_axes
from stratos_jax.model.rope import partners

T = 64
ARCH = read_architecture(tiny_models.tiny_config("Llama-3.1-8B") | {"num_attention_heads": 8, "hidden_size": 64})
PARAMS = tiny_models.noisy_params(ARCH)
LENGTHS = (25, 30, 9)  # two documents and padding


def packed_row():
    tokens_BT = np.random.default_rng(2).integers(0, ARCH.vocab_size, (4, T), dtype=np.int32)
    positions_BT = np.tile(np.concatenate([np.arange(n) for n in LENGTHS]), (4, 1)).astype(np.int32)
    segments_BT = np.tile(np.repeat([1, 2, 0], LENGTHS), (4, 1)).astype(np.int32)
    return tokens_BT, positions_BT, segments_BT


@functools.partial(jax.jit, static_argnames=("remat", "dtype"))
def run(params, tokens_BT, positions_BT, segments_BT, remat=None, dtype="float32"):
    """Logits, and the gradients of a weighted sum of them."""

    def loss(params):
        kwargs = {"positions_BT": positions_BT, "segment_ids_BT": segments_BT}
        hidden_BTD, _ = forward(params, ARCH, tokens_BT, **kwargs, compute_dtype=dtype, remat=remat)
        out_BTV = logits(params, ARCH, hidden_BTD)
        return jnp.mean(jax.nn.logsumexp(out_BTV, axis=-1) * (segments_BT > 0)), out_BTV

    return jax.value_and_grad(loss, has_aux=True)(params)


def assert_near(got, wanted, tolerance):
    for (path, x), y in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(wanted), strict=True):
        error = np.abs(np.asarray(x) - y).max() / np.abs(y).max()
        assert error <= tolerance, (jax.tree_util.keystr(path), error)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotary_partners_are_the_same_bits_as_a_product(dtype):
    x_BTNH = jax.random.normal(jax.random.key(0), (2, 5, 3, 8)).astype(dtype)
    by_halves, by_product = (jax.jit(functools.partial(partners, as_product=way))(x_BTNH) for way in (False, True))
    np.testing.assert_array_equal(by_product, by_halves)
    np.testing.assert_array_equal(by_halves[..., :4], -x_BTNH[..., 4:].astype("float32"))


def test_a_packed_row_equals_its_documents_alone():
    tokens_BT, positions_BT, segments_BT = packed_row()
    (_, packed_BTV), _ = run(PARAMS, tokens_BT, positions_BT, segments_BT)
    start = 0
    for length in LENGTHS[:2]:
        alone_BT = np.zeros_like(tokens_BT)
        alone_BT[:, :length] = tokens_BT[:, start : start + length]
        mask_BT = np.tile(np.arange(T) < length, (4, 1)).astype(np.int32)
        (_, alone_BTV), _ = run(PARAMS, alone_BT, np.tile(np.arange(T, dtype=np.int32), (4, 1)), mask_BT)
        assert_near(packed_BTV[:, start : start + length], np.asarray(alone_BTV[:, :length]), 2e-6)
        start += length


@pytest.mark.parametrize(
    "policy", ["context", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "names"))]
)
def test_recomputation_changes_nothing(policy):
    policies = {
        "full": jax.checkpoint_policies.nothing_saveable,
        "context": jax.checkpoint_policies.save_only_these_names("attention_context"),
        "names": jax.checkpoint_policies.save_only_these_names("query", "key", "value", "mlp_gate", "mlp_up"),
    }
    wanted = run(PARAMS, *packed_row())
    assert_near(run(PARAMS, *packed_row(), remat=policies[policy]), jax.tree.map(np.asarray, wanted), 1e-6)


def test_policies_save_what_they_name():
    """Each name of the docstring marks something: with it saved, the backward pass keeps more."""

    def saved_bytes(*names):
        policy = jax.checkpoint_policies.save_only_these_names(*names)
        tokens_BT, positions_BT, segments_BT = packed_row()
        hidden = lambda params: forward(
            params,
            ARCH,
            tokens_BT,
            positions_BT=positions_BT,
            segment_ids_BT=segments_BT,
            compute_dtype="float32",
            remat=policy,
        )[0]
        residuals = jax.eval_shape(lambda params: jax.vjp(hidden, params)[1], PARAMS)
        return sum(leaf.size for leaf in jax.tree.leaves(residuals))

    nothing = saved_bytes()
    for name in ("query", "key", "value", "attention_context", "mlp_gate", "mlp_up"):
        assert saved_bytes(name) > nothing, name


def test_prefill_and_decode_equal_the_full_forward():
    """Right-padded prompts of different lengths, a second chunk, then single tokens."""
    tokens_BT = packed_row()[0]
    positions_BT = np.tile(np.arange(T, dtype=np.int32), (4, 1))
    (_, wanted_BTV), _ = run(PARAMS, tokens_BT, positions_BT, np.ones_like(tokens_BT))
    lengths_B = np.array([5, 16, 11, 1])
    cache = init_cache(ARCH, 4, 32, "float32")
    step = jax.jit(functools.partial(forward, compute_dtype="float32"), static_argnums=1)
    got = []
    for _ in range(2):  # a fresh cache, then one that has tokens
        chunk_BT = lengths_B[:, None] * len(got) + np.arange(16)
        valid_BT = (np.arange(16) < lengths_B[:, None]).astype(np.int32)
        chunk_tokens_BT = np.where(valid_BT, np.take_along_axis(tokens_BT, chunk_BT, 1), -7 % ARCH.vocab_size)
        hidden_BTD, cache = step(
            PARAMS, ARCH, chunk_tokens_BT, positions_BT=chunk_BT, segment_ids_BT=valid_BT, cache=cache
        )
        got.append((chunk_BT, valid_BT, hidden_BTD))
    np.testing.assert_array_equal(cache.lengths_B, 2 * lengths_B)
    cache = jax.tree.map(lambda x: x, cache)
    for _ in range(3):
        now_B1 = np.minimum(np.asarray(cache.lengths_B)[:, None], 31)
        tokens_B1 = np.take_along_axis(tokens_BT, now_B1, 1)
        live_B1 = (np.asarray(cache.lengths_B)[:, None] < 32).astype(np.int32)  # a full row takes no more tokens
        hidden_BTD, cache = step(PARAMS, ARCH, tokens_B1, positions_BT=now_B1, segment_ids_BT=live_B1, cache=cache)
        got.append((now_B1, live_B1, hidden_BTD))
    np.testing.assert_array_equal(cache.lengths_B, np.minimum(2 * lengths_B + 3, 32))
    for where_BT, valid_BT, hidden_BTD in got:
        out_BTV = np.asarray(logits(PARAMS, ARCH, hidden_BTD))
        right_BTV = np.take_along_axis(np.asarray(wanted_BTV), where_BT[..., None], 1)
        error_BT = np.abs(out_BTV - right_BTV).max(axis=-1)[valid_BT > 0]
        assert error_BT.max() <= 5e-6 * np.abs(right_BTV).max()


MESHES = {"fsdp": (1, 8, 1, 1), "tensor": (1, 1, 1, 8), "context": (1, 1, 8, 1), "mixed": (1, 2, 2, 2)}
PARAM_RULES = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "mlp": "tensor"}
ACTIVATION_RULES = {"batch": ("data", "fsdp"), "sequence": "context", "heads": "tensor", "mlp": "tensor"}


@functools.cache
def one_device():
    tokens_BT, positions_BT, segments_BT = (np.tile(x, (2, 1)) for x in packed_row())
    return jax.tree.map(np.asarray, run(PARAMS, tokens_BT, positions_BT, segments_BT))


@pytest.mark.parametrize(
    "name", ["mixed", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fsdp", "tensor", "context"))]
)
def test_eight_devices_equal_one(name):
    """Logits and gradients of 8 rows over a mesh, with parameters, rows, heads and tokens split."""
    mesh = jax.make_mesh(MESHES[name], ("data", "fsdp", "context", "tensor"), axis_types=(AxisType.Auto,) * 4)
    sharding = AttentionSharding(mesh=mesh, batch=("data", "fsdp"), heads=("tensor",), context="context")
    place = lambda rules, axes: NamedSharding(mesh, P(*(rules.get(axis) for axis in axes)))
    constrain = lambda x, axes: jax.lax.with_sharding_constraint(x, place(ACTIVATION_RULES, axes))
    axes = logical_axes(ARCH)
    param_shardings = jax.tree.map(
        lambda leaf: place(PARAM_RULES, leaf), axes, is_leaf=lambda value: isinstance(value, tuple)
    )
    batch_sharding = NamedSharding(mesh, P(("data", "fsdp"), "context"))
    order = zigzag_order(T, MESHES[name][2])
    batch = jax.device_put([np.tile(x, (2, 1))[:, order] for x in packed_row()], batch_sharding)
    params = jax.device_put(PARAMS, param_shardings)

    def loss(params, tokens_BT, positions_BT, segments_BT):
        hidden_BTD, _ = forward(
            params,
            ARCH,
            tokens_BT,
            positions_BT=positions_BT,
            segment_ids_BT=segments_BT,
            compute_dtype="float32",
            remat=jax.checkpoint_policies.nothing_saveable,
            constrain=constrain,
            sharding=sharding,
        )
        out_BTV = logits(params, ARCH, hidden_BTD, constrain=constrain)
        return jnp.mean(jax.nn.logsumexp(out_BTV, axis=-1) * (segments_BT > 0)), out_BTV

    step = jax.jit(jax.value_and_grad(loss, has_aux=True), out_shardings=((None, None), param_shardings))
    (value, out_BTV), grads = step(params, *batch)
    assert not grads["layers"]["mlp"]["gate"].sharding.is_fully_replicated or name == "context"
    out_BTV = np.asarray(out_BTV)[:, np.argsort(order)]
    assert_near(((value, out_BTV), grads), one_device(), 2e-6)


def test_mixed_precision_gradients_are_float32():
    """Float32 parameters with bf16 compute: gradients arrive in float32 and point where float32 ones do."""
    _, wanted = run(PARAMS, *packed_row())
    _, got = run(PARAMS, *packed_row(), dtype="bfloat16")
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == jnp.float32
        cosine = jnp.vdot(x, y) / (jnp.linalg.norm(x) * jnp.linalg.norm(y))
        assert cosine > 0.99
