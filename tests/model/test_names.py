"""The name table is a bijection with the parameters, and both ways only move numbers."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_models

from stratos_jax.model.config import read_architecture
from stratos_jax.model.names import hf_entries
from stratos_jax.model.params import (
    ACTIVATION_AXES,
    PARAM_AXES,
    abstract_params,
    init_params,
    logical_axes,
    num_params,
)


def at(tree, path):
    for key in path:
        tree = tree[key]
    return tree


@pytest.mark.parametrize("name", tiny_models.FAMILIES)
def test_rows_cover_every_parameter_once_and_reverse_bitwise(name):
    arch = read_architecture(tiny_models.tiny_config(name))
    params = tiny_models.noisy_params(arch)
    entries = hf_entries(arch)
    seen = jax.tree.map(lambda x: np.zeros(x.shape, np.int8), params)
    assert len({entry.hf_name for entry in entries}) == len(entries)
    for entry in entries:
        leaf, count = at(params, entry.path), at(seen, entry.path)
        index = slice(None) if entry.layer is None else entry.layer
        hf = entry.to_hf(leaf[index])
        assert hf.shape == entry.hf_shape
        np.testing.assert_array_equal(entry.to_ours(hf).view(np.uint32), leaf[index].view(np.uint32))
        count[index] += 1
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(seen))
    assert sum(int(np.prod(entry.hf_shape)) for entry in entries) == num_params(arch)


def test_axes_shapes_and_a_random_start_agree():
    for name in ("Qwen2.5-0.5B-Instruct", "Qwen2.5-7B-Instruct", "Llama-3.1-8B"):
        arch = read_architecture(tiny_models.tiny_config(name))
        shapes, axes = abstract_params(arch, "bfloat16"), logical_axes(arch)
        is_axes = lambda value: isinstance(value, tuple)
        names = jax.tree.leaves(axes, is_leaf=is_axes)
        assert jax.tree.structure(shapes) == jax.tree.structure(axes, is_leaf=is_axes)
        assert {axis for leaf in names for axis in leaf} <= set(PARAM_AXES)
        sizes = {"vocab": arch.vocab_size, "embed": arch.hidden_size, "norm": arch.hidden_size, "mlp": arch.mlp_size}
        sizes |= {"heads": arch.num_heads, "kv_heads": arch.num_kv_heads, "head_dim": arch.head_dim}
        sizes |= {"layers": arch.num_layers}
        for shape, leaf in zip(jax.tree.leaves(shapes), names, strict=True):
            assert shape.shape == tuple(sizes[axis] for axis in leaf)
            assert shape.dtype == "bfloat16"
    assert set(ACTIVATION_AXES) >= {"batch", "sequence"}


def test_a_random_start_is_normal_with_the_config_s_width():
    arch = read_architecture(tiny_models.tiny_config("Qwen2.5-7B-Instruct"))
    arch = dataclasses.replace(arch, init_std=0.05, hidden_size=256)
    params = jax.jit(init_params, static_argnums=(0, 2))(arch, jax.random.key(3), "float32")
    assert jax.tree.map(lambda x: x.shape, params) == jax.tree.map(lambda x: x.shape, abstract_params(arch, "float32"))
    assert abs(float(params["embed"].std()) - 0.05) < 0.002
    first, second = params["layers"]["mlp"]["gate"]
    assert not (first == second).all()
    assert (params["layers"]["attention"]["q_bias"] == 0).all()
    assert (params["final_norm"]["scale"] == 1).all()
