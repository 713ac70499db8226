"""Small training states on meshes, for tests of checkpoints."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P


def mesh(shape: tuple[int, int] = (4, 2)) -> jax.sharding.Mesh:
    """Some of the eight fake devices."""
    devices = jax.devices()[: shape[0] * shape[1]]
    return jax.make_mesh(shape, ("fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 2, devices=devices)


def state(seed: int = 0, *, on: jax.sharding.Mesh | None = None) -> dict[str, Any]:
    """Weights in two number formats, moments in a tuple, a counter."""
    rng, on = np.random.default_rng(seed), on or mesh()
    place = lambda array, spec: jax.device_put(array, NamedSharding(on, spec))
    stacked = rng.standard_normal((3, 16, 8)).astype(np.float32)
    return {
        "params": {
            "layers": {"w": place(stacked, P(None, "fsdp", "tensor"))},
            "embed": place(rng.standard_normal((16, 8)).astype(jnp.bfloat16), P("fsdp")),
        },
        "optimizer": (place(stacked * 2, P(None, "fsdp")), {"scale": place(rng.integers(-9, 9, 5, np.int8), P())}),
        "step": place(np.int32(seed), P()),
    }


def abstract(tree: Any, on: jax.sharding.Mesh) -> Any:
    """Where to restore it: axis 1 over `tensor` where it can be."""
    spec = lambda leaf: P(None, "tensor") if leaf.ndim > 1 else P()
    place = lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=NamedSharding(on, spec(leaf)))
    return jax.tree.map(place, tree)


def same(left: Any, right: Any) -> bool:
    """Bitwise."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() and a.dtype == b.dtype for a, b in pairs)
