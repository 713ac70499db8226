"""The digest is the same on any sharding and in NumPy, and any changed bit changes it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoint_trees import mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from stratos_jax.checkpoint.digest import add, digest_tree, text, words_of

DTYPES = ("float32", "bfloat16", "int8", "uint8", "int32", "bool")


def array(dtype: str, shape=(6, 16, 8)) -> np.ndarray:
    values = np.random.default_rng(0).integers(-100, 100, shape)
    return (values % 2).astype(bool) if dtype == "bool" else values.astype(jnp.dtype(dtype))


def test_the_same_however_it_lies():
    arrays = [array(dtype) for dtype in DTYPES]
    specs = (P(), P("fsdp"), P(None, "fsdp", "tensor"), P(None, ("fsdp", "tensor")))
    wanted = [words_of(a) for a in arrays]
    for spec in specs:
        if spec == P("fsdp"):
            placed = [jax.device_put(a[:4], NamedSharding(mesh(), spec)) for a in arrays]
            assert [text(d) for d in digest_tree(placed)] == [text(words_of(a[:4])) for a in arrays]
        else:
            placed = [jax.device_put(a, NamedSharding(mesh(), spec)) for a in arrays]
            assert [text(d) for d in digest_tree(placed)] == [text(words) for words in wanted]


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_add_up(dtype):
    whole, words = array(dtype), (0, 0)
    for i, part in enumerate(whole):
        words = add(words, words_of(part, i * part.size))
    assert words == words_of(whole)


def test_long_arrays_are_done_in_chunks(monkeypatch):
    from stratos_jax.checkpoint import digest

    whole = words_of(array("bfloat16"))
    monkeypatch.setattr(digest, "CHUNK_WORDS", 100)
    assert words_of(array("bfloat16")) == whole


def test_every_bit_counts():
    data = array("bfloat16", (32,))
    seen = {text(words_of(data))}
    for bit in range(8 * data.nbytes):
        raw = bytearray(data.tobytes())
        raw[bit // 8] ^= 1 << bit % 8
        seen.add(text(words_of(np.frombuffer(bytes(raw), data.dtype))))
    assert len(seen) == 1 + 8 * data.nbytes


def test_order_and_place_count():
    data = array("float32", (64,))
    assert words_of(data) != words_of(data[::-1])
    assert words_of(data) != words_of(data, 1)
    assert text(words_of(np.zeros(4, np.float32))) != text(words_of(np.zeros(5, np.float32)))
