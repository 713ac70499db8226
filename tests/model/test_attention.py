"""Every attention implementation equals dense float32 attention, forward and backward, on packed rows."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from stratos_jax.model.attention import AttentionSharding, attend, zigzag_order
from stratos_jax.model.attention.api import choose
from stratos_jax.model.attention.reference import reference_attention
from stratos_jax.types import UserError

B, T, N, K, H = 2, 512, 4, 2, 16


@functools.cache
def packed():
    """Queries, keys, values, weights of the outputs, positions and segment ids of two packed rows with padding."""
    rng = np.random.default_rng(0)
    draw = lambda heads: rng.standard_normal((B, T, heads, H), dtype=np.float32)
    lengths = [(200, 270, 42), (130, 1, 381)]
    positions_BT = np.array([np.concatenate([np.arange(n) for n in row]) for row in lengths], np.int32)
    segments_BT = np.array([np.repeat([1, 2, 0], row) for row in lengths], np.int32)
    return draw(N), draw(K), draw(K), draw(N), positions_BT, segments_BT


def run(attention, *, order=None, dtype="float32"):
    """Output and gradients for q, k, v, in row order."""
    q, k, v, w, positions_BT, segments_BT = packed()
    order = np.arange(T) if order is None else order
    where = {"q_positions": positions_BT, "kv_positions": positions_BT}
    where = {name: x[:, order] for name, x in (where | {"q_segments": segments_BT, "kv_segments": segments_BT}).items()}

    def loss(q, k, v):
        out = attention(*(x.astype(dtype) for x in (q, k, v)), **where, scale=H**-0.5)
        return jnp.sum(out.astype(jnp.float32) * w[:, order]), out

    (_, out), grads = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(q[:, order], k[:, order], v[:, order])
    return [np.asarray(x, np.float32)[:, np.argsort(order)] for x in (out, *grads)]


def dense(q_BTNH, k_BSKH, v_BSKH, *, q_positions, kv_positions, q_segments, kv_segments, scale):
    """Attention with the whole matrix of scores, heads repeated, float32."""
    k_BSNH, v_BSNH = (jnp.repeat(x, N // K, axis=2) for x in (k_BSKH, v_BSKH))
    s_BNTS = jnp.einsum("BTNH,BSNH->BNTS", q_BTNH, k_BSNH) * scale
    mask_BTS = q_positions[:, :, None] >= kv_positions[:, None]
    mask_BTS &= q_segments[:, :, None] == kv_segments[:, None]
    p_BNTS = jax.nn.softmax(jnp.where(mask_BTS[:, None], s_BNTS, -1e30))
    return jnp.einsum("BNTS,BSNH->BTNH", p_BNTS, v_BSNH)


@functools.cache
def wanted():
    return run(dense)


def assert_equal(got, tolerance):
    for name, x, y in zip(("out", "dq", "dk", "dv"), got, wanted(), strict=True):
        error = np.abs(x - y).max() / np.abs(y).max()
        assert error <= tolerance, (name, error)


@pytest.mark.parametrize("block", [(512, 512), (96, 96), (64, 160)])
def test_reference_equals_dense(block):
    """One block, and blocks that divide nothing."""
    assert_equal(run(functools.partial(reference_attention, block=block)), 2e-6)


@pytest.mark.parametrize("implementation", ["splash_interpret", "gpu_flash_interpret"])
def test_kernels_equal_dense(implementation):
    assert_equal(run(functools.partial(attend, implementation=implementation)), 2e-6)


@pytest.mark.parametrize("implementation", ["splash_interpret", pytest.param("reference", marks=pytest.mark.slow)])
def test_kernels_in_bfloat16_stay_near(implementation):
    assert_equal(run(functools.partial(attend, implementation=implementation), dtype="bfloat16"), 2e-2)


@pytest.mark.parametrize(
    ("shape", "implementation"),
    [
        ((1, 2, 2, 2), "reference"),
        pytest.param((1, 2, 2, 2), "splash_interpret", marks=pytest.mark.slow),
        ((1, 1, 2, 4), "splash_interpret"),  # more devices than KV heads
        pytest.param((2, 1, 4, 1), "reference", marks=pytest.mark.slow),
        pytest.param((2, 1, 4, 1), "splash_interpret", marks=pytest.mark.slow),
        pytest.param((1, 2, 1, 4), "gpu_flash_interpret", marks=pytest.mark.slow),
    ],
)
def test_eight_devices_equal_one(shape, implementation):
    """Rows over data and fsdp, heads over tensor, tokens over context in zig-zag order."""
    mesh = jax.make_mesh(shape, ("data", "fsdp", "context", "tensor"), axis_types=(AxisType.Auto,) * 4)
    sharding = AttentionSharding(mesh=mesh, batch=("data", "fsdp"), heads=("tensor",), context="context")
    attention = functools.partial(attend, implementation=implementation, sharding=sharding)
    assert_equal(run(attention, order=zigzag_order(T, shape[2])), 2e-6)


def test_zigzag_balances_causal_work():
    """Each device's queries see the same number of keys, give or take the diagonal."""
    for shards in (1, 2, 4, 8):
        order = zigzag_order(512, shards)
        assert sorted(order) == list(range(512))
        work = (order + 1).reshape(shards, -1).sum(axis=1)
        assert work.max() == work.min()
    assert np.ptp((np.arange(512) + 1).reshape(4, -1).sum(axis=1)) > 40_000  # row order is not balanced
    with pytest.raises(UserError, match="split evenly over the context axis"):
        zigzag_order(100, 8)


def test_splash_visits_equally_many_blocks_on_each_device():
    from stratos_jax.model.attention import splash

    for order, balanced in ((zigzag_order(8192, 4), True), (np.arange(8192), False)):
        kernel = splash.make_kernel(order, 8192, 1, q_shards=4, interpret=True)
        visited = (np.asarray(kernel.fwd_mask_info.block_mask) > 0).reshape(4, -1).sum(axis=1)
        assert (np.ptp(visited) == 0) == balanced, visited


def test_memory_is_linear_in_length():
    """Twice the tokens take about twice the temporary memory, forward and backward; dense takes four times."""

    def temporary_bytes(attention, length):
        shape = lambda heads: jax.ShapeDtypeStruct((1, length, heads, H), jnp.float32)
        ids = jnp.zeros((1, length), jnp.int32)
        where = dict.fromkeys(("q_positions", "kv_positions", "q_segments", "kv_segments"), ids)
        loss = lambda q, k, v: jnp.sum(attention(q, k, v, **where, scale=1.0))
        lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape(N), shape(K), shape(K))
        return lowered.compile().memory_analysis().temp_size_in_bytes

    linear = temporary_bytes(reference_attention, 8192) / temporary_bytes(reference_attention, 4096)
    quadratic = temporary_bytes(dense, 8192) / temporary_bytes(dense, 4096)
    assert linear < 2.3 < 3.5 < quadratic, (linear, quadratic)


def test_an_implementation_that_cannot_run_here_says_so():
    for name in ("splash", "gpu_flash"):
        with pytest.raises(UserError, match="cannot run here"):
            run(functools.partial(attend, implementation=name))
    with pytest.raises(UserError, match="does not split rows"):
        choose("gpu_flash", "cuda", 2)
    assert [choose("auto", platform) for platform in ("cpu", "tpu", "cuda")] == ["reference", "splash", "gpu_flash"]
    assert choose("auto", "gpu", 2) == "reference"
    mesh = jax.make_mesh((1, 1, 1, 8), ("data", "fsdp", "context", "tensor"), axis_types=(AxisType.Auto,) * 4)
    sharding = AttentionSharding(mesh=mesh, batch=("data", "fsdp"), heads=("tensor",), context="context")
    with pytest.raises(UserError, match="heads cannot be split evenly"):
        run(functools.partial(attend, implementation="auto", sharding=sharding))
    mesh = jax.make_mesh((1, 1, 8, 1), ("data", "fsdp", "context", "tensor"), axis_types=(AxisType.Auto,) * 4)
    sharding = AttentionSharding(mesh=mesh, batch=("data", "fsdp"), heads=("tensor",), context="context")
    with pytest.raises(UserError, match="multiple of 1024 tokens"):
        run(functools.partial(attend, implementation="splash_interpret", sharding=sharding))


@pytest.mark.parametrize("head_dim", [64, 128])
def test_gpu_kernels_lower_for_cuda(head_dim):
    """Forward and backward become Triton programs without a GPU; only running them needs one."""
    from stratos_jax.model.attention.gpu_flash import gpu_flash_attention

    shape = lambda heads: jax.ShapeDtypeStruct((1, 1000, heads, head_dim), jnp.bfloat16)
    segments_BT = jnp.zeros((1, 1000), jnp.int32)
    run = lambda q, k, v: gpu_flash_attention(q, k, v, segments=segments_BT, scale=0.1, interpret=False)
    loss = lambda q, k, v: jnp.sum(run(q, k, v).astype(jnp.float32))
    allowed = [jax.export.DisabledSafetyCheck.custom_call("__gpu$xla.gpu.triton")]
    lower = jax.export.export(jax.jit(jax.grad(loss, (0, 1, 2))), platforms=["cuda"], disabled_checks=allowed)
    text = lower(shape(14), shape(2), shape(2)).mlir_module()
    assert text.count("@__gpu$xla.gpu.triton") == 3  # forward, dq, dk and dv
    assert "1024x1024" not in text
