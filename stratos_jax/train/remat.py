"""What a layer keeps for the backward pass, under a name.

In: a policy's name. Out: a policy of `jax.checkpoint`, or None where nothing is recomputed. From the least memory to
the most: `offload`, `full`, `context`, `context_qkv`, `dots`, `none`.
"""

from collections.abc import Callable

import jax

from stratos_jax.model.config import Architecture
from stratos_jax.types import UserError

SMALL = 1 << 30  # bytes that a step may keep on a machine that does not tell its memory
HOST = "pinned_host"
_keep = jax.checkpoint_policies.save_only_these_names


def _offload(*names: str, keep: tuple[str, ...] = ()) -> Callable:
    return jax.checkpoint_policies.save_and_offload_only_these_names(
        names_which_can_be_saved=list(keep),
        names_which_can_be_offloaded=list(names),
        offload_src="device",
        offload_dst=HOST,
    )


POLICIES: dict[str, Callable | None] = {
    "offload": _offload("layer_input"),
    "full": jax.checkpoint_policies.nothing_saveable,
    "offload_context": _offload("layer_input", "attention_context"),
    "context": _keep("attention_context"),
    "context_qkv": _keep("attention_context", "query", "key", "value"),
    # attention_out is a name on CPUs alone: kept on v5p it cost a 32B step 10 % of its cycles.
    "dots": _keep("attention_context", "query", "key", "value", "attention_out", "mlp_gate", "mlp_up"),
    "none": None,
}


def policy(name: str) -> Callable | None:
    """The policy of that name."""
    if name not in POLICIES:
        raise UserError("no remat policy has this name", where="train.remat", got=name, wanted=", ".join(POLICIES))
    return POLICIES[name]


def choose(arch: Architecture, *, tokens: int, state_bytes: int, memory_bytes: int | None, chunk: int) -> str:
    """The policy behind `auto` where nothing can be compiled ahead: the one that keeps most of what fits by estimate.

    `tokens` and bytes are of one device. Counted besides what a layer keeps: state and gradients, the whole head with
    its gradient, the scores of a chunk; a tenth is left free. Without a memory size (CPUs) small steps keep their
    products: to store what is cheap to compute anew takes a CPU longer.
    """
    D, heads, F, V = arch.hidden_size, arch.num_heads * arch.head_dim, arch.mlp_size, arch.vocab_size
    qkv = (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim
    kept = {  # numbers per token and layer
        "none": 8 * D + 4 * heads + 2 * qkv + 5 * F,
        "dots": D + heads + qkv + 2 * F,
        "context_qkv": D + heads + qkv,
        "context": D + heads,
        "full": D,
    }
    sizes = {name: 2 * numbers * tokens * arch.num_layers for name, numbers in kept.items()}
    if memory_bytes is None:
        return "dots" if sizes["dots"] < SMALL else "full"
    fixed = 1.4 * state_bytes + 6 * V * D + 6 * V * chunk + 2 * tokens * (4 * D + 4 * F)
    free = 0.9 * memory_bytes - fixed
    return next((name for name, size in sizes.items() if size < free), "offload")
