"""What a decoder is, read from the raw `config.json` of a Hugging Face model.

In: the JSON object. Out: `Architecture`, hashable, which is all that parameters, names, FLOPs and forward need.
A key that would change the network and that we do not build is refused; so is a key that nobody here knows.
A new model family is one more row of `FAMILIES` (and of the name table, if its tensors have other names).
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Literal

from stratos_jax import store
from stratos_jax.types import Json, UserError, raise_all

Dtype = Literal["float32", "bfloat16"]
Implementation = Literal["auto", "reference", "splash", "gpu_flash", "splash_interpret", "gpu_flash_interpret"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ModelConfig:
    """Which model, in which number formats, with which attention kernel."""

    source: str = ""  # a folder (local or gs://) or a hub id, for the weights; empty: a student from scratch
    hf: Mapping[str, Json] = dataclasses.field(default_factory=dict)  # its raw config.json; empty: read from `source`
    param_dtype: Dtype = "float32"
    compute_dtype: Dtype = "bfloat16"
    attention: Implementation = "auto"

    def __post_init__(self):
        problems = []
        if self.param_dtype == "bfloat16" and self.compute_dtype == "float32":
            problems.append("model.compute_dtype is float32 with model.param_dtype bfloat16: nothing is gained by it")
        raise_all(problems, what="not a valid model config")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Llama3Scaling:
    """How Llama 3 stretches the long wavelengths of RoPE."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_positions: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """The network's shape; hashable, so that it can be a static argument of `jax.jit`."""

    family: str
    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    mlp_size: int
    norm_eps: float
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    qkv_bias: bool
    tied_head: bool
    max_positions: int
    init_std: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What a `model_type` fixes, and the values that stand for an absent key there."""

    architecture: str  # the only entry of "architectures" that we build
    qkv_bias: bool
    rope_theta: float
    norm_eps: float
    tied_head: bool
    max_positions: int


FAMILIES = {
    "qwen2": Family(
        architecture="Qwen2ForCausalLM",
        qkv_bias=True,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tied_head=False,
        max_positions=32_768,
    ),
    "llama": Family(
        architecture="LlamaForCausalLM",
        qkv_bias=False,
        rope_theta=10_000.0,
        norm_eps=1e-6,
        tied_head=False,
        max_positions=2_048,
    ),
}
INIT_STD = 0.02  # of every family, where "initializer_range" is absent

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
READ = {
    *SIZES,
    *("model_type", "num_key_value_heads", "head_dim", "rms_norm_eps", "max_position_embeddings"),
    *("rope_theta", "rope_scaling", "rope_parameters", "tie_word_embeddings", "initializer_range"),
}
# Said of the tokenizer, of generation, of the file or of other libraries; none changes the network.
PASSED_OVER = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "torch_dtype", "dtype", "transformers_version", "use_cache"),
    *("_name_or_path", "_attn_implementation_autoset", "return_dict", "output_attentions", "output_hidden_states"),
    *("id2label", "label2id", "problem_type", "chunk_size_feed_forward", "is_encoder_decoder"),
    *("max_window_layers", "sliding_window"),  # both act only with use_sliding_window, which must be false
}
# Keys that change the network: each with the values under which it is the network that we build.
MUST_BE: Mapping[str, tuple[Json, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "attention_dropout": (0, None),
    "use_sliding_window": (False, None),
    "use_mrope": (False, None),
    "pretraining_tp": (1, None),
    "partial_rotary_factor": (1, None),
    "quantization_config": (None,),
}
PLAIN_ROPE = {"rope_type", "type", "rope_theta"}
LLAMA3_ROPE = {*PLAIN_ROPE, "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}


def read_architecture(hf_config: Mapping[str, Json]) -> Architecture:
    """The network that a raw `config.json` describes; every problem of it is listed at once."""
    problems: list[str] = []
    family_name = hf_config.get("model_type")
    if family_name not in FAMILIES:
        problems.append(f"model_type is {family_name!r}; this package builds {', '.join(FAMILIES)}")
        family_name = "llama"
    family = FAMILIES[family_name]
    _check_keys(hf_config, family, problems)
    sizes = _read_sizes(hf_config, problems)
    theta, scaling = _read_rope(hf_config, family, problems)
    norm_eps = _number(hf_config, "rms_norm_eps", family.norm_eps, problems)
    init_std = _number(hf_config, "initializer_range", INIT_STD, problems)
    tied = hf_config.get("tie_word_embeddings", family.tied_head)
    if not isinstance(tied, bool):
        problems.append(f"tie_word_embeddings is {tied!r}, wanted true or false")
    raise_all(problems, what="not a model config that this package can build", where=hf_config.get("_name_or_path"))
    return Architecture(
        family=family_name,
        **sizes,
        norm_eps=norm_eps,
        rope_theta=theta,
        rope_scaling=scaling,
        qkv_bias=family.qkv_bias,
        tied_head=tied,
        init_std=init_std,
    )


def architecture_of(config: ModelConfig) -> Architecture:
    """The network that a `ModelConfig` names: written out in it, or read from its source's config.json."""
    return read_architecture(hf_config_of(config))


def hf_config_of(config: ModelConfig) -> Mapping[str, Json]:
    """The raw config.json of a model: `config.hf`, or the file in the folder `config.source`."""
    if config.hf:
        return config.hf
    if not config.source:
        raise UserError("no model is named", got="empty model.source and model.hf", do="set model.source to a folder")
    url = store.join(config.source, "config.json")
    if not store.exists(url):
        raise UserError(
            "the model's config.json was not found",
            where=url,
            do="give a folder in the Hugging Face format; `stratos convert from-hf` fetches a hub id where it can",
        )
    text = store.read_text(url)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError("config.json is not JSON", where=url, got=str(error)) from None
    if not isinstance(value, dict):
        raise UserError("config.json is not an object", where=url, got=type(value).__name__)
    return value


def _check_keys(hf: Mapping[str, Json], family: Family, problems: list[str]) -> None:
    """Refuse what nobody knows and what would be another network."""
    for key in sorted(hf.keys() - READ - PASSED_OVER - MUST_BE.keys() - {"architectures", "layer_types"}):
        problems.append(f"{key}: unknown key (value {str(hf[key])[:60]!r}); it may change the network")
    for key, allowed in MUST_BE.items():
        if key in hf and hf[key] not in allowed:
            problems.append(f"{key} is {hf[key]!r}; this package builds only {allowed[0]!r}")
    known = hf.get("model_type") in FAMILIES  # of another family one message is enough
    if known and hf.get("architectures") not in (None, [family.architecture]):
        problems.append(f"architectures is {hf['architectures']!r}; this package builds {family.architecture}")
    kinds = set(hf.get("layer_types") or ()) - {"full_attention"}
    if kinds:
        problems.append(f"layer_types has {', '.join(sorted(map(str, kinds)))}; this package builds full_attention")


def _read_sizes(hf: Mapping[str, Json], problems: list[str]) -> dict[str, int]:
    for key in SIZES:
        if key not in hf:
            problems.append(f"{key}: missing")
    size: Callable[[str, int], int] = lambda key, default: int(_number(hf, key, default, problems, whole=True))
    vocab, hidden, mlp, layers, heads = (size(key, 1) for key in SIZES)
    kv_heads = size("num_key_value_heads", heads)
    if heads % kv_heads:
        problems.append(f"num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}")
    if hf.get("head_dim") is None and hidden % heads:
        problems.append(
            f"hidden_size {hidden} is not a multiple of num_attention_heads {heads}, and no head_dim is given"
        )
    head_dim = size("head_dim", max(1, hidden // heads))
    if head_dim % 2 and not problems:
        problems.append(f"head_dim {head_dim} is odd; rotary positions need an even one")
    family = FAMILIES.get(str(hf.get("model_type")), FAMILIES["llama"])
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "mlp_size": mlp,
        "max_positions": size("max_position_embeddings", family.max_positions),
    }


def _read_rope(hf: Mapping[str, Json], family: Family, problems: list[str]) -> tuple[float, Llama3Scaling | None]:
    """Theta and scaling, from the old spelling (rope_theta, rope_scaling) or the new one (rope_parameters)."""
    both = hf.get("rope_parameters"), hf.get("rope_scaling")
    if None not in both and both[0] != both[1]:
        problems.append("rope_parameters and rope_scaling are both given and differ")
    name = "rope_parameters" if hf.get("rope_parameters") is not None else "rope_scaling"
    rope = hf.get(name) or {}
    if not isinstance(rope, Mapping):
        problems.append(f"{name} is {rope!r}, wanted an object")
        rope = {}
    inner_theta = rope.get("rope_theta")
    outer_theta = hf.get("rope_theta")
    if inner_theta is not None and outer_theta is not None and inner_theta != outer_theta:
        problems.append(f"rope_theta is {outer_theta!r} outside and {inner_theta!r} inside {name}")
    theta = _number(hf if inner_theta is None else rope, "rope_theta", family.rope_theta, problems)
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "llama3"):
        problems.append(f"{name}.rope_type is {kind!r}; this package builds 'default' and 'llama3'")
        return theta, None
    known = PLAIN_ROPE if kind == "default" else LLAMA3_ROPE
    for key in sorted(rope.keys() - known):
        problems.append(f"{name}.{key}: unknown key for rope_type {kind!r}")
    if kind == "default":
        return theta, None
    given = {key for key, value in rope.items() if value is not None}
    for key in sorted(LLAMA3_ROPE - PLAIN_ROPE - given):
        problems.append(f"{name}.{key}: missing")
    number: Callable[[str], float] = lambda key: _number(rope, key, 1.0, problems)
    scaling = Llama3Scaling(
        factor=number("factor"),
        low_freq_factor=number("low_freq_factor"),
        high_freq_factor=number("high_freq_factor"),
        original_max_positions=int(number("original_max_position_embeddings")),
    )
    return theta, scaling


def _number(hf: Mapping[str, Json], key: str, default: float, problems: list[str], *, whole: bool = False) -> float:
    """A positive number of the config; null and absent both mean the family's own value."""
    value = hf.get(key)
    if value is None:
        return default
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or value <= 0:
        problems.append(f"{key} is {value!r}, wanted a positive {'whole ' * whole}number")
        return default
    return value if whole else float(value)
