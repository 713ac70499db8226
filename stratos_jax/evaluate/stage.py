"""The stage `evaluate`: sample, then grade what was sampled, then count.

In: an HF folder and tasks. Out: `samples.jsonl`, `verdicts.jsonl`, `report.json`, and the manifest, written last.
Grading reads the stored samples alone, so that it can be done again, with another grader, without sampling.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from stratos_jax import grading, store
from stratos_jax.engine.config import EngineConfig
from stratos_jax.evaluate import statistics
from stratos_jax.evaluate.config import EvaluateConfig
from stratos_jax.evaluate.sample import SAMPLES, Progress, Task, load_tasks, sample_all
from stratos_jax.types import Json, Manifest, Problem, Sample, Verdict, from_json, json_hash

Path = str | os.PathLike[str]
VERDICTS, REPORT = "verdicts.jsonl", "report.json"
GROUPS = ("kind", "level")  # of a problem's metadata, for which scores are given apart
quiet: Progress = lambda done, total, note: None


def run(
    config: EvaluateConfig,
    engine: EngineConfig,
    directory: Path,
    *,
    model_dir: Path,
    held_out: Path | None = None,
    progress: Progress = quiet,
) -> Manifest:
    """Evaluate into `directory`, or find it done."""
    paths = {task.name: held_out if task.path == "curate" else task.path for task in config.tasks}
    inputs: dict[str, Any] = {
        "model": model_hash(model_dir),
        **{name: path for name, path in paths.items() if path is not None},
    }

    def body(folder: pathlib.Path) -> Mapping[str, Json]:
        tasks = load_tasks(config, held_out)
        sample_all(tasks, config, engine, model_dir, folder, progress)
        verdicts = grade_samples(tasks, config, folder)
        report = make_report(tasks, config, folder, verdicts)
        store.write_text(folder / REPORT, json.dumps(report, indent=1) + "\n")
        return {name: task["score"]["value"] for name, task in report["tasks"].items()}

    return store.stage.run_stage("evaluate", config, directory, inputs, body, resume=True)


def model_hash(folder: Path) -> str:
    """Content of an HF folder: of the sums that conversion wrote beside the weights, else of every file."""
    sums = store.join(folder, "SHA256SUMS")
    if store.exists(sums):
        return store.stage.input_hash(sums)
    files = sorted(store.list_files(folder), key=lambda file: file.url)
    return json_hash([[file.url.rsplit("/", 1)[-1], store.stage.input_hash(file.url)] for file in files])


def read_samples(folder: Path) -> list[Sample]:
    """The stored samples."""
    url = store.join(folder, SAMPLES)
    return [from_json(Sample, record, where=f"{url}:{number}") for number, record in store.jsonl.read_jsonl(url)]


def read_verdicts(folder: Path) -> list[Verdict]:
    """The stored verdicts."""
    url = store.join(folder, VERDICTS)
    return [from_json(Verdict, record, where=f"{url}:{number}") for number, record in store.jsonl.read_jsonl(url)]


def grade_samples(tasks: Sequence[Task], config: EvaluateConfig, folder: pathlib.Path) -> list[Verdict]:
    """A verdict on every stored sample, in their order; written to `verdicts.jsonl`."""
    problem_of = {(task.config.name, p.id): p for task in tasks for p in task.problems}
    samples = read_samples(folder)
    pairs = [(problem_of[sample.id.split("/", 1)[0], sample.problem_id], sample) for sample in samples]
    # Without seconds: the same files, however fast the machine.
    verdicts = [dataclasses.replace(verdict, seconds=0.0) for verdict in grade_pairs(pairs, config)]
    store.jsonl.write_jsonl(folder / VERDICTS, verdicts)
    return verdicts


def grade_pairs(pairs: Sequence[tuple[Problem, Sample]], config: EvaluateConfig) -> list[Verdict]:
    """A verdict on every sample, in their order."""
    by_kind: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for problem, sample in pairs:
        by_kind[problem.kind].append(_record(problem, sample))
    found = {
        verdict.id: verdict
        for kind, records in by_kind.items()
        for verdict in grading.grade(kind, records, config.grading, config.grading_workers)
    }
    return [found[sample.id] for _, sample in pairs]


def make_report(
    tasks: Sequence[Task], config: EvaluateConfig, folder: pathlib.Path, verdicts: Sequence[Verdict]
) -> dict[str, Any]:
    """Scores of each task, whole and by the groups of its problems."""
    samples = read_samples(folder)
    outcome_of = {verdict.id: verdict.outcome for verdict in verdicts}
    report: dict[str, Any] = {"tasks": {}}
    for task in tasks:
        mine = [s for s in samples if s.id.split("/", 1)[0] == task.config.name]
        outcomes: dict[str, list[str]] = {p.id: [] for p in task.problems}
        for sample in mine:
            outcomes[sample.problem_id].append(outcome_of[sample.id])
        one = lambda part: dataclasses.asdict(statistics.score(part, config.confidence, config.bootstrap, config.seed))
        groups = {
            group: {name: one({p.id: outcomes[p.id] for p in part}) for name, part in _parts(task, group).items()}
            for group in GROUPS
        }
        cells = {" ".join(cell): one({p.id: outcomes[p.id] for p in part}) for cell, part in _cells(task).items()}
        report["tasks"][task.config.name] = {
            "score": one(outcomes),
            "by": {name: values for name, values in groups.items() if values},
            "cells": cells,
            "mean_tokens": sum(len(s.tokens) for s in mine) / max(1, len(mine)),
            "truncated": sum(s.finish_reason == "length" for s in mine),
        }
    return report


def outcomes_of(folder: Path, task: str) -> dict[str, list[str]]:
    """The outcomes of a task's samples, for each problem; for comparing runs."""
    outcomes: dict[str, list[str]] = collections.defaultdict(list)
    for sample, verdict in zip(read_samples(folder), read_verdicts(folder), strict=True):
        if sample.id.split("/", 1)[0] == task:
            outcomes[sample.problem_id].append(verdict.outcome)
    return dict(outcomes)


def _parts(task: Task, group: str) -> dict[str, list[Problem]]:
    parts: dict[str, list[Problem]] = {}
    for problem in task.problems:
        if group in problem.metadata:
            parts.setdefault(str(problem.metadata[group]), []).append(problem)
    return parts


def _cells(task: Task) -> dict[tuple[str, ...], list[Problem]]:
    cells: dict[tuple[str, ...], list[Problem]] = {}
    for problem in task.problems:
        if all(group in problem.metadata for group in GROUPS):
            cells.setdefault(tuple(str(problem.metadata[group]) for group in GROUPS), []).append(problem)
    return cells


def _record(problem: Problem, sample: Sample) -> dict[str, Any]:
    record: dict[str, Any] = {"id": sample.id, "response": sample.text}
    if problem.kind == "code":
        return {**record, "tests": problem.tests}
    record["gold"] = problem.gold
    return {**record, "choices": list(problem.choices)} if problem.kind == "choice" else record
