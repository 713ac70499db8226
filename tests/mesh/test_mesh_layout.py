"""The rules table and the choice of a mesh; and slices by name."""

import jax
import pytest
import training
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from stratos_jax.mesh import layout, rules, topology
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.model.config import architecture_of
from stratos_jax.model.params import PARAM_AXES, abstract_params, logical_axes
from stratos_jax.types import UserError

ARCH = architecture_of(training.model_config())
AXES, SHAPES = logical_axes(ARCH), abstract_params(ARCH, "float32")


def choose(num_devices, rows, **config):
    return layout.choose_shape(MeshConfig(**config), num_devices, rows, AXES, SHAPES)


def test_every_logical_axis_of_the_model_has_a_rule():
    assert set(PARAM_AXES) <= rules.PARAM_RULES.keys()


def test_a_parameter_is_split_along_the_first_axis_that_tensor_leaves_free():
    alone = {"data": 1, "fsdp": 4, "context": 1, "tensor": 1}
    assert rules.param_spec(("layers", "mlp", "embed"), alone) == P(None, ("fsdp", "context"), None)
    assert rules.param_spec(("layers", "mlp", "embed"), alone | {"tensor": 2}) == P(None, "tensor", ("fsdp", "context"))
    assert rules.param_spec(("layers", "norm"), alone) == P(None, None)


@pytest.mark.parametrize(
    ("devices", "rows", "wanted"),
    [
        (8, 8, (1, 8, 1, 1)),  # as many rows as devices
        (8, 32, (1, 8, 1, 1)),  # more rows: accumulation
        (8, 2, (1, 2, 1, 4)),  # fewer rows: tensor first
        (64, 4, (1, 4, 4, 4)),  # and then context
    ],
)
def test_rows_come_first_then_tensor_then_context(devices, rows, wanted):
    shape, said = choose(devices, rows)
    assert tuple(shape.values()) == wanted
    assert ("share a row" in said) == (rows < devices)


def test_what_does_not_divide_is_named():
    with pytest.raises(UserError) as error:
        rules.check_divides({"data": 1, "fsdp": 3, "context": 1, "tensor": 8}, AXES, SHAPES)
    text = str(error.value)
    assert "layers/attention/q (2, 64, 4, 16): axis 'heads' of size 4 over tensor=8" in text
    assert "layers/mlp/gate (2, 64, 128): axis 'embed' of size 64 over fsdp=3 x context=1" in text


def test_sizes_of_the_config_are_kept_or_refused():
    assert choose(8, 8, context=2)[0]["context"] == 2
    with pytest.raises(UserError, match="product is 8"):
        choose(8, 8, fsdp=3)
    with pytest.raises(UserError, match="rows_per_step 8 is not a multiple"):
        choose(16, 8, fsdp=16)


def test_a_mesh_has_auto_axes_and_all_devices():
    mesh = layout.make_mesh(dict(zip(rules.AXES, (2, 2, 2, 1))))
    assert mesh.axis_types == (AxisType.Auto,) * 4 and mesh.size == 8
    with pytest.raises(UserError, match="does not use all devices"):
        layout.make_mesh(dict(zip(rules.AXES, (2, 2, 1, 1))), jax.devices())


def test_slices_have_names():
    piece = topology.parse("2*v6e:16x16")
    assert (piece.num_chips, piece.num_devices, str(piece)) == (512, 512, "2*v6e:16x16")
    assert topology.wraps(topology.parse("v5p:4x4x4")) == (True, True, True)
    assert topology.wraps(topology.parse("v5p:2x2x4")) == (False, False, False)
    assert topology.wraps(topology.parse("v5e:8x8")) == (False, False, False)
    assert topology.wraps(topology.parse("v6e:16x16")) == (True, True, False)
    assert topology.parse("tpu7x:2x2x1").num_devices == 8
    for wrong in ("v5p:4x4", "v9:2x2", "v5e"):
        with pytest.raises(UserError):
            topology.parse(wrong)


def test_devices_that_hold_all_weights_take_rows_as_replicas_where_they_can():
    whole = lambda devices, rows, **config: layout.choose_shape(
        MeshConfig(**config), devices, rows, AXES, SHAPES, whole=True
    )[0]
    assert whole(8, 16) == {"data": 8, "fsdp": 1, "context": 1, "tensor": 1}
    assert whole(8, 4) == choose(8, 4)[0]  # too few rows
    assert whole(8, 16, fsdp=4)["fsdp"] == 4
