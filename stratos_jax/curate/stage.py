"""The stage `curate`: problems in, a verified data set out.

In: a `CurateConfig`. Out: `dataset.jsonl` in the published schema, `problems.jsonl`, `held_out.jsonl`, `traces.jsonl`,
`verdicts.jsonl`, `overlap.jsonl`, `README.md` (the card), and the manifest, written last. Answers of the teacher are
kept beside the folder, under the hash of each request, whatever becomes of the stage.
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stratos_jax import grading, prompts, store
from stratos_jax.curate import card, practice, procedural, teacher
from stratos_jax.curate.config import CurateConfig, TeacherConfig
from stratos_jax.curate.requests import RequestStore
from stratos_jax.curate.select import select
from stratos_jax.types import Manifest, Problem, Trace, UserError, Verdict, from_json, raise_all

Path = str | os.PathLike[str]
quiet: teacher.Progress = lambda done, total, note: None


def run(config: CurateConfig, directory: Path, *, answers_dir: Path, progress: teacher.Progress = quiet) -> Manifest:
    """Curate into `directory`, or find it done."""
    inputs = {path: path for path in (*config.problems.paths, *config.problems.held_out_paths)}
    return store.stage.run_stage(
        "curate", config, directory, inputs, lambda folder: _curate(config, folder, answers_dir, progress)
    )


def _curate(
    config: CurateConfig, folder: pathlib.Path, answers_dir: Path, progress: teacher.Progress
) -> Mapping[str, Any]:
    problems, held_out = load_problems(config)
    protocol = prompts.protocol(config.prompts)
    with RequestStore(answers_dir) as answers:
        with _endpoint(config.teacher) as base_url:
            teacher.ask_all(problems, config.teacher, protocol, answers, base_url, progress)
        traces = list(teacher.traces(problems, config.teacher, protocol, answers))
    verdicts = grade(problems, traces, config)
    selection = select(problems, held_out, traces, verdicts, config.select)
    if not selection.chosen:
        raise UserError("no trace was verified", got=str(dict(selection.funnel)), do="look at verdicts.jsonl's reasons")
    rows = [row_of(problem, trace, protocol) for problem, trace in selection.chosen]
    check_rows(rows)
    lines = {
        "problems": problems,
        "held_out": held_out,
        "traces": traces,
        "verdicts": verdicts,
        "dataset": rows,
        "overlap": [*selection.hits, *selection.duplicates],
    }
    for name, records in lines.items():
        store.jsonl.write_jsonl(folder / f"{name}.jsonl", records)
    text = card.card(config, problems, held_out, traces, verdicts, selection)
    store.write_text(folder / "README.md", text)
    return {**selection.funnel, "held_out": len(held_out), "cost_usd": sum(t.cost_usd for t in traces)}


def load_problems(config: CurateConfig) -> tuple[list[Problem], list[Problem]]:
    """(training, held out) of all sources."""
    problems, held_out = [_read(paths) for paths in (config.problems.paths, config.problems.held_out_paths)]
    if config.problems.procedural is not None:
        made, kept = procedural.make_problems(config.problems.procedural)
        problems, held_out = problems + made, held_out + kept
    seen: set[str] = set()
    repeated = [p.id for p in (*problems, *held_out) if p.id in seen or seen.add(p.id)]
    raise_all([f"the id {name!r} stands twice" for name in repeated[:10]], what="problems need ids of their own")
    if not problems:
        raise UserError("no problems", where=", ".join(config.problems.paths))
    return problems, held_out


def grade(problems: Sequence[Problem], traces: Sequence[Trace], config: CurateConfig) -> list[Verdict]:
    """A verdict on every trace that is complete, in the order of the traces."""
    problem_of = {p.id: p for p in problems}
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for trace in traces:
        problem = problem_of[trace.problem_id]
        if trace.finish_reason == "stop":
            by_kind.setdefault(problem.kind, []).append(grading_record(problem, trace.id, trace.solution))
    found = {
        verdict.id: verdict
        for kind, records in by_kind.items()
        for verdict in grading.grade(kind, records, config.grading, config.grading_workers)
    }
    cut = Verdict(id="", outcome="unknown", reason="unknown.truncated")
    return [found.get(t.id) or Verdict(id=t.id, outcome=cut.outcome, reason=cut.reason) for t in traces]


def grading_record(problem: Problem, identity: str, response: str) -> dict[str, Any]:
    """What `grading` wants of one answer."""
    record: dict[str, Any] = {"id": identity, "response": response}
    if problem.kind == "math":
        return {**record, "gold": problem.gold, "problem": problem.question}
    if problem.kind == "choice":
        return {**record, "gold": problem.gold, "choices": list(problem.choices)}
    return {**record, "tests": problem.tests}


def row_of(problem: Problem, trace: Trace, protocol: prompts.Protocol) -> dict[str, Any]:
    """A row in the published schema."""
    thought = f"{prompts.BEGIN_THOUGHT}\n\n{trace.reasoning}\n\n{prompts.END_THOUGHT}"
    solution = f"{prompts.BEGIN_SOLUTION}\n\n{trace.solution}\n\n{prompts.END_SOLUTION}"
    turns = [
        {"from": "user", "value": protocol.user(problem)},
        {"from": "assistant", "value": f"{thought}\n\n{solution}"},
    ]
    return {"id": problem.id, "source": problem.source, "system": protocol.system, "conversations": turns}


def check_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """Refuse to publish a row whose answer is not laid out as it should be."""
    tags = (prompts.BEGIN_THOUGHT, prompts.END_THOUGHT, prompts.BEGIN_SOLUTION, prompts.END_SOLUTION)
    problems = []
    for row in rows:
        answer = row["conversations"][1]["value"]
        places = [answer.find(tag) for tag in tags]
        if [answer.count(tag) for tag in tags] != [1] * 4 or places != sorted(places):
            problems.append(f"{row['id']}: the four tags do not stand once each, in their order")
    raise_all(problems[:20], what="rows that cannot be published")


@contextlib.contextmanager
def _endpoint(config: TeacherConfig) -> Iterator[str]:
    if config.base_url:
        yield config.base_url
        return
    with practice.serve(config) as base_url:
        yield base_url


def _read(paths: Sequence[str]) -> list[Problem]:
    return [
        from_json(Problem, record, where=f"{path}:{number}")
        for path in paths
        for number, record in store.jsonl.read_jsonl(path)
    ]
