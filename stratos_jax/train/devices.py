"""What a config leaves open and the devices at hand decide: the mesh, and what a layer keeps.

In: settings and the devices of this run. Out: a mesh, and settings without `auto`.
"""

import dataclasses

import jax

from stratos_jax.mesh import layout
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model import params as model_params
from stratos_jax.model.config import Architecture, ModelConfig
from stratos_jax.train import remat
from stratos_jax.train.config import TrainConfig
from stratos_jax.train.step import micro_batch_rows

STATE_BYTES = 16  # of a parameter: weight, two moments and gradient, float32
SMALL = 4 << 30  # bytes of state that all cores together may hold in copies


def choose_mesh(
    config: MeshConfig, train: TrainConfig, model: ModelConfig, arch: Architecture
) -> tuple[jax.sharding.Mesh, str]:
    """The mesh over this run's devices, and a line about it.

    Cores share their memory: to hold a small network once for each spares them gathering it layer by layer.
    """
    axes, shapes = model_params.logical_axes(arch), model_params.abstract_params(arch, model.param_dtype)
    slices = len({getattr(device, "slice_index", 0) for device in jax.devices()})
    cores = jax.default_backend() == "cpu" and jax.process_count() == 1
    whole = cores and STATE_BYTES * model_params.num_params(arch) * jax.device_count() < SMALL
    sizes, said = layout.choose_shape(
        config, jax.device_count(), train.rows_per_step, axes, shapes, num_slices=slices, whole=whole
    )
    return layout.make_mesh(sizes), said


def with_remat(
    train: TrainConfig, model: ModelConfig, arch: Architecture, mesh: jax.sharding.Mesh, row_tokens: int
) -> TrainConfig:
    """The settings with `auto` replaced by the policy that fits these devices by estimate."""
    if train.remat != "auto":
        return train
    tokens = micro_batch_rows(train, mesh, row_tokens) * row_tokens // (mesh.shape["context"] * mesh.shape["tensor"])
    weight_bytes = 12 if model.param_dtype == "float32" else 6
    ways = mesh.shape["fsdp"] * mesh.shape["context"] * mesh.shape["tensor"]
    chosen = remat.choose(
        arch,
        tokens=tokens,
        state_bytes=weight_bytes * model_params.num_params(arch) // ways,
        memory_bytes=(jax.local_devices()[0].memory_stats() or {}).get("bytes_limit"),
        chunk=train.loss.chunk_tokens,
    )
    return dataclasses.replace(train, remat=chosen)
