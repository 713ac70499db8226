"""TPU slices by name, as devices that exist for the compiler alone.

In: a chip and its torus, e.g. `v5p:4x4x4` (or `v6e:16x16`, twice of it as `2*v6e:16x16`). Out: devices to build a mesh
of. The arguments say where the torus wraps and how chips sit in hosts: without them the compiler plans for another
machine (on v5p it turns all-gathers into all-reduces).
"""

import dataclasses
import math
import os
import re
from typing import Any

from stratos_jax.types import UserError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """What the compiler must be told of a TPU generation."""

    platform: str  # libtpu's name of it
    config: str  # how cores are presented
    host: tuple[int, int, int]  # chips of a host
    dims: int  # of the torus
    cores: int = 1  # devices of a chip


CHIPS = {
    "v4": Chip(platform="v4", config="megacore", host=(2, 2, 1), dims=3),
    "v5p": Chip(platform="v5", config="megacore", host=(2, 2, 1), dims=3),
    "v5e": Chip(platform="v5e", config="default", host=(2, 2, 1), dims=2),
    "v6e": Chip(platform="v6e", config="default", host=(2, 2, 1), dims=2),
    "tpu7x": Chip(platform="tpu7x", config="default", host=(2, 2, 1), dims=3, cores=2),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """A TPU slice, or several of the same kind."""

    chip: str
    torus: tuple[int, ...]
    slices: int = 1

    @property
    def num_chips(self) -> int:
        """Chips of all slices."""
        return self.slices * math.prod(self.torus)

    @property
    def num_devices(self) -> int:
        """Devices as jax counts them."""
        return self.num_chips * CHIPS[self.chip].cores

    def __str__(self) -> str:
        text = f"{self.chip}:{'x'.join(map(str, self.torus))}"
        return text if self.slices == 1 else f"{self.slices}*{text}"


def parse(name: str) -> Slice:
    """A slice from its name."""
    match = re.fullmatch(r"(?:(\d+)\*)?(\w+):(\d+(?:x\d+)+)", name)
    if not match or match[2] not in CHIPS:
        known = ", ".join(CHIPS)
        raise UserError("no TPU slice has this name", got=name, wanted=f"CHIP:AxB or CHIP:AxBxC with CHIP of {known}")
    torus = tuple(int(n) for n in match[3].split("x"))
    if len(torus) != CHIPS[match[2]].dims:
        raise UserError("this chip's torus has another number of dimensions", got=name, wanted=CHIPS[match[2]].dims)
    return Slice(chip=match[2], torus=torus, slices=int(match[1] or 1))


def devices(piece: Slice) -> list[Any]:
    """The slice's devices, for the compiler; needs libtpu and no TPU."""
    from jax.experimental.topologies import get_topology_desc

    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "")
    chip = CHIPS[piece.chip]
    topology = get_topology_desc(
        platform="tpu",
        topology_name=f"{chip.platform}:{'x'.join(map(str, piece.torus))}",
        chip_config_name=chip.config,
        chips_per_host_bounds=chip.host if math.prod(piece.torus) >= 4 else (1, 1, 1),
        num_slices=piece.slices,
        wrap=wraps(piece),
    )
    return list(topology.devices)


def wraps(piece: Slice) -> tuple[bool, bool, bool]:
    """Along which dimensions the torus closes: cubes of 4 in three dimensions, whole sides of 16 in two."""
    if CHIPS[piece.chip].dims == 3:
        closed = all(n % 4 == 0 for n in piece.torus)
        return (closed, closed, closed)
    x, y = piece.torus
    return (x == 16, y == 16, False)
