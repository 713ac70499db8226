"""The train step of a recipe, compiled for TPUs that are not here.

In: a `Job`, which is what the step reads of a recipe, and a topology. Out: the optimized HLO and `Facts`: what the
compiler says of memory, work and wire; or the compiler's own words why it does not fit. The step is built by the
function that training uses, from the same settings; only its devices are of a compile-only topology.
"""

import dataclasses
import math
import os
import re
from collections.abc import Mapping
from typing import Any

from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model.config import ModelConfig, architecture_of
from stratos_jax.plan import buffers, hlo
from stratos_jax.plan.target import Topology
from stratos_jax.plan.work import Collective, measure
from stratos_jax.train.config import TrainConfig
from stratos_jax.types import Json, UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What decides the train step."""

    model: ModelConfig
    mesh: MeshConfig
    train: TrainConfig
    row_tokens: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What one compilation taught; per device. Where `fits` is false, only the first five fields say something."""

    fits: bool
    remat: str
    mesh: Mapping[str, int]
    mesh_reason: str
    refusal: str = ""  # the compiler's words
    needed_gib: float | None = None  # where the refusal says so
    weights_bytes: int = 0
    optimizer_bytes: int = 0
    batch_bytes: int = 0
    argument_bytes: int = 0
    temporary_bytes: int = 0
    peak_bytes: int = 0
    code_bytes: int = 0
    host_bytes: int = 0
    saved_bytes: float = 0.0  # kept for the backward pass
    cycles_by_kind: Mapping[str, int] = dataclasses.field(default_factory=dict)
    matmul_flops: float = 0.0
    attention_flops: float = 0.0
    collectives: tuple[Collective, ...] = ()
    unknown_loops: tuple[str, ...] = ()
    heaviest: tuple[Mapping[str, Json], ...] = ()
    largest_buffers: tuple[Mapping[str, Json], ...] = ()
    compile_seconds: float = 0.0


def compile_train(job: Job, topology: Topology, remat: str) -> tuple[Facts, str]:
    """Lower and compile the step of `stratos train` for a topology: its memory, and the optimized HLO to `read`."""
    import jax

    from stratos_jax.mesh.layout import make_mesh
    from stratos_jax.train.aot import compile_on_mesh

    arch = architecture_of(job.model)
    shape, reason = mesh_of(job, topology)
    mesh = make_mesh(shape, devices(topology))
    train = dataclasses.replace(job.train, remat=remat)
    try:
        made = compile_on_mesh(arch, job.model, train, mesh, topology.chip.name, job.row_tokens, num_steps=1000)
    except jax.errors.JaxRuntimeError as error:
        refusal, needed = why_refused(str(error), topology)
        return Facts(fits=False, remat=remat, mesh=shape, mesh_reason=reason, refusal=refusal, needed_gib=needed), ""
    memory, state = made.memory, made.step.abstract_state
    facts = Facts(
        fits=True,
        mesh=shape,
        mesh_reason=reason,
        remat=remat,
        weights_bytes=local_bytes(state["params"]) + local_bytes(state.get("base", {})),
        optimizer_bytes=local_bytes(state["optimizer"]),
        batch_bytes=local_bytes(made.step.abstract_batch),
        argument_bytes=memory.argument_size_in_bytes,
        temporary_bytes=memory.temp_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        code_bytes=memory.generated_code_size_in_bytes,
        host_bytes=memory.host_argument_size_in_bytes + memory.host_temp_size_in_bytes,
        compile_seconds=made.seconds,
    )
    return facts, made.hlo_text


def read(facts: Facts, text: str, job: Job, topology: Topology) -> Facts:
    """The facts with what the optimized HLO says of work and wire."""
    if not facts.fits:
        return facts
    module, slices = hlo.parse(text), topology.num_slices
    work = measure(module, devices_per_slice=topology.num_devices // slices if slices > 1 else 0)
    heaviest = [{"cycles": c, "made_by": op, "source": at} for (op, at), c in work.heaviest.most_common(8)]
    return dataclasses.replace(
        facts,
        saved_bytes=buffers.saved_for_backward(module, architecture_of(job.model).num_layers),
        cycles_by_kind=dict(work.cycles),
        matmul_flops=work.matmul_flops,
        attention_flops=work.attention_flops,
        collectives=tuple(work.collectives),
        unknown_loops=tuple(work.unknown_loops),
        heaviest=tuple(heaviest),
        largest_buffers=buffers.largest(module),
    )


def mesh_of(job: Job, topology: Topology) -> tuple[dict[str, int], str]:
    """Sizes of the mesh axes for a topology, and why."""
    return mesh_for(job.model, job.mesh, job.train, topology.num_devices, topology.num_slices)


def mesh_for(
    model: ModelConfig, mesh: MeshConfig, train: TrainConfig, num_devices: int, num_slices: int = 1
) -> tuple[dict[str, int], str]:
    """The same for so many devices of any kind."""
    from stratos_jax.mesh.layout import choose_shape
    from stratos_jax.model import params

    arch = architecture_of(model)
    axes, shapes = params.logical_axes(arch), params.abstract_params(arch, model.param_dtype)
    return choose_shape(mesh, num_devices, train.rows_per_step, axes, shapes, num_slices=num_slices)


def devices(topology: Topology) -> list[Any]:
    """Compile-only devices, or how to get the compiler."""
    from stratos_jax.mesh import topology as slices

    # Another process may hold the compiler's lock, which guards a TPU that is not here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    os.environ.setdefault("TPU_STDERR_LOG_LEVEL", "3")
    try:
        return slices.devices(slices.parse(topology.full_name))
    except (ImportError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        do = "pip install 'stratos_jax[tpu]' (no TPU is needed)"
        raise UserError("the TPU compiler cannot be loaded", where=topology.name, got=reason, do=do) from error


def local_bytes(tree: Any) -> int:
    """Bytes of a tree's shards on one device."""
    import jax

    def one(leaf: Any) -> int:
        shape = leaf.sharding.shard_shape(leaf.shape) if getattr(leaf, "sharding", None) else leaf.shape
        return math.prod(shape) * leaf.dtype.itemsize

    return sum(one(leaf) for leaf in jax.tree.leaves(tree))


def why_refused(text: str, topology: Topology) -> tuple[str, float | None]:
    """The compiler's reason in one line and the memory it wanted; anything but want of memory is an error."""
    if "RESOURCE_EXHAUSTED" not in text:
        raise CompileFailed(text, topology)
    used = re.search(r"Used ([\d.]+)([GMT]) of|temporaries \(([\d.]+)([GMT])\) exceeds", text)
    found = [group for group in used.groups() if group] if used else []
    needed = float(found[0]) * {"M": 1 / 1024, "G": 1.0, "T": 1024.0}[found[1]] if found else None
    return re.sub(r"^.*?(CompileTimeHbmOom|RESOURCE_EXHAUSTED): *", "", text.strip().splitlines()[0])[:300], needed


class CompileFailed(UserError):
    """The compiler refuses the program for another reason; the full text goes to a file."""

    def __init__(self, text: str, topology: Topology):
        import tempfile

        with tempfile.NamedTemporaryFile("w", prefix="stratos_plan_", suffix=".txt", delete=False) as file:
            file.write(text)
        first = next((line.strip() for line in text.splitlines() if line.strip()), "no reason given")
        super().__init__(
            "the TPU compiler refuses this program", where=topology.name, got=first[:300], do=f"full text: {file.name}"
        )
