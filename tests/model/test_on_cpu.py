"""The CPU's own words for a layer's arithmetic: same numbers and gradients as plain JAX, kept under the same names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name
from tiny_models import tiny_config

from stratos_jax.model import on_cpu
from stratos_jax.model.config import read_architecture
from stratos_jax.model.forward import forward
from stratos_jax.model.params import init_params

SHAPES = {"x": (2, 8, 16), "gate": (16, 24), "up": (16, 24), "down": (24, 16), "q": (16, 4, 8), "k": (16, 2, 8)}
TOLERANCE = {"float32": 2e-6, "bfloat16": 2e-2}


def draw(name: str, dtype: str = "float32") -> jax.Array:
    key = jax.random.key(list(SHAPES).index(name))
    return (0.3 * jax.random.normal(key, SHAPES[name], jnp.float32)).astype(dtype)


def gradients_agree(ours, plain, args: tuple, dtype: str) -> None:
    """Values, and gradients of all arguments, within the format's rounding of the largest number."""
    weigh = lambda y: jnp.sum(y.astype(jnp.float32) * jnp.sin(jnp.arange(y.size)).reshape(y.shape))
    total = lambda f: lambda *args: sum(weigh(y) for y in jax.tree.leaves(f(*args)))
    numbers = range(len(args))
    got = (ours(*args), jax.grad(total(ours), numbers)(*args))
    wanted = (plain(*args), jax.grad(total(plain), numbers)(*args))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        assert np.abs(a - b).max() <= TOLERANCE[dtype] * np.abs(b).max()


def plain_product(spec, x, weight):
    return jnp.einsum(spec, x, weight.astype(x.dtype), precision="highest")


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_einsum(dtype):
    spec = "BTD,DNH->BTNH"
    args = (draw("x", dtype), draw("q"))
    gradients_agree(lambda *a: on_cpu.einsum(spec, *a), lambda *a: plain_product(spec, *a), args, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_heads(dtype):
    plain = lambda x, *weights: [plain_product("BTD,DNH->BTNH", x, weight) for weight in weights]
    gradients_agree(on_cpu.heads, plain, (draw("x", dtype), draw("q"), draw("k"), draw("k") + 1), dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_swiglu(dtype):
    def plain(x, gate, up, down):
        wide = jax.nn.silu(plain_product("BTD,DF->BTF", x, gate)) * plain_product("BTD,DF->BTF", x, up)
        return plain_product("BTF,FD->BTD", wide, down)

    gradients_agree(
        on_cpu.swiglu, plain, tuple(draw(n, dtype if n == "x" else "float32") for n in list(SHAPES)[:4]), dtype
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_to_tokens(dtype):
    x, scale = draw("x", dtype), draw("gate")[:, 0].astype(dtype)
    ours = lambda x, scale: x * on_cpu.to_tokens(scale, x.shape)
    gradients_agree(ours, lambda x, scale: x * scale, (x, scale), dtype)


def test_weights_gradient_is_not_rounded_to_the_activations_format():
    x, weight = draw("x", "bfloat16"), draw("gate")
    grad = jax.grad(lambda w: jnp.sum(on_cpu.einsum("BTD,DF->BTF", x, w).astype(jnp.float32)))(weight)
    assert np.any(np.asarray(grad) != np.asarray(grad.astype(jnp.bfloat16), np.float32))


@pytest.mark.parametrize("keep", [on_cpu.keep, checkpoint_name], ids=["ours", "jax"])
def test_a_loop_stacks_kept_bfloat16_as_integers(keep):
    """With jax's own name the compiled loop converts the whole stack for each layer; with ours it never does."""

    def layer(x, weight):
        hidden = keep(on_cpu.einsum("BTD,DF->BTF", x.astype(jnp.bfloat16), weight), "hidden")
        return on_cpu.einsum("BTF,DF->BTD", jnp.sin(hidden), weight).astype(jnp.float32), None

    body = jax.checkpoint(layer, policy=jax.checkpoint_policies.save_only_these_names("hidden"), prevent_cse=False)
    loss = lambda x, weights: jnp.sum(jax.lax.scan(body, x, weights)[0])
    weights = jnp.stack([draw("gate")] * 5)
    x = draw("x")
    text = jax.jit(jax.grad(loss, 1)).lower(x, weights).compile().as_text()
    stacks = [line for line in text.splitlines() if "dynamic-update-slice(" in line and "[5,2,8,24]" in line]
    assert stacks
    assert all("= u16[" in line for line in stacks) == (keep is on_cpu.keep)
    plain = jax.grad(lambda x, w: jnp.sum(jax.lax.scan(layer, x, w)[0]), 1)(x, weights)
    np.testing.assert_array_equal(jax.grad(loss, 1)(x, weights), plain)


def test_float32_layers_are_written_out_and_give_the_same(monkeypatch):
    """No loop over stacked layers is left, few blocks of attention make no loop, and a remat policy still holds."""
    arch = read_architecture(tiny_config("Qwen2.5-0.5B-Instruct"))
    params = init_params(arch, jax.random.key(0), "float32")
    tokens = jax.random.randint(jax.random.key(1), (2, 24), 0, arch.vocab_size)
    positions = jnp.broadcast_to(jnp.arange(24), tokens.shape)
    policy = jax.checkpoint_policies.nothing_saveable

    def loss(params):
        hidden, _ = forward(params, arch, tokens, positions_BT=positions, compute_dtype="float32", remat=policy)
        return jnp.mean(hidden**2)

    gradient = lambda: jax.jit(jax.grad(loss)).lower(params).compile()
    written_out = gradient()
    monkeypatch.setattr(on_cpu, "lays_out", lambda *_: False)
    looped = gradient()
    loops = lambda program: program.as_text().count(" while(")
    assert loops(written_out) == 0 and loops(looped) == 2
    for a, b in zip(jax.tree.leaves(written_out(params)), jax.tree.leaves(looped(params)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)
