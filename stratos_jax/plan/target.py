"""What a run may be planned for: kinds of TPU with their figures, and the slices that can be rented.

In: a name such as `v5p:4x4x4` and a number of slices. Out: `Topology`.
"""

import dataclasses
import difflib
import functools
import json
import math
import pathlib

from stratos_jax.types import UserError

SHAPES = {
    2: ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    3: ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x16"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Chip:
    """One kind of TPU; figures are per device as XLA sees it, prices per chip."""

    name: str
    dims: int  # of its torus
    peak_tflops: float  # bf16
    clock_ghz: float
    hbm_gib: float  # that a program may use
    hbm_gb_s: float
    ici_gb_s: float  # all links of a device together
    dcn_gb_s: float
    host_gib: float  # host memory per device
    usd_per_chip_hour: float | None
    devices_per_chip: int


@functools.cache
def chips() -> dict[str, Chip]:
    """The table of chips."""
    table = json.loads((pathlib.Path(__file__).parent / "chips.json").read_text())
    return {name: Chip(name=name, **row) for name, row in table.items() if name != "note"}


def names() -> list[str]:
    """Every slice that can be asked for."""
    return [f"{chip.name}:{shape}" for chip in chips().values() for shape in SHAPES[chip.dims]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Topology:
    """Some slices of one kind of chip."""

    chip: Chip
    shape: tuple[int, ...]
    num_slices: int = 1

    @property
    def name(self) -> str:
        """One slice, as it is asked for."""
        return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

    @property
    def full_name(self) -> str:
        """All slices, as `mesh.topology` reads it."""
        return self.name if self.num_slices == 1 else f"{self.num_slices}*{self.name}"

    @property
    def num_chips(self) -> int:
        """In all slices."""
        return math.prod(self.shape) * self.num_slices

    @property
    def num_devices(self) -> int:
        """As XLA counts them, in all slices."""
        return self.num_chips * self.chip.devices_per_chip

    def larger(self) -> list["Topology"]:
        """Slices of the same chip with more chips, smallest first."""
        shapes = [tuple(map(int, s.split("x"))) for s in SHAPES[self.chip.dims]]
        return [dataclasses.replace(self, shape=s) for s in shapes if math.prod(s) > math.prod(self.shape)]


def parse(name: str, num_slices: int = 1) -> Topology:
    """A topology by name, or an error with the nearest one."""
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=1, cutoff=0.3)
        do = f"did you mean {near[0]}?" if near else "choose one of these"
        raise UserError("unknown TPU topology", got=name, wanted=", ".join(names()), do=do)
    if num_slices < 1:
        raise UserError("a run needs at least one slice", got=num_slices)
    chip, _, shape = name.partition(":")
    return Topology(chip=chips()[chip], shape=tuple(map(int, shape.split("x"))), num_slices=num_slices)
