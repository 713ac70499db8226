"""Which steps stand in a folder of checkpoints, found by listing alone.

In: a folder, local or gs://. Out: step numbers. A step counts once `integrity.json` is in it, which is written last.
Listing goes through `store`, which always asks the bucket: another process's new steps are seen at once.
"""

import os

from stratos_jax import store
from stratos_jax.store import Url

INTEGRITY = "integrity.json"


def step_url(directory: Url, step: int) -> str:
    """The folder of one step."""
    return store.join(directory, str(step))


def steps(directory: Url) -> list[int]:
    """All steps that were saved to the end, oldest first."""
    return sorted(int(name) for name, finished in _folders(directory).items() if finished)


def newest(directory: Url) -> int | None:
    """The newest step that was saved to the end."""
    return max(steps(directory), default=None)


def unfinished(directory: Url) -> list[str]:
    """Folders that a killed save left behind."""
    return [name for name, finished in _folders(directory).items() if not finished]


def remove(directory: Url, name: str) -> None:
    """Remove a step, its integrity file first, so that a half-removed step never counts."""
    url = store.join(directory, name)
    store.delete_tree(store.join(url, INTEGRITY))
    store.delete_tree(url)


def _folders(directory: Url) -> dict[str, bool]:
    """Folders of steps and of steps to be, each with whether it is finished."""
    if store.is_remote(directory):
        root = len(store.join(directory, "x")) - 1
        try:
            parts = [file.url[root:].split("/") for file in store.list_files(directory)]
        except store.Missing:
            return {}
        found = {part[0]: [part[0], INTEGRITY] in parts for part in parts if len(part) > 1}
    else:
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        found = {name: os.path.isfile(os.path.join(directory, name, INTEGRITY)) for name in names}
    return {name: finished and name.isdecimal() for name, finished in found.items() if _is_step(name)}


def _is_step(name: str) -> bool:
    """Orbax saves into `<step>.<something>tmp<something>`, which then becomes `<step>`."""
    head = name.split(".")[0]
    return head.isdecimal() and (name == head or "tmp" in name)
