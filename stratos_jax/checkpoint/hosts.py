"""What the processes of a run agree on when they restore: the same steps, damaged for all or for none.

In: what one process sees. Out: what all go by. With one process, nothing.
"""

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from stratos_jax.checkpoint.integrity import Damaged

MOST = 256  # steps that are looked at


def is_primary() -> bool:
    """Whether this process writes what is written once."""
    import jax

    return jax.process_index() == 0


def same_everywhere(steps: Sequence[int]) -> list[int]:
    """The steps that the first process sees; a listing of another one may be a moment older."""
    import jax

    if jax.process_count() == 1:
        return list(steps)
    from jax.experimental import multihost_utils

    padded = np.full(MOST, -1, np.int32)
    padded[: len(steps)] = steps[:MOST]
    return [int(step) for step in multihost_utils.broadcast_one_to_all(padded) if step >= 0]


@contextlib.contextmanager
def together(where: str) -> Iterator[None]:
    """If a process finds a step damaged in this block, all do."""
    import jax

    damage: Damaged | None = None
    try:
        yield
    except Damaged as error:
        damage = error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        found = multihost_utils.process_allgather(np.array(damage is not None), tiled=False)
        if damage is None and np.any(found):
            damage = Damaged(
                "damaged, as process(es) " + ", ".join(map(str, np.flatnonzero(found))) + " say", where=where
            )
    if damage is not None:
        raise damage
