"""The training step compiled for a TPU slice by the real compiler, with no TPU.

In: architecture, settings, a slice's name. Out: the compiled step, its optimized program as text and its memory.
`stratos plan` uses exactly this; so does the trainer's own `remat: auto`.
"""

import dataclasses
import time
from typing import Any

from jax.sharding import Mesh

from stratos_jax.mesh import layout, topology
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model import params as model_params
from stratos_jax.model.config import Architecture, ModelConfig
from stratos_jax.train.config import TrainConfig
from stratos_jax.train.step import Step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A compiled step."""

    compiled: Any
    hlo_text: str
    memory: Any  # jax's memory analysis: argument, output, temp, alias, host and peak bytes of a device
    seconds: float  # of lowering and compiling
    step: Step
    mesh: Mesh


def compile_for_topology(
    arch: Architecture,
    model: ModelConfig,
    train: TrainConfig,
    mesh_config: MeshConfig,
    slice_name: str,
    *,
    row_tokens: int,
    num_steps: int = 1000,
    options: dict[str, str] | None = None,
) -> Program:
    """Compile the step for a slice; raises what the compiler says where it does not fit."""
    piece = topology.parse(slice_name)
    axes, shapes = model_params.logical_axes(arch), model_params.abstract_params(arch, model.param_dtype)
    sizes, _ = layout.choose_shape(
        mesh_config, piece.num_devices, train.rows_per_step, axes, shapes, num_slices=piece.slices
    )
    mesh = layout.make_mesh(sizes, topology.devices(piece))
    return compile_on_mesh(arch, model, train, mesh, piece.chip, row_tokens, num_steps, options)


def compile_on_mesh(
    arch: Architecture,
    model: ModelConfig,
    train: TrainConfig,
    mesh: Mesh,
    chip: str,
    row_tokens: int,
    num_steps: int,
    options: dict[str, str] | None = None,
) -> Program:
    """Lower and compile the step for a mesh of compile-only devices."""
    start = time.monotonic()
    step = make_train_step(arch, model, train, mesh, row_tokens=row_tokens, num_steps=num_steps)
    lowered = step.run.lower(step.abstract_state, step.abstract_batch)
    compiled = lowered.compile(compiler_options=compiler_options(chip) | (options or {}))
    return Program(
        compiled=compiled,
        hlo_text=compiled.as_text() or "",
        memory=compiled.memory_analysis(),
        seconds=time.monotonic() - start,
        step=step,
        mesh=mesh,
    )


def compiler_options(chip: str) -> dict[str, str]:
    """Compiler settings of a TPU generation; the run on the device uses the same."""
    return {}
