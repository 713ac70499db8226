"""Names of slices, and what is said to a mistyped one."""

import pytest

from stratos_jax.mesh import topology as slices
from stratos_jax.plan import target
from stratos_jax.types import UserError


def test_every_name_is_one_that_the_compiler_is_asked_for():
    for name in target.names():
        topology = target.parse(name, 2)
        piece = slices.parse(topology.full_name)
        assert (piece.num_devices, piece.num_chips) == (topology.num_devices, topology.num_chips)


@pytest.mark.parametrize(("name", "near"), [("v5p:4x4x5", "v5p:4x4"), ("v6:4x4", "v6e:4x4"), ("v5e-8x8", "v5e:8x8")])
def test_a_near_name_is_suggested(name, near):
    with pytest.raises(UserError, match=f"did you mean {near}"):
        target.parse(name)


def test_larger_slices_of_the_same_chip():
    assert [t.name for t in target.parse("v6e:4x8").larger()] == ["v6e:8x8", "v6e:8x16", "v6e:16x16"]
