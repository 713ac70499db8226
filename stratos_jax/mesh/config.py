"""How devices are laid out and hosts meet; read by `mesh`, set by the recipe. Imports no jax."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeshConfig:
    """Sizes of the mesh axes; 0 means: chosen from the number of devices and the rows of a step."""

    data: int = 0  # replicas, over the slow network between slices
    fsdp: int = 0  # parameters, optimizer state and rows are split over it
    context: int = 0  # one row's tokens are split over it
    tensor: int = 0  # heads, MLP width and vocabulary are split over it
    start_seconds: float = 600.0  # for all hosts to find each other
    silence_seconds: float = 100.0  # without a sign of life from a host; then jax ends the run on all of them
    barrier_seconds: float = 600.0  # at a barrier; then the missing hosts are named and the run exits with 42
