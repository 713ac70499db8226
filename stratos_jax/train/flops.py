"""What share of the machine's peak a step reached; the convention is that of `model.flops`.

In: architecture, real tokens, attended (query, key) pairs, devices. Out: FLOPs, and the peak of a device.
LoRA counts 4 in place of 6 for each weight: the gradients of frozen weights are not of the model's work.
"""

from stratos_jax.model.config import Architecture
from stratos_jax.model.flops import matmul_params

PEAK_FLOPS = {  # bfloat16, dense, of one jax device; the key is how device_kind begins
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5p": 459e12,
    "TPU v5": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 1153.5e12,  # a chip is two devices
    "NVIDIA A100": 312e12,
    "NVIDIA H100": 989e12,
    "NVIDIA H200": 989e12,
}


def step_flops(arch: Architecture, tokens: float, pairs: float, *, frozen_base: bool = False) -> float:
    """FLOPs of forward and backward over `tokens` real tokens with `pairs` attended (query, key) pairs."""
    per_weight = 4 if frozen_base else 6
    return per_weight * matmul_params(arch) * tokens + 12 * arch.num_layers * arch.num_heads * arch.head_dim * pairs


def peak_flops(device_kind: str) -> float | None:
    """Peak of a device, None where it is not known (on CPUs)."""
    known = [kind for kind in PEAK_FLOPS if device_kind.startswith(kind)]
    return PEAK_FLOPS[max(known, key=len)] if known else None
