"""Hugging Face folders in and out, each conversion with its proof. Importing this loads no jax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratos_jax.convert.export import to_hf
    from stratos_jax.convert.ingest import from_hf
    from stratos_jax.convert.load import load_hf_params

_HOMES = {"to_hf": "export", "from_hf": "ingest", "load_hf_params": "load"}
__all__ = ["from_hf", "load_hf_params", "to_hf"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
