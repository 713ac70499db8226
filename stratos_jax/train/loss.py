"""Cross entropy from hidden states, in chunks, so that the scores of all tokens never exist together.

In: hidden states, the head, targets and weights of one device's tokens. Out: the weighted sum of token losses, and
each token's loss for the metrics. The gradients are taken in the same walk over the chunks (three products of the head
instead of four), the head is used as it stands (whoever gathers it does so once), and tokens without weight, save for
less than a chunk of them, are skipped.

Shapes: N tokens, C tokens of a chunk, D hidden, V vocabulary.
"""

import functools

import jax
import jax.numpy as jnp

from stratos_jax.model.products import product, sum_over_tokens


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def token_losses(hidden_ND, head_VD, targets_N, weights_N, chunk: int):
    """(sum of weight x loss, loss of each token, 0 where its weight is 0), both float32."""
    losses_N = _walk(hidden_ND, head_VD, targets_N, weights_N, chunk, with_grads=False)[0]
    return jnp.sum(losses_N * weights_N), losses_N


def _forward(hidden_ND, head_VD, targets_N, weights_N, chunk):
    losses_N, d_hidden_ND, d_head_VD = _walk(hidden_ND, head_VD, targets_N, weights_N, chunk, with_grads=True)
    return (jnp.sum(losses_N * weights_N), losses_N), (d_hidden_ND, d_head_VD)


def _backward(chunk, saved, cotangents):
    d_hidden_ND, d_head_VD = saved
    scale = cotangents[0]  # losses_N are for metrics: nothing is differentiated through them
    return (scale * d_hidden_ND).astype(d_hidden_ND.dtype), (scale * d_head_VD).astype(d_head_VD.dtype), None, None


token_losses.defvjp(_forward, _backward)


def _walk(hidden_ND, head_VD, targets_N, weights_N, chunk, *, with_grads):
    """Losses of all tokens, and gradients of their weighted sum; weighted tokens come first, the rest is skipped."""
    N, D = hidden_ND.shape
    chunk = chunk_size(N, chunk)
    order_N = jnp.argsort(weights_N == 0, stable=True)
    chunked = lambda x_N: x_N[order_N].reshape(N // chunk, chunk, *x_N.shape[1:])
    xs = (chunked(hidden_ND), chunked(targets_N), chunked(weights_N))

    def step(d_head_VD, x):
        return jax.lax.cond(jnp.any(x[2] != 0), some, none, d_head_VD, x)

    def some(d_head_VD, x):
        hidden_CD, targets_C, weights_C = x
        losses_C, d_hidden_CD, d_head_VD = _chunk(
            hidden_CD, targets_C, weights_C, head_VD, d_head_VD, with_grads=with_grads
        )
        return d_head_VD, (losses_C, d_hidden_CD)

    def none(d_head_VD, x):
        return d_head_VD, (jnp.zeros(chunk, jnp.float32), jnp.zeros_like(x[0]) if with_grads else None)

    start = jnp.zeros(head_VD.shape, jnp.float32) if with_grads else None
    d_head_VD, (losses, d_hidden) = jax.lax.scan(step, start, xs)
    back_N = jnp.argsort(order_N)
    losses_N = losses.reshape(N)[back_N]
    if not with_grads:
        return losses_N, None, None
    assert d_head_VD is not None
    return losses_N, d_hidden.reshape(N, D)[back_N], d_head_VD.astype(head_VD.dtype)


def _chunk(hidden_CD, targets_C, weights_C, head_VD, d_head_VD, *, with_grads):
    """Losses of one chunk; its part of the hidden states' gradient, and the head's gradient with its part added."""
    logits_CV = product("CD,VD->CV", hidden_CD, head_VD)
    top_C1 = jnp.max(logits_CV, axis=-1, keepdims=True)
    exp_CV = jnp.exp(logits_CV - top_C1)
    total_C1 = jnp.sum(exp_CV, axis=-1, keepdims=True)
    is_target_CV = jax.lax.broadcasted_iota(jnp.int32, logits_CV.shape, 1) == targets_C[:, None]
    target_C = jnp.sum(jnp.where(is_target_CV, logits_CV, 0.0), axis=-1)
    losses_C = jnp.where(weights_C != 0, (jnp.log(total_C1) + top_C1)[:, 0] - target_C, 0.0)
    if not with_grads:
        return losses_C, None, None
    d_logits_CV = (exp_CV / total_C1 - is_target_CV) * weights_C[:, None]
    d_logits_CV = d_logits_CV.astype(hidden_CD.dtype)
    d_hidden_CD = product("CV,VD->CD", d_logits_CV, head_VD).astype(hidden_CD.dtype)
    return losses_C, d_hidden_CD, d_head_VD + sum_over_tokens("CV,CD->VD", d_logits_CV, hidden_CD)


def chunk_size(num_tokens: int, wanted: int) -> int:
    """The largest divisor of the number of tokens that is not above what was asked."""
    return next(size for size in range(min(wanted, num_tokens), 0, -1) if num_tokens % size == 0)
