"""Training state on disk: saved in the background, digested leaf by leaf, restored only when it verifies.

In: trees of arrays on any mesh. Out: `<directory>/<step>/` with an Orbax checkpoint and `integrity.json`, and trees on
any other mesh. The only room that knows Orbax. Importing this loads no jax.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stratos_jax.checkpoint.check import verify
    from stratos_jax.checkpoint.checkpointer import Checkpointer, restore, save
    from stratos_jax.checkpoint.digest import Words, add, text, words_of
    from stratos_jax.checkpoint.folders import newest, steps
    from stratos_jax.checkpoint.integrity import Integrity, Leaf, read_integrity
    from stratos_jax.checkpoint.leaves import LeafReader, StepWriter

_HOMES = {
    **dict.fromkeys(("Checkpointer", "restore", "save"), "checkpointer"),
    **dict.fromkeys(("Words", "add", "text", "words_of"), "digest"),
    **dict.fromkeys(("Integrity", "Leaf", "read_integrity"), "integrity"),
    **dict.fromkeys(("LeafReader", "StepWriter"), "leaves"),
    **dict.fromkeys(("newest", "steps"), "folders"),
    "verify": "check",
}
__all__ = [
    "Checkpointer",
    "Integrity",
    "Leaf",
    "LeafReader",
    "StepWriter",
    "Words",
    "add",
    "newest",
    "read_integrity",
    "restore",
    "save",
    "steps",
    "text",
    "verify",
    "words_of",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for; Orbax alone takes seconds."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
