"""DeepSeek-R1-Distill-Qwen-1.5B: Qwen2.5-Math-1.5B on 800k samples of R1, 32k tokens, two epochs.

Command:  stratos run configs/r1_distill_qwen_1_5b.py 'shards.sources=[{"path": "gs://BUCKET/r1_800k"}]'
Chips:    v5e:4x8 (32 chips), 11.4 s a step by `stratos plan`
Scores:   AIME24 28.9, MATH500 83.9, GPQA-Diamond 33.8 (DeepSeek, mean of 64 samples, temperature 0.6).

The 800k samples are not public: `shards.sources` names yours, for example what `stratos curate` gave. Learning rate
(falling to a tenth), batch 64 and 32,768 tokens are as the report's readers quote them, not read in its authors' files.
"""

from stratos_jax.config import beside
from stratos_jax.launch.config import LaunchConfig
from stratos_jax.model.config import ModelConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import ShardsConfig, SourceConfig, TokenizerConfig
from stratos_jax.train.config import OptimizerConfig, TrainConfig


def recipe() -> Recipe:
    """The students' common recipe; the other five change model, rate and chips."""
    return Recipe(
        name="r1_distill_qwen_1_5b",
        model=ModelConfig(source="Qwen/Qwen2.5-Math-1.5B", hf=beside(__file__, "hf/qwen2.5-math-1.5b.json")),
        shards=ShardsConfig(
            sources=(SourceConfig(path="data/r1_800k"),),
            tokenizer=TokenizerConfig(source="deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
            row_tokens=32_768,
        ),
        train=TrainConfig(
            rows_per_step=64,
            epochs=2,
            optimizer=OptimizerConfig(peak_lr=1e-4, final_lr_ratio=0.1),
        ),
        launch=LaunchConfig(topology="v5e:4x8"),
    )
