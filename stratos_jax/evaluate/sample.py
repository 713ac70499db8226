"""Sampling: each problem of each task is asked of the student, and every answer is on disk as soon as it is complete.

In: an HF folder, tasks. Out: `samples.jsonl`, sorted; while the work is under way `samples.partial.jsonl`, in the order
in which answers came, from which a killed run goes on.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from stratos_jax import prompts, store
from stratos_jax.engine.config import EngineConfig, SamplingConfig
from stratos_jax.engine.request import Request
from stratos_jax.evaluate.config import EvaluateConfig, TaskConfig
from stratos_jax.types import Problem, Sample, UserError, from_json

PARTIAL, SAMPLES = "samples.partial.jsonl", "samples.jsonl"
Progress = Callable[[int, int, str], None]  # done, of how many, a note


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """A task with its problems."""

    config: TaskConfig
    problems: tuple[Problem, ...]


def load_tasks(config: EvaluateConfig, held_out: str | os.PathLike[str] | None) -> list[Task]:
    """The tasks' problems; `held_out` stands for the path "curate"."""
    tasks = []
    for task in config.tasks:
        path = held_out if task.path == "curate" else task.path
        if path is None:
            raise UserError(
                "the held-out problems are not known", where=f"task {task.name}", do="name --curated FOLDER"
            )
        lines = store.jsonl.read_jsonl(path)
        problems = [from_json(Problem, record, where=f"{path}:{number}") for number, record in lines]
        tasks.append(Task(config=task, problems=tuple(problems[: task.max_problems])))
    if len({task.config.name for task in tasks}) != len(tasks):
        raise UserError("two tasks have the same name", got=", ".join(task.config.name for task in tasks))
    return tasks


def sample_all(
    tasks: Sequence[Task],
    config: EvaluateConfig,
    engine: EngineConfig,
    model_dir: str | os.PathLike[str],
    folder: pathlib.Path,
    progress: Progress,
) -> None:
    """Write `samples.jsonl`; what a killed run has sampled is kept."""
    if (folder / SAMPLES).exists():
        return
    tokenizer = open_tokenizer(model_dir)
    requests = [r for task in tasks for r in requests_of(task, config.sampling, tokenizer)]
    with store.jsonl.JsonlAppender(folder / PARTIAL) as partial:
        done = {record["id"] for _, record in store.jsonl.read_jsonl(folder / PARTIAL)}
        waiting = {r.id: r for r in requests if r.id not in done}
        progress(len(done), len(requests), f"{len(done)} were there already" if done else "")
        if waiting:
            for completion in open_engine(model_dir, engine).generate(waiting.values()):
                partial.append(sample_of(waiting[completion.id], completion, tokenizer))
                done.add(completion.id)
                progress(len(done), len(requests), "")
    order = {r.id: index for index, r in enumerate(requests)}
    records = [record for _, record in store.jsonl.read_jsonl(folder / PARTIAL)]
    store.jsonl.write_jsonl(folder / SAMPLES, sorted(records, key=lambda record: order[record["id"]]))
    (folder / PARTIAL).unlink()


def requests_of(task: Task, sampling: SamplingConfig, tokenizer: Any) -> list[Request]:
    """One request for each sample of each problem; ids are task/problem/sample."""
    protocol, sampling = prompts.protocol(task.config.protocol), task.config.sampling or sampling
    requests = []
    for problem in task.problems:
        tokens = prompt_tokens(protocol, problem, tokenizer)
        for index in range(sampling.samples):
            request = Request(
                id=f"{task.config.name}/{problem.id}/{index}",
                tokens=tokens,
                sampling=sampling,
                problem_key=f"{task.config.name}/{problem.id}",
                sample_index=index,
            )
            requests.append(request)
    return requests


def prompt_tokens(protocol: prompts.Protocol, problem: Problem, tokenizer: Any) -> tuple[int, ...]:
    """The chat prompt of a problem, up to where the student begins."""
    messages = [{"role": "system", "content": protocol.system}] if protocol.system else []
    messages.append({"role": "user", "content": protocol.user(problem)})
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def open_tokenizer(model_dir: str | os.PathLike[str]) -> Any:
    """The tokenizer of an HF folder."""
    from stratos_jax.model.tokenizer import load_tokenizer

    return load_tokenizer(model_dir)


def open_engine(model_dir: str | os.PathLike[str], config: EngineConfig) -> Any:
    """The sampler of an HF folder, on one device."""
    import jax

    from stratos_jax.convert.load import load_hf_params
    from stratos_jax.engine.engine import Engine
    from stratos_jax.model.config import ModelConfig, architecture_of
    from stratos_jax.model.params import abstract_params

    arch = architecture_of(ModelConfig(source=os.fspath(model_dir)))
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda leaf: place, abstract_params(arch, config.compute_dtype))
    params = load_hf_params(os.fspath(model_dir), arch, shardings, config.compute_dtype)
    return Engine(params, arch, config, end_ids(model_dir))


def end_ids(model_dir: str | os.PathLike[str]) -> list[int]:
    """The tokens at which the model's own files say that generation stops."""
    found: list[int] = []
    for name in ("generation_config.json", "config.json"):
        url = store.join(model_dir, name)
        if store.exists(url):
            value = json.loads(store.read_text(url)).get("eos_token_id")
            found += value if isinstance(value, list) else [value] if value is not None else []
    return sorted(set(found))


def sample_of(request: Request, completion: Any, tokenizer: Any) -> Sample:
    """A completion as it is stored."""
    digest = hashlib.sha256(json.dumps(request.tokens).encode()).hexdigest()
    return Sample(
        id=request.id,
        problem_id=request.id.split("/", 1)[1].rsplit("/", 1)[0],
        sample_index=request.sample_index,
        text=tokenizer.decode(completion.tokens, skip_special_tokens=True),
        tokens=completion.tokens,
        finish_reason=completion.finish_reason,
        prompt_hash=digest,
        seed=request.sampling.seed,
    )
