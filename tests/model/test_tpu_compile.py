"""The real TPU compiler takes forward and backward of 7B and 32B with splash attention; no TPU is needed."""

import functools
import os

import jax
import jax.numpy as jnp
import pytest
import tiny_models
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import layout, topology
from stratos_jax.model.attention import AttentionSharding
from stratos_jax.model.config import read_architecture
from stratos_jax.model.forward import forward, logits
from stratos_jax.model.params import abstract_params, logical_axes

pytestmark = [pytest.mark.slow, pytest.mark.tpu_compiler]

LENGTH = 16_384
LOSS_CHUNKS = 16
PARAM_RULES = {"embed": "fsdp", "vocab": "tensor", "heads": "tensor", "kv_heads": "tensor", "mlp": "tensor"}
ACTIVATION_RULES = {
    "batch": ("data", "fsdp"),
    "sequence": "context",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "vocab": "tensor",
}


def compile_gradients(model: str, target: str, *, context: int = 1, tensor: int = 1):
    """The compiled gradient of the loss of one row per replica, parameters float32, compute bf16, all recomputed."""
    piece = topology.parse(target)
    fsdp = piece.num_devices // context // tensor
    shape = {"data": 1, "fsdp": fsdp, "context": context, "tensor": tensor}
    mesh = layout.make_mesh(shape, topology.devices(piece))
    arch = read_architecture(tiny_models.real_config(model))
    place = lambda rules, axes: NamedSharding(mesh, P(*(rules.get(axis) for axis in axes)))
    with_sharding = lambda leaf, axes: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place(PARAM_RULES, axes))
    params = jax.tree.map(with_sharding, abstract_params(arch, "float32"), logical_axes(arch))
    batch_sharding = NamedSharding(mesh, P(("data", "fsdp"), "context"))
    tokens = jax.ShapeDtypeStruct((fsdp, LENGTH), jnp.int32, sharding=batch_sharding)
    sharding = AttentionSharding(mesh=mesh, batch=("data", "fsdp"), heads=("tensor",), context="context")
    constrain = lambda x, axes: jax.lax.with_sharding_constraint(x, place(ACTIVATION_RULES, axes))

    def loss(params, tokens_BT, positions_BT, segments_BT):
        hidden_BTD, _ = forward(
            params,
            arch,
            tokens_BT,
            positions_BT=positions_BT,
            segment_ids_BT=segments_BT,
            compute_dtype="bfloat16",
            attention="splash",
            remat=jax.checkpoint_policies.nothing_saveable,
            constrain=constrain,
            sharding=sharding,
        )
        chunked = lambda x: x.reshape(fsdp, LOSS_CHUNKS, -1, *x.shape[2:]).swapaxes(0, 1)

        @functools.partial(jax.checkpoint, prevent_cse=False)
        def add(total, chunk):
            hidden_BCD, tokens_BC = chunk
            log_probs_BCV = jax.nn.log_softmax(logits(params, arch, hidden_BCD, constrain=constrain))
            return total - jnp.sum(jnp.take_along_axis(log_probs_BCV, tokens_BC[..., None], axis=-1)), None

        return jax.lax.scan(add, 0.0, (chunked(hidden_BTD), chunked(tokens_BT)))[0]

    out_shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    return jax.jit(jax.grad(loss), out_shardings=out_shardings).lower(params, tokens, tokens, tokens).compile()


@pytest.fixture(autouse=True)
def compiler(monkeypatch):
    """libtpu for the compiler alone: another process may have it loaded."""
    pytest.importorskip("libtpu")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")


@pytest.mark.parametrize("target", ["v5e:8x8", "v5p:4x4x4", "v6e:8x8", "tpu7x:4x4x4"])
def test_7b_compiles(target):
    check(compile_gradients("Qwen2.5-7B-Instruct", target))


@pytest.mark.parametrize(
    ("target", "context", "tensor"),  # one whole row on a v5e chip wants 15.86 of 15.75 GiB
    [("v5e:16x16", 2, 1), ("v5p:4x4x4", 1, 1), ("v6e:8x8", 1, 1), ("tpu7x:4x4x4", 1, 1), ("v6e:8x8", 2, 4)],
)
def test_32b_compiles(target, context, tensor):
    check(compile_gradients("Qwen2.5-32B-Instruct", target, context=context, tensor=tensor))


def test_heads_of_64_compile():
    """The 0.5B has heads of half a tile."""
    check(compile_gradients("Qwen2.5-0.5B-Instruct", "v5e:2x2"))


def check(compiled) -> None:
    """Both splash kernels are in the program, and nothing quadratic in length is."""
    text = compiled.as_text()
    assert "splash_mqa_fwd" in text and "splash_mqa_dkv" in text
    assert f"{LENGTH},{LENGTH}]" not in text
    peak_gib = compiled.memory_analysis().peak_memory_in_bytes / 2**30
    print(os.environ["PYTEST_CURRENT_TEST"], f"peak {peak_gib:.1f} GiB per device")
