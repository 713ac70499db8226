"""The forward pass of `transformers`, with one module's weights in memory at a time.

In: a raw config.json, a function that reads a tensor by its HF name, embedded tokens. Out: the last hidden states. The
network, its rotary tables and its mask are those that the library makes from the config; only where the weights come
from is ours, so that a model larger than the memory can be run, from a bucket too.

Shapes: T tokens, D hidden.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from stratos_jax.types import Json

Read = Callable[[str], np.ndarray]


def installed() -> bool:
    """Whether torch is there as well."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def version() -> str:
    """Of the library, for a report."""
    import transformers

    return f"transformers {transformers.__version__}"


def last_hidden(config: Mapping[str, Json], read: Read, embedded_TD: np.ndarray) -> np.ndarray:
    """Hidden states after the last norm, float32[T, D], for one sequence of embedded tokens."""
    import torch

    decoder = _empty_decoder(config)
    for name, module in decoder.named_modules():
        own = [key for key, _ in module.named_parameters(recurse=False)]
        if own and not isinstance(module, torch.nn.Embedding):  # the embedding is done already
            module.register_forward_pre_hook(lambda module, _, n=name, own=own: _fill(module, f"model.{n}", own, read))
            module.register_forward_hook(lambda module, *_, own=own: _clear(module, own))
    with torch.no_grad():
        inputs_BTD = torch.from_numpy(embedded_TD.astype(np.float32))[None]
        return decoder(inputs_embeds=inputs_BTD, use_cache=False).last_hidden_state[0].numpy()


def _empty_decoder(config: Mapping[str, Json]) -> Any:
    """The decoder without weights; its rotary tables, which no file holds, are real."""
    import torch
    import transformers

    settings = transformers.AutoConfig.for_model(**config)
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the config's fields that another version of the library renamed
        model = transformers.AutoModelForCausalLM.from_config(
            settings, dtype=torch.float32, attn_implementation="eager"
        )
    decoder = model.eval().model
    decoder.rotary_emb = type(decoder.rotary_emb)(config=settings)
    return decoder


def _fill(module: Any, name: str, own: list[str], read: Read) -> None:
    import torch

    for key in own:
        weight = torch.from_numpy(read(f"{name}.{key}").astype(np.float32))
        wanted = getattr(module, key).shape
        if weight.shape != wanted:
            raise ValueError(f"{name}.{key} has the shape {tuple(weight.shape)}, the library wants {tuple(wanted)}")
        setattr(module, key, torch.nn.Parameter(weight, requires_grad=False))


def _clear(module: Any, own: list[str]) -> None:
    import torch

    for key in own:
        empty = torch.empty_like(getattr(module, key), device="meta")
        setattr(module, key, torch.nn.Parameter(empty, requires_grad=False))
