"""The next token of each sequence: greedy, or drawn with noise that depends on nothing but the sequence itself.

In: logits, sampling parameters and noise words of each sequence. Out: token ids.

Shapes: B sequences, V vocabulary.
"""

import dataclasses

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """How the next tokens are chosen, one entry for each sequence."""

    words_B3: jax.Array  # uint32: seed, problem, sample
    temperature_B: jax.Array
    top_p_B: jax.Array
    top_k_B: jax.Array  # 0: all


def next_tokens(logits_BV: jax.Array, choice: Choice, positions_B: jax.Array) -> jax.Array:
    """The token at `positions_B` of each sequence; greedy where the temperature is 0."""
    greedy_B = jnp.argmax(logits_BV, axis=-1).astype(jnp.int32)
    draw = lambda: jnp.where(choice.temperature_B > 0, _draw(logits_BV, choice, positions_B), greedy_B)
    return jax.lax.cond(jnp.any(choice.temperature_B > 0), draw, lambda: greedy_B)


def _draw(logits_BV: jax.Array, choice: Choice, positions_B: jax.Array) -> jax.Array:
    """Gumbel-max over the tokens that temperature, then top-k, then top-p leave."""
    scaled_BV = logits_BV / jnp.where(choice.temperature_B > 0, choice.temperature_B, 1.0)[:, None]
    k_B = jnp.where(choice.top_k_B > 0, choice.top_k_B, logits_BV.shape[-1]).astype(jnp.float32)
    kept_BV = scaled_BV >= _threshold(scaled_BV, jnp.ones_like(scaled_BV), k_B)[:, None]
    mass_BV = jax.nn.softmax(jnp.where(kept_BV, scaled_BV, -jnp.inf), axis=-1)
    cut_B = jnp.where(choice.top_p_B < 1, _threshold(scaled_BV, mass_BV, choice.top_p_B), -jnp.inf)
    kept_BV &= scaled_BV >= cut_B[:, None]
    noise_BV = jax.vmap(_gumbel, in_axes=(0, 0, None))(choice.words_B3, positions_B, logits_BV.shape[-1])
    return jnp.argmax(jnp.where(kept_BV, scaled_BV + noise_BV, -jnp.inf), axis=-1).astype(jnp.int32)


def _gumbel(words_3: jax.Array, position: jax.Array, vocabulary: int) -> jax.Array:
    key = jax.random.key(words_3[0])
    for word in (words_3[1], words_3[2], position):
        key = jax.random.fold_in(key, word)
    return jax.random.gumbel(key, (vocabulary,))


def _threshold(scores_BV: jax.Array, weights_BV: jax.Array, wanted_B: jax.Array) -> jax.Array:
    """The highest score such that the tokens at or above it weigh at least `wanted_B`; exact, without sorting.

    Floats order like the integers of their bits once negative ones are flipped, so 32 halvings find the very score.
    """
    bits_BV = jax.lax.bitcast_convert_type(scores_BV.astype(jnp.float32), jnp.int32)
    order_BV = jnp.where(bits_BV < 0, bits_BV ^ 0x7FFFFFFF, bits_BV)
    low_B, high_B = jnp.min(order_BV, axis=-1), jnp.max(order_BV, axis=-1)

    def halve(_, bounds):
        low_B, high_B = bounds  # the weight at low_B suffices
        middle_B = (low_B >> 1) + (high_B >> 1) + ((low_B | high_B) & 1)
        enough_B = jnp.sum(jnp.where(order_BV >= middle_B[:, None], weights_BV, 0), axis=-1) >= wanted_B
        return jnp.where(enough_B, middle_B, low_B), jnp.where(enough_B, high_B, middle_B - 1)

    order_B, _ = jax.lax.fori_loop(0, 33, halve, (low_B, high_B))
    return jax.lax.bitcast_convert_type(jnp.where(order_B < 0, order_B ^ 0x7FFFFFFF, order_B), jnp.float32)
