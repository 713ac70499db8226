"""config.json is read exactly or refused; sizes come out as published."""

import dataclasses

import pytest
import tiny_models

from stratos_jax.model import flops
from stratos_jax.model.config import Llama3Scaling, ModelConfig, architecture_of, read_architecture
from stratos_jax.model.params import num_params
from stratos_jax.types import UserError

NAMES = sorted(path.stem for path in tiny_models.CONFIGS.glob("*.json"))
# As counted by the publishers' own weights (safetensors index, tied heads once).
PUBLISHED = {
    "Qwen2.5-0.5B": 494_032_768,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Qwen2.5-3B": 3_085_938_688,
    "Qwen2.5-7B": 7_615_616_512,
    "Qwen2.5-14B": 14_770_033_664,
    "Qwen2.5-32B": 32_763_876_352,
    "Qwen2.5-72B": 72_706_203_648,
    "DeepSeek-R1-Distill-Qwen-1.5B": 1_777_088_000,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.3-70B-Instruct": 70_553_706_496,
}
BASE = tiny_models.real_config("Qwen2.5-7B-Instruct")
LLAMA = tiny_models.real_config("Llama-3.1-8B")


def test_every_published_config_is_read():
    assert len(NAMES) == 41
    for name in NAMES:
        hf, arch = tiny_models.real_config(name), read_architecture(tiny_models.real_config(name))
        assert arch.family == hf["model_type"]
        assert (arch.num_layers, arch.mlp_size) == (hf["num_hidden_layers"], hf["intermediate_size"])
        assert arch.tied_head == hf["tie_word_embeddings"]
        assert arch.rope_theta == hf["rope_theta"]
        assert arch.norm_eps == hf["rms_norm_eps"]
        assert (arch.rope_scaling is None) == (arch.family == "qwen2")
        assert hash(arch) == hash(dataclasses.replace(arch))


@pytest.mark.parametrize("name", PUBLISHED)
def test_number_of_parameters_is_as_published(name):
    assert num_params(read_architecture(tiny_models.real_config(name))) == PUBLISHED[name]


def test_new_spelling_of_rope_reads_the_same():
    """transformers 5 writes rope_parameters where the published files have rope_theta and rope_scaling."""
    new = dict(LLAMA)
    new["rope_parameters"] = {**new.pop("rope_scaling"), "rope_theta": new.pop("rope_theta")}
    new["dtype"] = new.pop("torch_dtype")
    assert read_architecture(new) == read_architecture(LLAMA)
    assert read_architecture(new).rope_scaling == Llama3Scaling(
        factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
    )
    qwen = dict(BASE, layer_types=["full_attention"] * 28, sliding_window=None)
    qwen["rope_parameters"] = {"rope_type": "default", "rope_theta": qwen.pop("rope_theta")}
    assert read_architecture(qwen) == read_architecture(BASE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "qwen3"}, "model_type is 'qwen3'"),
        ({"architectures": ["Qwen2ForSequenceClassification"]}, "architectures"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
        ({"attention_dropout": 0.1}, "attention_dropout is 0.1"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"qk_norm": True}, "qk_norm: unknown key"),
        ({"num_key_value_heads": 5}, "not a multiple of num_key_value_heads"),
        ({"hidden_size": 3585}, "not a multiple of num_attention_heads"),
        ({"vocab_size": "many"}, "vocab_size is 'many'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0"),
        ({"rms_norm_eps": -1.0}, "rms_norm_eps is -1.0"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings is 'yes'"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "'yarn'"),
        ({"rope_scaling": {**LLAMA["rope_scaling"], "low_freq_factor": None}}, "low_freq_factor: missing"),
        ({"rope_scaling": {"rope_type": "default", "mscale": 1.0}}, "mscale: unknown key"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 5.0}}, "rope_theta is 1000000.0 outside and 5.0"),
        ({"rope_scaling": "llama3"}, "wanted an object"),
    ],
)
def test_what_we_do_not_build_is_refused(change, message):
    with pytest.raises(UserError, match="not a model config") as error:
        read_architecture({**BASE, **change})
    assert message in str(error.value)
    assert "(1 problem)" in str(error.value)


def test_all_problems_are_listed_at_once():
    with pytest.raises(UserError) as error:
        read_architecture({"model_type": "llama", "mlp_bias": True, "foo": 1, "hidden_size": 64})
    for part in ("mlp_bias", "foo", "vocab_size: missing", "intermediate_size: missing", "num_hidden_layers: missing"):
        assert part in str(error.value)


def test_a_model_config_names_its_model(tmp_path):
    inline = ModelConfig(hf=BASE)
    assert architecture_of(inline) == read_architecture(BASE)
    (tmp_path / "config.json").write_text((tiny_models.CONFIGS / "Llama-3.1-8B.json").read_text())
    assert architecture_of(ModelConfig(source=str(tmp_path))) == read_architecture(LLAMA)
    (tmp_path / "config.json").write_text("{")
    for config, message in (
        (ModelConfig(source=str(tmp_path)), "not JSON"),
        (ModelConfig(source=str(tmp_path / "nowhere")), "not found"),
        (ModelConfig(), "no model is named"),
    ):
        with pytest.raises(UserError, match=message):
            architecture_of(config)
    with pytest.raises(UserError, match="nothing is gained"):
        ModelConfig(hf=BASE, param_dtype="bfloat16", compute_dtype="float32")


def test_flops_agree_with_an_independent_count():
    """MaxText counts 857 (162 of it attention) and 3,672 (528) TFLOP for 16,384 tokens of 7B and 32B."""
    for name, total, attention in (("Qwen2.5-7B", 857, 162), ("Qwen2.5-32B", 3672, 528)):
        arch = read_architecture(tiny_models.real_config(name))
        assert round(flops.train_flops(arch, [16384]) / 1e12) == total
        assert round(3 * flops.attention_flops(arch, [16384]) / 1e12) == attention
    assert flops.train_flops(arch, [100, 50]) == flops.train_flops(arch, [100]) + flops.train_flops(arch, [50])
