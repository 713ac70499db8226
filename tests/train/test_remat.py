"""The choice behind `auto`: the more memory, the more is kept."""

import json

import pytest
import training
from helpers import ROOT

from stratos_jax.mesh import layout
from stratos_jax.mesh.config import MeshConfig
from stratos_jax.mesh.rules import AXES
from stratos_jax.model.config import architecture_of, read_architecture
from stratos_jax.train import devices, remat
from stratos_jax.types import UserError

GIB = 2**30


def choose(gib):
    arch = read_architecture(json.loads((ROOT / "tests/golden/configs/Qwen2.5-7B-Instruct.json").read_text()))
    memory = None if gib is None else int(gib * GIB)
    return remat.choose(arch, tokens=16_384, state_bytes=int(1.4 * GIB), memory_bytes=memory, chunk=1024)


def test_more_memory_keeps_more():
    order = ["offload", *reversed(["none", "dots", "context_qkv", "context", "full"])]
    chosen = [choose(gib) for gib in (8, 15.75, 31.25, 95, 141)]
    assert [order.index(name) for name in chosen] == sorted(order.index(name) for name in chosen)
    assert chosen[0] == "offload" and chosen[-1] in ("dots", "none") and set(chosen) <= remat.POLICIES.keys()
    assert choose(None) == "full"  # a 7B step on a machine that does not tell


def test_devices_that_share_rows_share_what_is_kept(monkeypatch):
    asked = []
    monkeypatch.setattr(remat, "choose", lambda arch, **sizes: asked.append(sizes) or "full")
    mesh = layout.make_mesh(dict(zip(AXES, (1, 2, 2, 2))))
    model, train = training.model_config(), training.train_config(remat="auto")
    assert devices.with_remat(train, model, architecture_of(model), mesh, row_tokens=64).remat == "full"
    assert asked[0]["tokens"] == 4 * 64 // 4


def test_a_name_that_is_no_policy_is_refused():
    with pytest.raises(UserError, match="offload, full, offload_context"):
        remat.policy("some")


def test_cores_hold_a_small_network_each_and_share_a_large_one(monkeypatch):
    model, train = training.model_config(), training.train_config(rows_per_step=8)
    mesh_of = lambda: dict(devices.choose_mesh(MeshConfig(), train, model, architecture_of(model))[0].shape)
    assert mesh_of() == {"data": 8, "fsdp": 1, "context": 1, "tensor": 1}
    monkeypatch.setattr(devices, "SMALL", 1)
    assert mesh_of() == {"data": 1, "fsdp": 8, "context": 1, "tensor": 1}
