"""One row over several devices: which tokens each device holds, and back to row order.

A causal row is cut into 2C pieces for C devices, and device i takes piece i and piece 2C-1-i: a cheap early one and a
dear late one, so that all devices attend to equally many keys. The caller reorders everything that it gives the model
per token (tokens, positions, segment ids, targets) with `zigzag_order`; only attention has to know of the order.
"""

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.types import UserError


def zigzag_order(length: int, num_shards: int) -> np.ndarray:
    """For each place of a row laid over `num_shards` devices, the index of the token that stands there."""
    if length % (2 * num_shards):
        raise UserError(
            "a row cannot be split evenly over the context axis",
            got=f"{length} tokens over {num_shards} devices",
            wanted=f"a multiple of {2 * num_shards} tokens",
        )
    pieces = np.arange(length).reshape(2 * num_shards, -1)
    order = [pieces[[i, 2 * num_shards - 1 - i]].reshape(-1) for i in range(num_shards)]
    return np.concatenate(order)


def in_row_order(x_BT: jax.Array, num_shards: int) -> jax.Array:
    """Undo `zigzag_order` on dimension 1."""
    pieces = jnp.split(x_BT, 2 * num_shards, axis=1)
    places = np.argsort([piece for i in range(num_shards) for piece in (i, 2 * num_shards - 1 - i)])
    return jnp.concatenate([pieces[place] for place in places], axis=1)
