"""How answers are sampled. Imports no jax."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SamplingConfig:
    """What is asked of the sampler for each problem."""

    temperature: float = 0.0  # 0: greedy
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    max_tokens: int = 32_768
    samples: int = 1
    seed: int = 0
    stop_ids: tuple[int, ...] = ()  # besides the model's own end tokens


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How the sampler uses the machine; results do not depend on it."""

    batch_size: int = 64  # sequences decoded together
    decode_steps: int = 16  # tokens between two looks at the host
    cache_dtype: str = "bfloat16"
    compute_dtype: str = "bfloat16"
