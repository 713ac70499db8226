"""Attention and activation constraints inside the per-device step.

In: the mesh. Out: the `attend` and `constrain` hooks of `model.forward`. Rows and their tokens are this device's
already; heads and MLP width may still be split over `tensor`, which the compiler manages, save for the attention
kernels: those run per device as well.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import rules
from stratos_jax.model import attention as model_attention
from stratos_jax.model.config import Implementation

HIDDEN = ("batch", "sequence", "embed")
WHERE = ("q_positions", "kv_positions", "q_segments", "kv_segments")


def make_constrain(mesh: Mesh) -> Callable[[jax.Array, tuple[str, ...]], jax.Array]:
    """Pins heads, MLP width and vocabulary to `tensor`, and hidden states to row-major memory.

    Left alone, the TPU compiler lays hidden states out transposed, which costs 4 % of a 7B step's cycles.
    """

    def constrain(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        if mesh.shape["tensor"] > 1:
            spec = rules.only(rules.spec_of(axes, rules.ACTIVATION_RULES), ("tensor",))
            x = jax.lax.with_sharding_constraint(x, spec)
        if axes == HIDDEN:
            x = with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
        return x

    return constrain


def make_attend(mesh: Mesh, implementation: Implementation) -> Callable[..., jax.Array]:
    """The attention of one device's queries to all keys of their rows."""
    context_axis = "context" if mesh.shape["context"] > 1 else None

    def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, *, scale: float, **where: Any) -> jax.Array:
        def run(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, *tokens: jax.Array) -> jax.Array:
            return model_attention.attend(
                q_BTNH,
                k_BSKH,
                v_BSKH,
                **dict(zip(WHERE, tokens, strict=True)),
                scale=scale,
                implementation=implementation,
                context_axis=context_axis,
            )

        if mesh.shape["tensor"] > 1:
            by_head = P(None, None, "tensor", None)
            specs = (by_head,) * 3 + (P(),) * len(WHERE)
            run = jax.shard_map(run, in_specs=specs, out_specs=by_head, axis_names={"tensor"}, check_vma=False)
        return run(q_BTNH, k_BSKH, v_BSKH, *(where[name] for name in WHERE))

    return attend
