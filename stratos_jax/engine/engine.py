"""The sampler: requests go into slots of one KV cache, and come out as completions in the order in which they end.

In: parameters, an architecture, requests. Out: `Completion`s. A slot that ends is filled from the queue at once
(continuous batching). `decode_steps` tokens are made on the device between two looks of the host; the cache is
donated. What comes out does not depend on the batch size, the order of requests or the number of steps: noise is a
function of the sequence alone, and so are the logits, but for rounding.

Shapes: L layers, B slots, S positions of the cache, A admitted sequences, T prompt tokens, N steps, V vocabulary,
E end tokens.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from stratos_jax.engine.config import EngineConfig
from stratos_jax.engine.request import Completion, Request, check, check_sampling, noise_words
from stratos_jax.engine.sampler import Choice, next_tokens
from stratos_jax.model.cache import Cache, init_cache
from stratos_jax.model.config import Architecture
from stratos_jax.model.forward import forward, logits
from stratos_jax.types import UserError, raise_all


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Slots:
    """The sequences at work: the last token of each, its position, and where it must end."""

    tokens_B: jax.Array
    positions_B: jax.Array
    last_B: jax.Array  # the last position that may be filled
    alive_B: jax.Array
    ends_BE: jax.Array  # -1: none
    choice: Choice


@dataclasses.dataclass(kw_only=True, slots=True)
class Running:
    """A request in a slot, and what it has so far."""

    request: Request
    tokens: list[int]


class Engine:
    """Continues token sequences with one model."""

    def __init__(self, params: Any, arch: Architecture, config: EngineConfig, eos_ids: Sequence[int]):
        self._params, self._arch, self._config, self._eos_ids = params, arch, config, tuple(eos_ids)
        keys = {"arch": arch, "compute_dtype": config.compute_dtype}
        self._admit = jax.jit(functools.partial(_admit, **keys), donate_argnames=("cache", "slots"))
        decode = functools.partial(_decode, **keys, steps=config.decode_steps)
        self._decode = jax.jit(decode, donate_argnames=("cache", "slots"))

    def replace_weights(self, params: Any) -> None:
        """Take other weights of the same model, or let them go; what is compiled stays."""
        self._params = params

    def generate(
        self, requests: Iterable[Request], progress: Callable[[int], None] = lambda tokens: None
    ) -> Iterator[Completion]:
        """Completions as they end; `progress` is told of new tokens."""
        queue = collections.deque(requests)
        self._check(queue)
        if not queue:
            return
        cache, slots = self._start(queue)
        num_slots = len(slots.tokens_B)
        running: dict[int, Running] = {}
        while queue or running:
            free = [slot for slot in range(num_slots) if slot not in running]
            while free and queue:
                batch = _batch_of(queue, len(free))
                chosen, free = free[: len(batch)], free[len(batch) :]
                cache, slots, tokens_A = self._admit(
                    self._params, cache=cache, slots=slots, **self._inputs(batch, chosen, slots)
                )
                running |= {slot: Running(request=r, tokens=[]) for slot, r in zip(chosen, batch)}
                yield from self._collect(running, chosen, np.asarray(tokens_A)[:, None])
                progress(len(batch))
                free += [slot for slot in chosen if slot not in running]
            if running:
                cache, slots, tokens_BN = self._decode(self._params, cache=cache, slots=slots)
                tokens_BN, active = np.asarray(tokens_BN), sorted(running)
                progress(int((tokens_BN[active] >= 0).sum()))
                yield from self._collect(running, active, tokens_BN[active])

    def lower(self, what: str, requests: Sequence[Request], place: jax.sharding.Sharding) -> jax.stages.Lowered:
        """The program `prefill` or `decode` of these requests, where `place` may be a device for the compiler alone."""
        abstract = lambda tree: jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
        cache, slots = abstract(jax.eval_shape(lambda: self._start(requests)))
        if what == "decode":
            return self._decode.lower(abstract(self._params), cache=cache, slots=slots)
        chosen = range(min(len(requests), len(slots.tokens_B)))
        inputs = abstract(self._inputs([requests[i] for i in chosen], chosen, slots))
        return self._admit.lower(abstract(self._params), cache=cache, slots=slots, **inputs)

    def _start(self, requests: Sequence[Request] | collections.deque[Request]) -> tuple[Cache, Slots]:
        """An empty cache and empty slots that suit the requests."""
        length = _round_up(max(map(self._end_of, requests)))
        num_slots = min(self._config.batch_size, _round_up(len(requests), 8))
        num_ends = max(len(self._ends_of(r)) for r in requests)
        cache = init_cache(self._arch, num_slots, length, self._config.cache_dtype)
        return dataclasses.replace(cache, fresh=False), _empty_slots(num_slots, max(1, num_ends))

    def _check(self, requests: Iterable[Request]) -> None:
        problems = [p for r in requests for p in check(r, self._arch.vocab_size, self._arch.max_positions)]
        raise_all(problems[:20], what="these requests cannot be sampled")
        for sampling in {r.sampling for r in requests}:
            check_sampling(sampling)
        if not self._eos_ids:
            raise UserError("the model has no end token", do="name eos_token_id in its generation_config.json")

    def _end_of(self, request: Request) -> int:
        """How many positions a request may fill."""
        return min(len(request.tokens) + request.sampling.max_tokens, self._arch.max_positions)

    def _ends_of(self, request: Request) -> tuple[int, ...]:
        return (*self._eos_ids, *request.sampling.stop_ids)

    def _inputs(self, batch: Sequence[Request], chosen: Sequence[int], slots: Slots) -> dict[str, Any]:
        """Padded arrays of a batch that goes in; a padded row has a slot that does not exist."""
        num_slots, num_ends = slots.ends_BE.shape
        rows, length = _power_of_two(len(batch)), _power_of_two(max(len(r.tokens) for r in batch), at_least=16)
        tokens_AT = np.zeros((rows, length), np.int32)
        lengths_A, slots_A = np.ones(rows, np.int32), np.full(rows, num_slots, np.int32)
        last_A, ends_AE = np.zeros(rows, np.int32), np.full((rows, num_ends), -1, np.int32)
        words_A3, samplings = np.zeros((rows, 3), np.uint32), [r.sampling for r in batch]
        for row, (request, slot) in enumerate(zip(batch, chosen)):
            tokens_AT[row, : len(request.tokens)] = request.tokens
            lengths_A[row], slots_A[row], last_A[row] = len(request.tokens), slot, self._end_of(request) - 1
            ends_AE[row, : len(self._ends_of(request))] = self._ends_of(request)
            words_A3[row] = noise_words(request)
        pad = lambda values, dtype: np.array([*values, *[0] * (rows - len(batch))], dtype)
        choice = Choice(
            words_B3=words_A3,  # type: ignore[arg-type]
            temperature_B=pad((s.temperature for s in samplings), np.float32),  # type: ignore[arg-type]
            top_p_B=pad((s.top_p for s in samplings), np.float32),  # type: ignore[arg-type]
            top_k_B=pad((s.top_k for s in samplings), np.int32),  # type: ignore[arg-type]
        )
        arrays = {"lengths_A": lengths_A, "slots_A": slots_A, "last_A": last_A, "ends_AE": ends_AE}
        return {"tokens_AT": tokens_AT, **arrays, "choice_A": choice}

    def _collect(
        self, running: dict[int, Running], slots: Sequence[int], tokens_XN: np.ndarray
    ) -> Iterator[Completion]:
        """Add new tokens to their sequences, and give those that ended."""
        for slot, tokens_N in zip(slots, tokens_XN, strict=False):
            run = running[slot]
            run.tokens += [int(token) for token in tokens_N if token >= 0]
            stopped = run.tokens[-1] in self._ends_of(run.request)
            if stopped or len(run.request.tokens) + len(run.tokens) >= self._end_of(run.request):
                del running[slot]
                reason = "stop" if stopped else "length"
                yield Completion(id=run.request.id, tokens=tuple(run.tokens), finish_reason=reason)


def _admit(
    params, *, cache: Cache, slots: Slots, tokens_AT, lengths_A, slots_A, last_A, ends_AE, choice_A, arch, compute_dtype
) -> tuple[Cache, Slots, jax.Array]:
    """Read prompts, put their keys and values into their slots, and choose the first token of each."""
    num_rows, length = tokens_AT.shape
    positions_AT = jnp.broadcast_to(jnp.arange(length, dtype=jnp.int32), tokens_AT.shape)
    segments_AT = (positions_AT < lengths_A[:, None]).astype(jnp.int32)
    fresh = init_cache(arch, num_rows, length, cache.k_LBSKH.dtype)
    hidden_ATD, fresh = forward(
        params,
        arch,
        tokens_AT,
        positions_BT=positions_AT,
        segment_ids_BT=segments_AT,
        cache=fresh,
        compute_dtype=compute_dtype,
    )
    kept = min(length, cache.k_LBSKH.shape[2])
    put = lambda old, new: old.at[:, slots_A, :kept].set(new[:, :, :kept], mode="drop")
    cache = dataclasses.replace(
        cache, k_LBSKH=put(cache.k_LBSKH, fresh.k_LBSKH), v_LBSKH=put(cache.v_LBSKH, fresh.v_LBSKH)
    )
    hidden_A1D = jnp.take_along_axis(hidden_ATD, (lengths_A - 1)[:, None, None], axis=1)
    first_A = next_tokens(logits(params, arch, hidden_A1D)[:, 0], choice_A, lengths_A)
    alive_A = (lengths_A < last_A) & ~jnp.any(first_A[:, None] == ends_AE, axis=-1)
    new = Slots(
        tokens_B=first_A, positions_B=lengths_A, last_B=last_A, alive_B=alive_A, ends_BE=ends_AE, choice=choice_A
    )
    slots = jax.tree.map(lambda old, rows: old.at[slots_A].set(rows, mode="drop"), slots, new)
    return cache, slots, first_A


def _decode(params, *, cache: Cache, slots: Slots, arch, compute_dtype, steps) -> tuple[Cache, Slots, jax.Array]:
    """Up to `steps` tokens for every sequence that is alive; -1 where there is none."""
    tokens_BN = jnp.full((len(slots.tokens_B), steps), -1, jnp.int32)

    def step(carry):
        index, cache, slots, tokens_BN = carry
        hidden_B1D, cache = forward(
            params,
            arch,
            slots.tokens_B[:, None],
            positions_BT=slots.positions_B[:, None],
            segment_ids_BT=slots.alive_B.astype(jnp.int32)[:, None],
            cache=cache,
            compute_dtype=compute_dtype,
        )
        positions_B = slots.positions_B + 1
        chosen_B = next_tokens(logits(params, arch, hidden_B1D)[:, 0], slots.choice, positions_B)
        tokens_BN = tokens_BN.at[:, index].set(jnp.where(slots.alive_B, chosen_B, -1))
        ended_B = (positions_B >= slots.last_B) | jnp.any(chosen_B[:, None] == slots.ends_BE, axis=-1)
        slots = dataclasses.replace(
            slots,
            tokens_B=jnp.where(slots.alive_B, chosen_B, slots.tokens_B),
            positions_B=jnp.where(slots.alive_B, positions_B, slots.positions_B),
            alive_B=slots.alive_B & ~ended_B,
        )
        return index + 1, cache, slots, tokens_BN

    going = lambda carry: (carry[0] < steps) & jnp.any(carry[2].alive_B)
    _, cache, slots, tokens_BN = jax.lax.while_loop(going, step, (0, cache, slots, tokens_BN))
    return cache, slots, tokens_BN


def _batch_of(queue: collections.deque[Request], most: int) -> list[Request]:
    """The next requests, as long as reading them together wastes little."""
    batch = [queue.popleft()]
    size = lambda request: _power_of_two(len(request.tokens), at_least=16)
    while queue and len(batch) < most and size(queue[0]) == size(batch[0]):
        batch.append(queue.popleft())
    return batch


def _empty_slots(num_slots: int, num_ends: int) -> Slots:
    zeros = lambda dtype, *shape: jnp.zeros((num_slots, *shape), dtype)
    choice = Choice(
        words_B3=zeros("uint32", 3),
        temperature_B=zeros("float32"),
        top_p_B=zeros("float32"),
        top_k_B=zeros("int32"),
    )
    return Slots(
        tokens_B=zeros("int32"),
        positions_B=zeros("int32"),
        last_B=zeros("int32"),
        alive_B=zeros("bool"),
        ends_BE=jnp.full((num_slots, num_ends), -1, jnp.int32),
        choice=choice,
    )


def _power_of_two(number: int, at_least: int = 1) -> int:
    return max(at_least, 1 << (number - 1).bit_length())


def _round_up(number: int, multiple: int = 64) -> int:
    return -(-number // multiple) * multiple
