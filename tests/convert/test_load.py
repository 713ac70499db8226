"""Weights of a folder straight onto a mesh: the right numbers, and no more bytes read than needed."""

import jax
import numpy as np
import pytest
from hf_folders import tensors_of, write_folder
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_models import noisy_params, tiny_config

from stratos_jax import convert, store
from stratos_jax.mesh import rules
from stratos_jax.model.config import read_architecture
from stratos_jax.model.params import abstract_params, logical_axes
from stratos_jax.types import UserError


def shardings_of(arch, sizes):
    mesh = jax.make_mesh(sizes, rules.AXES, axis_types=(jax.sharding.AxisType.Auto,) * 4)
    return rules.shardings(mesh, rules.param_specs(logical_axes(arch), dict(mesh.shape)))


@pytest.mark.parametrize("name", ["Qwen2.5-0.5B-Instruct", "Llama-3.1-8B"])
def test_any_mesh(tmp_path, name):
    source = write_folder(tmp_path / "hf", name, shards=2)
    arch = read_architecture(tiny_config(name))
    wanted = jax.tree.map(lambda leaf: leaf.astype("bfloat16").astype(np.float32), noisy_params(arch))
    for sizes in ((1, 8, 1, 1), (1, 2, 2, 2), (2, 2, 1, 2)):
        shardings = shardings_of(arch, sizes)
        tree = convert.load_hf_params(source, arch, shardings, "float32")
        assert jax.tree.map(lambda leaf: leaf.sharding, tree) == shardings
        assert all(map(np.array_equal, jax.tree.leaves(tree), jax.tree.leaves(wanted)))


def test_each_tensor_is_read_once(tmp_path, monkeypatch):
    name = "Qwen2.5-7B-Instruct"
    source, arch = write_folder(tmp_path / "hf", name), read_architecture(tiny_config(name))
    read, sizes = store.read_bytes, []

    def counting(url, start=0, end=None):
        data = read(url, start, end)
        sizes.append(len(data) if str(url).endswith(".safetensors") else 0)
        return data

    monkeypatch.setattr(store, "read_bytes", counting)
    tree = convert.load_hf_params(source, arch, shardings_of(arch, (1, 4, 1, 2)), "bfloat16")
    weights = sum(tensor.nbytes for tensor in tensors_of(name).values())
    assert weights <= sum(sizes) <= weights + 20_000  # and the header
    assert tree["layers"]["mlp"]["gate"].dtype == "bfloat16"
    sizes.clear()
    one_row_each = jax.tree.map(lambda leaf: leaf.sharding, tree)
    part = NamedSharding(jax.make_mesh((1,), ("x",), axis_types=(jax.sharding.AxisType.Auto,)), P())
    convert.load_hf_params(source, arch, jax.tree.map(lambda _: part, one_row_each), "float32")
    assert weights <= sum(sizes) <= weights + 20_000


def test_another_model_is_refused(tmp_path):
    source = write_folder(tmp_path / "hf", "Qwen2.5-3B")
    arch = read_architecture(tiny_config("Qwen2.5-7B-Instruct"))
    with pytest.raises(UserError, match="of another model"):
        convert.load_hf_params(source, arch, jax.tree.map(lambda _: None, abstract_params(arch, "float32")), "float32")
