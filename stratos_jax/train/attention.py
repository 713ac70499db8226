"""Attention and activations inside the per-device step.

In: the mesh. Out: the `attend` and `constrain` hooks of `model.forward`. Rows are this device's already. The devices of
`tensor` share heads and MLP width; between these products each holds its own part of the tokens, so that norms and sums
are not done twice: tokens come together before the products, and their sums go apart after.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.sharding import Mesh

from stratos_jax.model import attention as model_attention
from stratos_jax.model.config import Implementation
from stratos_jax.model.network import HIDDEN, INWARD, OUTWARD


def make_constrain(mesh: Mesh) -> Callable[[jax.Array, tuple[str, ...]], jax.Array]:
    """Gathers and scatters tokens over `tensor`, and pins hidden states to row-major memory.

    Left alone, the TPU compiler lays hidden states out transposed, which costs 4 % of a 7B step's cycles.
    """

    def constrain(x: jax.Array, axes: tuple[str, ...]) -> jax.Array:
        if axes == INWARD:
            x = whole_rows(x, mesh)
        if axes == OUTWARD and mesh.shape["tensor"] > 1:
            x = jax.lax.psum_scatter(x, "tensor", scatter_dimension=1, tiled=True)
        if axes in (HIDDEN, INWARD):
            x = with_layout_constraint(x, Layout(major_to_minor=tuple(range(x.ndim))))
        return x

    return constrain


def whole_rows(x_BT: jax.Array, mesh: Mesh) -> jax.Array:
    """All tokens that the devices of `tensor` share; they are along dimension 1."""
    return jax.lax.all_gather(x_BT, "tensor", axis=1, tiled=True) if mesh.shape["tensor"] > 1 else x_BT


def make_attend(mesh: Mesh, implementation: Implementation) -> Callable[..., jax.Array]:
    """The attention of this device's heads and queries to all keys of their rows."""
    context_axis = "context" if mesh.shape["context"] > 1 else None

    def attend(q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, **where: Any) -> jax.Array:
        return model_attention.attend(
            q_BTNH, k_BSKH, v_BSKH, **where, implementation=implementation, context_axis=context_axis
        )

    return attend
