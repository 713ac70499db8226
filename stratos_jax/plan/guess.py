"""Memory of a train step by arithmetic: which policy or change is worth asking the compiler about.

In: an architecture, settings, sizes of the mesh. Out: GiB per device at the peak, within 25 % of the compiler's figure
on the programs of docs/plans.md, mostly within 10 %. It decides the order of compilations and which change is named for
a run that does not fit; that a run fits is said by the compiler alone (but for GPU targets, which have none here).
"""

from collections.abc import Mapping

from stratos_jax.model.config import Architecture
from stratos_jax.train.config import TrainConfig

GIB = 2**30
WIDTH = {"float32": 4, "bfloat16": 2}
MOMENTS = {"float32": 8, "bfloat16": 4, "int8": 2}
MICRO_BATCH_TOKENS = 16_384  # as in train.step, which imports jax


def num_params(arch: Architecture) -> int:
    """Parameters, biases and norms left out."""
    D, H, F = arch.hidden_size, arch.head_dim, arch.mlp_size
    layer = D * H * (2 * arch.num_heads + 2 * arch.num_kv_heads) + 3 * D * F
    return arch.num_layers * layer + arch.vocab_size * D * (1 if arch.tied_head else 2)


def state_bytes(arch: Architecture, train: TrainConfig, param_dtype: str) -> float:
    """Weights and moments on all devices together; adapters count nothing."""
    moments = 0 if train.lora else MOMENTS[train.optimizer.moments]
    return num_params(arch) * (WIDTH[param_dtype] + moments)


def kept_bytes(arch: Architecture, remat: str, tokens: float, tensor: int = 1) -> float:
    """What the layers keep for the backward pass; `tokens` are those that a device walks at once.

    Devices of `tensor` hold their own heads and MLP width of all these tokens, and their own tokens of the rest.
    """
    D, heads, F = arch.hidden_size, arch.num_heads * arch.head_dim, arch.mlp_size
    qkv = (arch.num_heads + 2 * arch.num_kv_heads) * arch.head_dim
    numbers = {  # per token
        **{"offload": 0, "offload_context": heads, "full": D, "context": D + heads, "context_qkv": D + heads + qkv},
        **{"dots": D + heads + qkv + 2 * F, "none": 8 * D + 4 * heads + 2 * qkv + 5 * F},
    }
    return 2 * tokens * arch.num_layers * numbers.get(remat, D) / tensor


def rows_at_once(train: TrainConfig, rows: int, row_tokens: float) -> int:
    """Rows of a micro-batch, as the trainer takes them; `row_tokens` are a device's part of a row."""
    most = train.rows_per_device or max(1, int(MICRO_BATCH_TOKENS // row_tokens))
    return next(n for n in range(min(most, rows), 0, -1) if rows % n == 0)


def peak_gib(
    arch: Architecture, train: TrainConfig, param_dtype: str, row_tokens: int, shape: Mapping[str, int], remat: str
) -> float:
    """The peak of a device: state, gradients, what is kept, both ends of the network, one layer at work."""
    ways, tensor = shape["fsdp"] * shape["context"] * shape["tensor"], shape["tensor"]
    rows = train.rows_per_step // (shape["data"] * shape["fsdp"])
    row = row_tokens / shape["context"]
    at_once = rows_at_once(train, rows, row)
    tokens = at_once * row
    trained = 0 if train.lora else num_params(arch) * 4 / ways
    gradients = trained * (2 if rows > at_once else 1)  # while they add up over micro-batches there are two
    ends = arch.vocab_size * arch.hidden_size * (4 + 4 + 2 + (0 if arch.tied_head else 4))  # whole on each device
    at_work = 4 * tokens * arch.mlp_size / tensor
    kept = kept_bytes(arch, remat, tokens, tensor)
    return (state_bytes(arch, train, param_dtype) / ways + gradients + ends + at_work + kept) / GIB
