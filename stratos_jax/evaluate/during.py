"""A small evaluation while the student trains: the first task's problems, answered with the weights of the moment.

In: a recipe's settings, the folder of shards (its tokenizer), weights on one device. Out: a few numbers for the run's
metrics. One engine serves the whole run: it is compiled once.
"""

import dataclasses
import functools
import os
from collections.abc import Callable
from typing import Any

from stratos_jax import store
from stratos_jax.engine.config import EngineConfig
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.evaluate.sample import load_tasks, requests_of, sample_of
from stratos_jax.evaluate.stage import grade_pairs
from stratos_jax.train.config import TrainConfig
from stratos_jax.types import UserError


def make_sampler(
    train: TrainConfig,
    config: EvaluateConfig,
    engine_config: EngineConfig,
    *,
    shards_dir: str | os.PathLike[str],
    held_out: str | os.PathLike[str] | None,
) -> Callable[[Any, Any], dict[str, float]] | None:
    """The function (weights, architecture) -> numbers that the trainer calls; None where the recipe asks for none."""
    if not train.sample_every_steps:
        return None
    if not config.tasks:
        raise UserError("train.sample_every_steps needs a task", where="evaluate.tasks", got="none")
    first = config.tasks[0]
    sampling = dataclasses.replace(first.sampling or config.sampling, max_tokens=train.sample_max_tokens, samples=1)
    first = dataclasses.replace(first, max_problems=train.sample_problems, sampling=sampling)
    task = load_tasks(dataclasses.replace(config, tasks=(first,)), held_out)[0]
    problem_of = {problem.id: problem for problem in task.problems}

    @functools.cache
    def opened(arch: Any) -> tuple[Any, Any, dict[str, Any]]:
        from stratos_jax.engine.engine import Engine
        from stratos_jax.model.chat import stop_ids
        from stratos_jax.model.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(store.join(shards_dir, "tokenizer"))
        requests = {request.id: request for request in requests_of(task, sampling, tokenizer)}
        return Engine(None, arch, engine_config, stop_ids(tokenizer)), tokenizer, requests

    def sample(params: Any, arch: Any) -> dict[str, float]:
        engine, tokenizer, requests = opened(arch)
        engine.replace_weights(params)
        samples = [sample_of(requests[c.id], c, tokenizer) for c in engine.generate(requests.values())]
        engine.replace_weights(None)  # the step needs the memory
        verdicts = grade_pairs([(problem_of[one.problem_id], one) for one in samples], config)
        outcomes = [verdict.outcome for verdict in verdicts]
        return {
            "sampled_accuracy": outcomes.count("right") / len(samples),
            "sampled_unknown": outcomes.count("unknown") / len(samples),
            "sampled_tokens": sum(len(one.tokens) for one in samples) / len(samples),
            "sampled_truncated": sum(one.finish_reason == "length" for one in samples) / len(samples),
        }

    return sample
