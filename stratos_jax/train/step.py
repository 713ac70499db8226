"""One optimizer step, compiled: each device walks its own rows and gathers a layer's weights when it comes to it.

In: architecture, settings, a mesh (its devices may be of a compile-only topology). Out: `Step`, with the jitted
function `(state, batch) -> (state, metrics)`, which donates the state, and the abstract arguments and shardings for it.

The gradient is taken per device, inside `shard_map`: weights come by all-gather over fsdp and context in the compute
format, inside the layer, and the transpose of that is a reduce-scatter of their gradients. Over `tensor` a layer's
weights stay split and tokens travel; embedding and head come whole, for this device's own tokens. Gradients add up over
micro-batches in float32; each token weighs what the batch says, divided by the weight of the whole step, so that the
number of micro-batches and devices changes nothing but the order of sums.

Shapes: B rows of a micro-batch on a device, T tokens, N = B x T, D hidden, V vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import rules
from stratos_jax.model.attention.context import zigzag_order
from stratos_jax.model.config import Architecture, ModelConfig
from stratos_jax.model.forward import forward
from stratos_jax.train import attention, gather, lora, statistics
from stratos_jax.train.config import TrainConfig
from stratos_jax.train.loss import token_losses
from stratos_jax.train.remat import policy
from stratos_jax.train.state import Layout, State, make_layout
from stratos_jax.types import UserError

Batch = dict[str, Any]
BATCH_DTYPES = {
    "tokens_BT": jnp.int32,
    "targets_BT": jnp.int32,
    "positions_BT": jnp.int32,
    "segment_ids_BT": jnp.int32,
    "loss_weights_BT": jnp.float32,
    "spans_BT": jnp.int8,
}
TOKENS = P(rules.ROWS, ("context", "tensor"))  # how a step's tokens lie on the devices
MEAN_DECAY = 0.98  # of the running mean that a spike is measured against
MICRO_BATCH_TOKENS = 16_384  # of a device, where train.rows_per_device is None
CPU_MICRO_BATCH_TOKENS = 1_024  # a CPU gains nothing by more, and has to fetch it all from memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """A compiled step, and what it takes."""

    run: Callable[[State, Batch], tuple[State, dict[str, jax.Array]]]  # jitted; the state is donated
    loss_and_grads: Callable[[State, Batch], tuple[dict[str, jax.Array], Any]]  # not jitted
    evaluate: Callable[[State, Batch], dict[str, jax.Array]]  # jitted; metrics of a batch, nothing is changed
    layout: Layout
    abstract_state: State
    abstract_batch: Batch
    state_shardings: State
    batch_shardings: Batch


def make_train_step(
    arch: Architecture,
    model: ModelConfig,
    train: TrainConfig,
    mesh: Mesh,
    *,
    row_tokens: int,
    num_steps: int,
) -> Step:
    """Build the step of a run; nothing is allocated and no device is touched."""
    layout = make_layout(arch, model, train, mesh, num_steps)
    batch_shardings = {name: NamedSharding(mesh, rules.BATCH_SPEC) for name in BATCH_DTYPES}
    shape = (train.rows_per_step, row_tokens)
    abstract_batch = {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=batch_shardings[name]) for name, dtype in BATCH_DTYPES.items()
    }
    state_shardings = rules.shardings(mesh, layout.state_specs)
    rows_per_device = micro_batch_rows(train, mesh, row_tokens)
    loss_and_grads = make_loss_and_grads(layout, model, train, mesh, rows_per_device)

    def run(state: State, batch: Batch) -> tuple[State, dict[str, jax.Array]]:
        metrics, grads = loss_and_grads(state, batch)
        return apply_gradients(layout, train, state, grads, metrics)

    replicated = NamedSharding(mesh, P())
    evaluate = make_loss_and_grads(layout, model, train, mesh, rows_per_device, with_grads=False)
    return Step(
        run=jax.jit(
            run,
            in_shardings=(state_shardings, batch_shardings),
            out_shardings=(state_shardings, replicated),
            donate_argnums=0,
        ),
        loss_and_grads=loss_and_grads,
        evaluate=jax.jit(lambda state, batch: evaluate(state, batch)[0], out_shardings=replicated),
        layout=layout,
        abstract_state=layout.abstract,
        abstract_batch=abstract_batch,
        state_shardings=state_shardings,
        batch_shardings=batch_shardings,
    )


def micro_batch_rows(train: TrainConfig, mesh: Mesh, row_tokens: int) -> int:
    """Rows that a device walks at once: as configured, or as many as make a micro-batch, and at least one."""
    row_ways, token_ways = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["context"]
    pieces = token_ways * mesh.shape["tensor"]
    problems = []
    if train.rows_per_step % row_ways:
        problems.append(f"train.rows_per_step {train.rows_per_step} is not a multiple of data x fsdp = {row_ways}")
    if row_tokens % pieces:
        problems.append(f"rows of {row_tokens} tokens are not a multiple of context x tensor = {pieces}")
    rows = train.rows_per_step // row_ways
    if not problems and train.rows_per_device and rows % train.rows_per_device:
        problems.append(f"train.rows_per_device {train.rows_per_device} does not divide the {rows} rows of a shard")
    if problems:
        raise UserError("; ".join(problems), where=f"mesh {dict(mesh.shape)}", do="change train.rows_per_step or mesh")
    if train.rows_per_device:
        return train.rows_per_device
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    most = max(1, (CPU_MICRO_BATCH_TOKENS if on_cpu else MICRO_BATCH_TOKENS) * token_ways // row_tokens)
    return next(n for n in range(min(most, rows), 0, -1) if rows % n == 0)


def apply_gradients(
    layout: Layout, train: TrainConfig, state: State, grads: Any, metrics: dict[str, jax.Array]
) -> tuple[State, dict[str, jax.Array]]:
    """The next state; a step that is not finite, or whose loss is a spike, changes nothing but the step's number."""
    leaf_norms = jnp.stack([jnp.linalg.norm(leaf.astype(jnp.float32).reshape(-1)) for leaf in jax.tree.leaves(grads)])
    updates, optimizer = layout.optimizer.update(grads, state["optimizer"], state["params"])
    params = optax.apply_updates(state["params"], updates)
    loss, mean = metrics["loss"], state["loss_mean"]
    finite = jnp.all(jnp.isfinite(leaf_norms)) & jnp.isfinite(loss)
    spike = (mean > 0) & (loss > train.spike_factor * mean) if train.spike_factor else jnp.zeros((), bool)
    good = finite & ~spike
    next_mean = jnp.where(mean > 0, MEAN_DECAY * mean + (1 - MEAN_DECAY) * loss, loss)
    new = {**state, "params": params, "optimizer": optimizer, "loss_mean": next_mean}
    kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)
    report = {"leaf_norms": leaf_norms, "grad_norm": jnp.linalg.norm(leaf_norms), "finite": finite, "spike": spike}
    report["learning_rate"] = layout.schedule(state["step"])
    return {**kept, "step": state["step"] + 1}, {**metrics, **report}


def make_loss_and_grads(
    layout: Layout, model: ModelConfig, train: TrainConfig, mesh: Mesh, rows: int, with_grads: bool = True
) -> Callable[[State, Batch], tuple[dict[str, jax.Array], Any]]:
    """The function (state, batch) -> (metrics, gradients of the parameters, sharded like them)."""
    specs, base_specs = layout.specs, layout.base_specs
    batch_specs = {name: TOKENS for name in (*BATCH_DTYPES, "ends_BT")}

    def per_device(params: Any, base: Any, batch: Batch, total_weight: jax.Array) -> tuple[Any, Any]:
        micro_loss = functools.partial(_micro_loss, layout, model, train, mesh, (specs, base_specs), base)
        micro = {k: v.reshape(-1, rows, *v.shape[1:]) for k, v in batch.items()}
        if not with_grads:
            sums = jax.lax.map(lambda b: micro_loss(params, b, total_weight)[1], micro)
            return jax.lax.psum(jax.tree.map(lambda x: jnp.sum(x, 0), sums), rules.AXES), None
        grad_of = jax.grad(micro_loss, has_aux=True)
        if micro["tokens_BT"].shape[0] == 1:
            grads, sums = grad_of(params, {k: v[0] for k, v in micro.items()}, total_weight)
        else:
            grads, sums = _accumulate(lambda b: grad_of(params, b, total_weight), params, micro)
        return jax.lax.psum(sums, rules.AXES), gather.finish_reduction(grads, specs, rules.AXES)

    run = jax.shard_map(
        per_device,
        mesh=mesh,
        in_specs=(specs, base_specs, batch_specs, P()),
        out_specs=(P(), specs if with_grads else P()),
        check_vma=False,
    )

    def loss_and_grads(state: State, batch: Batch) -> tuple[dict[str, jax.Array], Any]:
        total_weight = jnp.sum(batch["loss_weights_BT"])
        batch = {**batch, "ends_BT": statistics.ends(batch)}
        if mesh.shape["context"] > 1:  # causal work is shared evenly by tokens in zig-zag order
            order_T = zigzag_order(batch["tokens_BT"].shape[1], mesh.shape["context"])
            batch = {name: x_BT[:, order_T] for name, x_BT in batch.items()}
        sums, grads = run(state["params"], state.get("base", {}), batch, total_weight)
        return statistics.finish(sums, total_weight), grads

    return loss_and_grads


def _accumulate(grad_of: Callable, params: Any, micro: Batch) -> tuple[Any, Any]:
    """Sums over micro-batches, one after the other, in float32."""

    def add(carry: Any, batch: Batch) -> tuple[Any, None]:
        # Unfenced, the TPU compiler tries to move the gradients' reductions out of the loop, and fails an own check.
        return jax.tree.map(jnp.add, carry, jax.lax.optimization_barrier(grad_of(batch))), None

    shapes = jax.eval_shape(grad_of, {k: v[0] for k, v in micro.items()})
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.promote_types(x.dtype, jnp.float32)), shapes)
    return jax.lax.scan(add, zeros, micro)[0]


def _micro_loss(
    layout: Layout,
    model: ModelConfig,
    train: TrainConfig,
    mesh: Mesh,
    all_specs: tuple[Any, Any],
    base: Any,
    params: Any,
    batch: Batch,
    total_weight: jax.Array,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """This device's share of the step's loss for one micro-batch, and the sums behind the metrics."""
    arch, dtype = layout.arch, jnp.dtype(model.compute_dtype)
    network, specs = (base, all_specs[1]) if layout.lora else (params, all_specs[0])
    ends = gather.whole({k: v for k, v in network.items() if k != "layers"}, specs, dtype)
    head_VD = (ends["embed"] if arch.tied_head else ends["head"]).astype(dtype)
    # Rows of the embedding add up their gradients in float32: frequent tokens would be lost in bfloat16.
    layers = (network["layers"], params["layers"] if layout.lora else {})
    whole = {**ends, "embed": ends["embed"].astype(jnp.float32), "layers": layers}
    hidden_BTD, _ = forward(
        whole,
        arch,
        batch["tokens_BT"],
        positions_BT=attention.whole_rows(batch["positions_BT"], mesh),
        segment_ids_BT=attention.whole_rows(batch["segment_ids_BT"], mesh),
        compute_dtype=dtype,
        attention=model.attention,
        remat=policy(train.remat),
        constrain=attention.make_constrain(mesh),
        fetch=functools.partial(_fetch_layer, layout, specs["layers"], all_specs[0]["layers"], dtype),
        attend=attention.make_attend(mesh, model.attention),
    )
    flat = lambda x_BT: x_BT.reshape(-1)
    loss, losses_N = token_losses(  # pyright: ignore[reportGeneralTypeIssues]
        hidden_BTD.reshape(-1, hidden_BTD.shape[-1]),
        head_VD,
        flat(batch["targets_BT"]),
        flat(batch["loss_weights_BT"]) / total_weight,
        train.loss.chunk_tokens,
    )
    return loss, statistics.sums(batch, losses_N.reshape(batch["targets_BT"].shape), loss)


def _fetch_layer(layout: Layout, specs: Any, adapter_specs: Any, dtype: Any, layer: tuple[Any, Any]) -> Any:
    """One layer's weights, whole, with its adapters merged in where there are any."""
    network, adapters = layer
    weights = gather.whole(network, gather.of_one_layer(specs), dtype, stay_split=("tensor",))
    if layout.lora is None:
        return weights
    adapters = gather.whole(adapters, gather.of_one_layer(adapter_specs), jnp.float32, stay_split=("tensor",))
    return lora.merge_layer(weights, adapters, layout.lora)
