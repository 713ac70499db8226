"""Tiny HF folders made from the published configs, for tests of conversion."""

import functools
import json
import pathlib
from typing import Any

import ml_dtypes
import numpy as np
from tiny_models import noisy_params, tiny_config, to_hf_tensors

from stratos_jax.model.config import read_architecture


@functools.cache
def tensors_of(name: str) -> dict[str, np.ndarray]:
    """Bfloat16 tensors under their HF names."""
    arch = read_architecture(tiny_config(name))
    tensors = to_hf_tensors(arch, noisy_params(arch))
    return {key: tensor.astype(ml_dtypes.bfloat16) for key, tensor in tensors.items()}


def write_folder(
    folder: pathlib.Path,
    name: str = "Qwen2.5-7B-Instruct",
    *,
    shards: int = 1,
    tensors: dict | None = None,
    **config: Any,
) -> pathlib.Path:
    """A model folder as transformers would leave it, with a generation_config and a chat template to carry."""
    from safetensors.numpy import save_file

    tensors = tensors or tensors_of(name)
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**tiny_config(name), **config}, indent=2))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 3], "temperature": 0.7}))
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    (folder / "README.md").write_text("not carried")
    names = list(tensors)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        part = {key: tensors[key] for key in names[i::shards]}
        save_file(part, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_folder(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """All tensors of a folder, by the library that others read it with."""
    from safetensors.numpy import load_file

    found: dict[str, np.ndarray] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def same_tensors(left: dict[str, np.ndarray], right: dict[str, np.ndarray]) -> bool:
    """Names, number formats and bytes."""
    return left.keys() == right.keys() and all(
        (a.dtype, a.shape, a.tobytes()) == (right[n].dtype, right[n].shape, right[n].tobytes()) for n, a in left.items()
    )
