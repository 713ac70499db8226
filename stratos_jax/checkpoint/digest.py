"""A 64-bit digest of an array that does not depend on how the array is spread over devices.

In: an array of any shape and number format. Out: 16 hex digits. Each word is mixed with its index and the results are
added up, so that devices digest their own shards, nothing is gathered, and a part (one layer of a stacked leaf, say)
can be digested by itself and added to the rest. Against accidents, not against an adversary.
"""

import functools
import math
from typing import Any

import numpy as np

PLACES = (0x9E3779B9, 0x85EBCA6B)  # an index is multiplied by these, one for each half of the digest
CHUNK_WORDS = 1 << 16  # fits the second-level cache
FINALIZER = ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 0))  # murmur3's: shifts, and what is multiplied by then
Words = tuple[int, int]


def digest_tree(leaves: list[Any]) -> list[Any]:
    """For each jax.Array its digest as a uint32[2] on its devices; the computation runs in the background."""
    import jax

    everywhere = [_replicated(leaf.sharding) for leaf in leaves]
    return jax.jit(lambda arrays: [_device_words(array) for array in arrays], out_shardings=everywhere)(leaves)


def _replicated(sharding: Any) -> Any:
    """Each process reads the result from a device of its own."""
    import jax

    if isinstance(sharding, jax.sharding.NamedSharding):
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return None


def words_of(array: np.ndarray, first: int = 0) -> Words:
    """The digest of a NumPy array whose first element has the index `first` in the whole leaf."""
    bits, totals = _bits(np.ascontiguousarray(array).reshape(-1)), [0, 0]
    per_element = len(bits) // max(array.size, 1)
    value, spare = np.empty(CHUNK_WORDS, np.uint32), np.empty(CHUNK_WORDS, np.uint32)
    for start in range(0, len(bits), CHUNK_WORDS):
        part = bits[start : start + CHUNK_WORDS]
        for i, (place, steps) in enumerate(zip(PLACES, _steps(CHUNK_WORDS))):
            mixed, other = value[: len(part)], spare[: len(part)]
            first_place = np.uint32((first * per_element + start) * place & 0xFFFFFFFF)
            np.add(steps[: len(part)], first_place, out=mixed)
            np.add(mixed, part, out=mixed)
            for shift, factor in FINALIZER:  # in place: this runs over every byte of a checkpoint
                np.right_shift(mixed, np.uint32(shift), out=other)
                np.bitwise_xor(mixed, other, out=mixed)
                if factor:
                    np.multiply(mixed, np.uint32(factor), out=mixed)
            totals[i] += int(mixed.sum(dtype=np.uint64))
    return totals[0] & 0xFFFFFFFF, totals[1] & 0xFFFFFFFF


def add(left: Words, right: Words) -> Words:
    """The digest of two parts together."""
    return (left[0] + right[0]) & 0xFFFFFFFF, (left[1] + right[1]) & 0xFFFFFFFF


def text(words: Any) -> str:
    """A digest as it stands in `integrity.json`."""
    return "".join(f"{int(word):08x}" for word in words)


@functools.lru_cache(maxsize=2)
def _steps(length: int) -> list[np.ndarray]:
    index = np.arange(length, dtype=np.uint32)
    return [index * np.uint32(place) for place in PLACES]


def _bits(flat: np.ndarray) -> np.ndarray:
    """The elements as unsigned words of at most 32 bits, low half first where there are two."""
    size = flat.dtype.itemsize
    if size > 4:
        return flat.view(np.uint32)
    return flat.view({1: np.uint8, 2: np.uint16, 4: np.uint32}[size])


def _device_words(array: Any) -> Any:
    import jax
    import jax.numpy as jnp

    itemsize = array.dtype.itemsize
    if array.dtype == jnp.bool_:
        array = array.astype(jnp.uint8)
    word = jax.lax.bitcast_convert_type(array, {1: jnp.uint8, 2: jnp.uint16}.get(itemsize, jnp.uint32))
    word = word.astype(jnp.uint32)
    index, stride = jnp.zeros(word.shape, jnp.uint32), 1
    for dim in reversed(range(word.ndim)):
        index += jax.lax.broadcasted_iota(jnp.uint32, word.shape, dim) * jnp.uint32(stride & 0xFFFFFFFF)
        stride *= word.shape[dim]
    assert stride == math.prod(word.shape)
    return jnp.stack([_finalize(word + index * jnp.uint32(place)).sum(dtype=jnp.uint32) for place in PLACES])


def _finalize(value: Any) -> Any:
    for shift, factor in FINALIZER:
        value = value ^ (value >> np.uint32(shift))
        value = value * np.uint32(factor) if factor else value
    return value
