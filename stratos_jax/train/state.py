"""What training carries from step to step: a plain dict, made without devices or on a mesh.

In: architecture, settings, mesh. Out: `{"params", "optimizer", "step", "loss_mean"}` (and `"base"`, the frozen weights
of a LoRA run) as shapes, as partition specs, or as arrays that are born sharded.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import rules
from stratos_jax.model import params as model_params
from stratos_jax.model.config import Architecture, ModelConfig
from stratos_jax.train import lora
from stratos_jax.train.config import LoraConfig, TrainConfig
from stratos_jax.train.optimizer import make_optimizer, make_schedule
from stratos_jax.train.quantized import is_packed
from stratos_jax.types import UserError

State = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
    """Shapes, axes and specs of the state of one run; needs no device."""

    arch: Architecture
    specs: Any  # partition specs of the trained parameters
    base_specs: Any  # of the frozen ones; {} where all are trained
    lora: LoraConfig | None
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    param_dtype: str
    param_shardings: Any  # of the whole network's parameters, trained or frozen
    abstract: State
    state_specs: State


def make_layout(arch: Architecture, model: ModelConfig, train: TrainConfig, mesh: Mesh, num_steps: int) -> Layout:
    """Decide what is trained, how it is stored and how it is split; refuse a mesh that does not divide it."""
    axes, abstract = model_params.logical_axes(arch), model_params.abstract_params(arch, model.param_dtype)
    rules.check_divides(mesh.shape, axes, abstract)
    specs, base_specs = rules.param_specs(axes, mesh.shape), {}
    trained, base = abstract, {}
    if train.lora is not None:
        lora.check(train.lora)
        frozen, dtype = train.lora, model.compute_dtype
        base = jax.eval_shape(lambda params: lora.freeze(params, frozen, dtype), abstract)
        base_specs = packed_specs(base, specs, mesh)
        axes = lora.axes(arch, frozen)
        trained = jax.eval_shape(lambda: lora.init(arch, frozen, jax.random.key(0)))
        specs = rules.param_specs(axes, mesh.shape)
        rules.check_divides(mesh.shape, axes, trained)
    optimizer = make_optimizer(train.optimizer, num_steps, axes)
    state = {
        "params": trained,
        "optimizer": jax.eval_shape(optimizer.init, trained),
        "step": jax.ShapeDtypeStruct((), jnp.int32),
        "loss_mean": jax.ShapeDtypeStruct((), jnp.float32),  # running, of the steps that counted
    }
    state_specs = {
        "params": specs,
        "optimizer": optimizer_specs(state["optimizer"], specs, mesh),
        "step": P(),
        "loss_mean": P(),
    }
    if base:
        state["base"], state_specs["base"] = base, base_specs
    return Layout(
        arch=arch,
        lora=train.lora,
        specs=specs,
        base_specs=base_specs,
        optimizer=optimizer,
        param_dtype=model.param_dtype,
        param_shardings=rules.shardings(mesh, rules.param_specs(model_params.logical_axes(arch), mesh.shape)),
        schedule=make_schedule(train.optimizer, num_steps),
        abstract=_with_shardings(state, state_specs, mesh),
        state_specs=state_specs,
    )


def _with_shardings(tree: Any, specs: Any, mesh: Mesh) -> Any:
    place = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
    return jax.tree.map(place, tree, rules.shardings(mesh, specs))


def packed_specs(base: Any, specs: Any, mesh: Mesh) -> Any:
    """Specs of the frozen parameters: those of full ones; codes and scales too, as far as these divide them."""

    def place(leaf: Any, spec: P) -> Any:
        parts = jax.tree.map(lambda part: _dividing(spec, part, mesh), leaf)
        split = lambda part: "tensor" in rules.names_in(part)
        if is_packed(leaf) and split(spec) and not all(map(split, parts)):
            raise UserError(
                "a quantized matrix is split over mesh.tensor in whole blocks only",
                got=f"blocks {leaf.scale.shape} over tensor={mesh.shape['tensor']}",
                do="choose a smaller mesh.tensor, or train.lora.quantize_base=none",
            )
        return parts

    return jax.tree.map(place, base, specs, is_leaf=is_packed)


def optimizer_specs(state: Any, specs: Any, mesh: Mesh) -> Any:
    """Specs of an optimizer state: a moment lies like its parameter, everything else is replicated.

    A moment is told by the end of its path, which is its parameter's; axes that do not divide it (the scales of
    quantized moments are smaller) are dropped.
    """
    is_spec = lambda value: isinstance(value, P)
    flat = jax.tree_util.tree_flatten_with_path(specs, is_leaf=is_spec)[0]
    by_path = {_dict_keys(path): spec for path, spec in flat}

    def choose(path: tuple, leaf: jax.ShapeDtypeStruct) -> P:
        spec = by_path.get(_dict_keys(path))
        if spec is None or len(spec) != len(leaf.shape):
            return P()
        return _dividing(spec, leaf, mesh)

    return jax.tree_util.tree_map_with_path(choose, state)


def _dividing(spec: P, leaf: Any, mesh: Mesh) -> P:
    """A spec without the axes that do not divide an array."""
    return P(*(entry if size % _ways(entry, mesh) == 0 else None for entry, size in zip(spec, leaf.shape)))


def _dict_keys(path: tuple) -> tuple:
    return tuple(key.key for key in path if isinstance(key, jax.tree_util.DictKey))


def _ways(entry: Any, mesh: Mesh) -> int:
    ways = 1
    for name in rules.names_in(P(entry)):
        ways *= mesh.shape[name]
    return ways


def init_state(layout: Layout, mesh: Mesh, seed: int, params: Any | None = None) -> State:
    """Step 0: random parameters, or those given (on the mesh already); the same numbers on any mesh.

    Under LoRA the parameters are the frozen base, and adapters that change nothing yet are what is trained.
    """
    out_shardings = rules.shardings(mesh, layout.state_specs)
    state: State = {}
    if params is None:
        init = lambda: model_params.init_params(layout.arch, jax.random.key(seed), layout.param_dtype)
        params = jax.jit(init, out_shardings=layout.param_shardings)()
    if (config := layout.lora) is not None:
        dtype = layout.abstract["base"]["final_norm"]["scale"].dtype
        freeze = jax.jit(lambda params: lora.freeze(params, config, dtype), out_shardings=out_shardings["base"])
        state["base"] = freeze(params)
        init = lambda: lora.init(layout.arch, config, jax.random.key(seed))
        params = jax.jit(init, out_shardings=out_shardings["params"])()

    @functools.partial(jax.jit, out_shardings=out_shardings["optimizer"])
    def init_optimizer(params: Any) -> Any:
        return layout.optimizer.init(params)

    zero = lambda name: jax.jit(lambda: jnp.zeros((), layout.abstract[name].dtype), out_shardings=out_shardings[name])()
    counters = {name: zero(name) for name in ("step", "loss_mean")}
    return {**state, "params": params, "optimizer": init_optimizer(params), **counters}
