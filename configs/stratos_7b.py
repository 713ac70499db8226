"""Bespoke-Stratos-7B from its first problem: R1 is asked, its traces are verified, Qwen2.5-7B-Instruct is fine-tuned.

Command:  stratos run configs/stratos_7b.py launch.bucket=gs://BUCKET/stratos_7b
Needs:    DEEPSEEK_API_KEY, and the problems as JSONL under data/ (docs/stratos_7b.md says how they are made)
Chips:    v6e:4x4 (16 chips), 2.4 hours, $105 by `stratos plan`
Scores:   AIME24 20.0, MATH500 82.0, GPQA-Diamond 37.8, LiveCodeBench v2 36.1 (the model's card).
Original: 1.5 hours and about $800 of R1 for 17k rows of about 40,800 questions; 8 x H100, 7 h.

Training is that of stratos_7b_17k.py, on rows curated here instead of the published ones. Unlike the original, the
teacher is asked for a boxed answer, rules grade what it says, and duplicates and the benchmarks' problems are left out.
"""

import dataclasses

from stratos_jax.config import beside
from stratos_jax.curate.config import CurateConfig, ProblemsConfig, SelectConfig, TeacherConfig
from stratos_jax.recipe import Recipe
from stratos_jax.shards.config import SourceConfig


def recipe() -> Recipe:
    """The published training on data of one's own."""
    base: Recipe = beside(__file__, "stratos_7b_17k.py")
    curate = CurateConfig(
        problems=ProblemsConfig(
            paths=("data/numina.jsonl", "data/apps.jsonl", "data/taco.jsonl"),
            held_out_paths=tuple(task.path for task in base.evaluate.tasks),
        ),
        teacher=TeacherConfig(
            base_url="https://api.deepseek.com",
            model="deepseek-reasoner",
            api_key_variable="DEEPSEEK_API_KEY",
            concurrency=1_500,
            usd_per_million_prompt_tokens=0.55,
            usd_per_million_completion_tokens=2.19,
            budget_usd=800,
        ),
        prompts="stratos_boxed",
        select=SelectConfig(max_rows=17_000, by_source=(("numina", 10_500),)),
    )
    shards = dataclasses.replace(base.shards, sources=(SourceConfig(path="curate"),))
    return dataclasses.replace(base, name="stratos_7b", curate=curate, shards=shards)
