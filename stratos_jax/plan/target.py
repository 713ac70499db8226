"""What a run may be planned for: kinds of TPU with their figures, and the slices that can be rented.

In: a name such as `v5p:4x4x4` and a number of slices. Out: `Topology`, which wraps the slice that the compiler is asked
for (`mesh.topology`) with the figures of its chip.
"""

import dataclasses
import difflib
import functools
import json
import math
import pathlib

from stratos_jax.mesh import topology as slices
from stratos_jax.types import UserError

SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One kind of TPU; figures are per device as XLA sees it, prices per chip."""

    name: str
    peak_tflops: float  # bf16
    clock_ghz: float
    hbm_gib: float  # that a program may use
    hbm_gb_s: float
    ici_gb_s: float  # all links of a device together
    dcn_gb_s: float
    host_gib: float  # host memory per device
    usd_per_chip_hour: float | None


@functools.cache
def chips() -> dict[str, Chip]:
    """The table of chips."""
    table = json.loads((pathlib.Path(__file__).parent / "chips.json").read_text())
    return {name: Chip(name=name, **row) for name, row in table.items() if name != "note"}


def names() -> list[str]:
    """Every slice that can be asked for."""
    return [f"{name}:{shape}" for name in chips() for shape in SHAPES[slices.CHIPS[name].dims]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Some slices of one kind of chip."""

    chip: Chip
    piece: slices.Slice

    @property
    def name(self) -> str:
        """One slice, as it is asked for."""
        return str(dataclasses.replace(self.piece, slices=1))

    @property
    def full_name(self) -> str:
        """All slices, as `mesh.topology` reads it."""
        return str(self.piece)

    @property
    def num_slices(self) -> int:
        """How many of them."""
        return self.piece.slices

    @property
    def num_chips(self) -> int:
        """In all slices."""
        return self.piece.num_chips

    @property
    def num_devices(self) -> int:
        """As XLA counts them, in all slices."""
        return self.piece.num_devices

    def larger(self) -> list["Topology"]:
        """Slices of the same chip with more chips, smallest first."""
        shapes = [tuple(map(int, s.split("x"))) for s in SHAPES[slices.CHIPS[self.chip.name].dims]]
        more = [torus for torus in shapes if math.prod(torus) > math.prod(self.piece.torus)]
        return [dataclasses.replace(self, piece=dataclasses.replace(self.piece, torus=torus)) for torus in more]


def smallest(chip: str) -> Topology:
    """The smallest slice of a kind of chip."""
    return parse(f"{chip}:{SHAPES[slices.CHIPS[chip].dims][0]}")


def parse(name: str, num_slices: int = 1) -> Topology:
    """A topology by name, or an error with the nearest one."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.3)
        do = f"did you mean {near[0]}?" if near else "choose one of these"
        raise UserError("unknown TPU topology", got=name or "none", wanted=", ".join(names()), do=do)
    if num_slices < 1:
        raise UserError("a run needs at least one slice", got=num_slices)
    piece = dataclasses.replace(slices.parse(name), slices=num_slices)
    return Topology(chip=chips()[piece.chip], piece=piece)
