"""From a number of devices to a mesh.

In: `MeshConfig`, devices (real ones or those of a compile-only topology), the rows of a step, the model's sizes.
Out: a `jax.sharding.Mesh` with the axes `data, fsdp, context, tensor`, always of type Auto, in an order of devices that
follows the torus.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.mesh.rules import AXES, undivided
from stratos_jax.types import UserError


def make_mesh(shape: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh of the given axis sizes; `devices` defaults to all of this run's."""
    devices = list(jax.devices() if devices is None else devices)
    sizes = tuple(shape[axis] for axis in AXES)
    if math.prod(sizes) != len(devices):
        raise UserError("the mesh does not use all devices", got=dict(shape), wanted=f"a product of {len(devices)}")
    return Mesh(_arrange(sizes, devices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _arrange(sizes: tuple[int, ...], devices: list[Any]) -> np.ndarray:
    """Devices in mesh order; slices are split over `data`, and torus neighbours come next to each other."""
    num_slices = len({getattr(device, "slice_index", 0) for device in devices})
    if num_slices > 1:
        if sizes[0] % num_slices:
            raise UserError("mesh.data must be a multiple of the number of slices", got=sizes[0], wanted=num_slices)
        inner = (sizes[0] // num_slices, *sizes[1:])
        return mesh_utils.create_hybrid_device_mesh(inner, (num_slices, 1, 1, 1), devices)
    if devices[0].platform == "cpu":  # fake or real CPU devices have no topology
        return np.array(devices).reshape(sizes)
    return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)


def choose_shape(
    config: MeshConfig,
    num_devices: int,
    rows_per_step: int,
    axes_tree: Any,
    shapes_tree: Any,
    num_slices: int = 1,
    whole: bool = False,
) -> tuple[dict[str, int], str]:
    """Sizes of all axes, and one line that says what was chosen and why.

    Rows come first: as many devices as there are rows go to `data x fsdp`, the rest to `tensor` as far as the model's
    heads divide, then to `context`. Sizes that the config gives are kept. Weights are held once per slice, unless each
    device is to hold them `whole`, where it can.
    """
    given = {axis: getattr(config, axis) for axis in AXES if getattr(config, axis)}
    candidates = [shape for shape in _shapes(num_devices) if all(shape[a] == n for a, n in given.items())]
    if not candidates:
        raise UserError("no mesh has these axis sizes", got=given, wanted=f"sizes whose product is {num_devices}")
    replicas = {given["data"]} if "data" in given else {num_slices, num_devices if whole else num_slices}
    reasons: list[str] = []
    fitting = []
    for shape in candidates:
        row_ways = shape["data"] * shape["fsdp"]
        if rows_per_step % row_ways:
            reasons.append(f"{shape}: train.rows_per_step {rows_per_step} is not a multiple of data x fsdp {row_ways}")
        elif shape["data"] not in replicas:
            continue
        elif problems := undivided(shape, axes_tree, shapes_tree):
            reasons.append(f"{shape}: {problems[0]}")
        else:
            fitting.append(shape)
    if not fitting:
        listing = "".join(f"\n    - {reason}" for reason in reasons[:8])
        raise UserError(
            f"no mesh over {num_devices} devices divides this run{listing}",
            do="use another number of devices, set other mesh axes, or change train.rows_per_step",
        )
    best = max(fitting, key=lambda shape: (shape["data"] * shape["fsdp"], whole and shape["data"], -shape["context"]))
    return best, _say(best, num_devices, rows_per_step)


def _shapes(num_devices: int) -> list[dict[str, int]]:
    """Every way to write the number of devices as a product of the four axes."""
    divisors = [n for n in range(1, num_devices + 1) if num_devices % n == 0]
    return [
        {"data": d, "fsdp": f, "context": c, "tensor": num_devices // (d * f * c)}
        for d in divisors
        for f in divisors
        for c in divisors
        if num_devices % (d * f * c) == 0
    ]


def _say(shape: Mapping[str, int], num_devices: int, rows_per_step: int) -> str:
    row_ways = shape["data"] * shape["fsdp"]
    text = f"mesh {' x '.join(f'{axis}={shape[axis]}' for axis in AXES)}: {rows_per_step // row_ways} row(s) a shard"
    if row_ways < num_devices:
        text += f"; {num_devices // row_ways} devices share a row, since a step has {rows_per_step} rows"
    return text
