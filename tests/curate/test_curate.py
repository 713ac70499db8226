"""Curation end to end against the practice teacher, whose faults are all turned on."""

import dataclasses
import json

import pytest

from stratos_jax import prompts, store
from stratos_jax.curate import practice, procedural, stage, teacher
from stratos_jax.curate.config import (
    CurateConfig,
    FaultsConfig,
    ProblemsConfig,
    ProceduralConfig,
    SelectConfig,
    TeacherConfig,
)
from stratos_jax.curate.requests import RequestStore, request_key
from stratos_jax.types import UserError

FAULTS = FaultsConfig(wrong=0.15, truncated=0.1, rate_limited=0.15, cut_off=0.1, empty=0.1)


def config(problems=60, **teacher_settings):
    return CurateConfig(
        problems=ProblemsConfig(procedural=ProceduralConfig(problems=problems, held_out=18)),
        teacher=TeacherConfig(max_tokens=256, faults=FAULTS, **teacher_settings),
        select=SelectConfig(contamination_ngram=20, fuzzy_threshold=0.98),
        prompts="bare",
    )


def rows_of(folder):
    return [row for _, row in store.jsonl.read_jsonl(folder / "dataset.jsonl")]


@pytest.fixture(scope="module")
def curated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("curated")
    return folder, stage.run(config(), folder / "curate", answers_dir=folder / "answers")


def test_only_verified_traces_become_rows(curated):
    folder, manifest = curated
    counts = manifest.counts
    assert counts["answers"] == 60 and counts["answers_wrong"] > 0 and counts["answers_truncated"] > 0
    assert counts["rows"] == counts["answers_right"] - counts["problems_like_a_held_out_one"]
    problems = {r["id"]: r for _, r in store.jsonl.read_jsonl(folder / "curate" / "problems.jsonl")}
    for row in rows_of(folder / "curate"):
        user, answer = (turn["value"] for turn in row["conversations"])
        assert user == problems[row["id"]]["question"]
        assert f"\\boxed{{{problems[row['id']]['gold']}}}" in answer
        assert answer.startswith(prompts.BEGIN_THOUGHT + "\n\n") and answer.endswith("\n\n" + prompts.END_SOLUTION)


def test_no_held_out_question_is_in_the_data(curated):
    folder, _ = curated
    held_out = {r["question"] for _, r in store.jsonl.read_jsonl(folder / "curate" / "held_out.jsonl")}
    assert len(held_out) == 18
    assert not held_out & {row["conversations"][0]["value"] for row in rows_of(folder / "curate")}


def test_the_card_has_the_funnel(curated):
    text = (curated[0] / "curate" / "README.md").read_text()
    for name, value in curated[1].counts.items():
        if name not in ("held_out", "cost_usd"):
            assert f"| {name.replace('_', ' ')} | {value:,} |" in text


def test_a_second_run_asks_nothing_and_gives_the_same_bytes(curated, tmp_path):
    folder, manifest = curated
    asked = []
    progress = lambda done, total, note: asked.append(done)
    again = stage.run(config(), tmp_path / "curate", answers_dir=folder / "answers", progress=progress)
    assert asked == [60]  # all were there already
    assert again.content_hash() == manifest.content_hash()


def test_another_request_is_asked_and_paid_for_anew():
    body = {"model": "m", "messages": [{"role": "user", "content": "1+1"}], "max_tokens": 9}
    keys = {
        request_key("https://a", body, 0),
        request_key("https://b", body, 0),
        request_key("https://a", {**body, "max_tokens": 10}, 0),
        request_key("https://a", body, 1),
    }
    assert len(keys) == 4


def test_the_store_survives_a_torn_line(tmp_path):
    with RequestStore(tmp_path) as answers:
        answers.put("a" * 64, {"solution": "\u00e9"})
        answers.put("b" * 64, {"solution": "y"})
    with open(tmp_path / "answers.jsonl", "ab") as file:
        file.write(b'{"key": "' + b"c" * 30)
    with RequestStore(tmp_path) as answers:
        assert len(answers) == 2 and answers.get("b" * 64)["solution"] == "y"
        answers.put("c" * 64, {"solution": "z"})
    with RequestStore(tmp_path) as answers:
        assert [answers.get(k * 64)["solution"] for k in "abc"] == ["\u00e9", "y", "z"]


def test_the_budget_is_never_passed_and_what_is_there_counts(tmp_path):
    priced = {"usd_per_million_completion_tokens": 1e6, "usd_per_million_prompt_tokens": 0.0}
    tight = config(20, budget_usd=400.0, **priced)
    with pytest.raises(UserError, match="(?s)budget.*run again"):
        stage.run(tight, tmp_path / "curate", answers_dir=tmp_path / "answers")
    with RequestStore(tmp_path / "answers") as answers:
        paid, count = sum(answers.get(key)["cost_usd"] for key in answers), len(answers)
    assert 0 < paid <= 400 and 0 < count < 20
    rich = dataclasses.replace(tight, teacher=dataclasses.replace(tight.teacher, budget_usd=1e6))
    first = []
    stage.run(rich, tmp_path / "rich", answers_dir=tmp_path / "answers", progress=lambda d, t, n: first.append(d))
    assert first[0] == count


def test_a_truncated_answer_is_asked_for_once_more_with_a_higher_cap(tmp_path):
    longer = config(30, truncated="raise_cap", raised_max_tokens=512)
    manifest = stage.run(longer, tmp_path / "curate", answers_dir=tmp_path / "answers")
    plain = stage.run(config(30), tmp_path / "plain", answers_dir=tmp_path / "answers")
    assert manifest.counts["answers_truncated"] < plain.counts["answers_truncated"]


def test_errors_that_no_retry_mends_end_the_run_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    missing = config(20, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(UserError, match="(?s)no connection.*see to the endpoint"):
        stage.run(missing, tmp_path / "curate", answers_dir=tmp_path / "answers")
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match="(?s)no key.*export OPENAI_API_KEY"):
        stage.run(missing, tmp_path / "curate", answers_dir=tmp_path / "answers")
    with practice.serve(TeacherConfig()) as base_url:
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        wrong_path = config(20, base_url=base_url.removesuffix("/v1"))
        with pytest.raises(UserError, match="(?s)HTTP 404"):
            stage.run(wrong_path, tmp_path / "wrong", answers_dir=tmp_path / "answers")


def test_a_taken_port_is_one_clear_error():
    with practice.serve(TeacherConfig()) as base_url:
        port = int(base_url.rsplit(":", 1)[1].split("/")[0])
        with pytest.raises(UserError, match="(?s)in use.*port=0"), practice.serve(TeacherConfig(port=port)):
            pass


@pytest.mark.parametrize("kind", procedural.KINDS)
def test_the_teacher_works_out_what_the_generator_made(kind):
    problems, held_out = procedural.make_problems(ProceduralConfig(problems=60, held_out=30, kinds=(kind,)))
    assert len({p.question for p in (*problems, *held_out)}) == 90
    for problem in (*problems, *held_out):
        steps, answer = procedural.work_out(problem.question)
        assert str(answer) == problem.gold
        low, high = procedural.LEVELS[problem.metadata["level"]]
        assert low <= len(steps) <= high


def test_held_out_problems_do_not_depend_on_the_number_of_others():
    few, many = (procedural.make_problems(ProceduralConfig(problems=n, held_out=30)) for n in (10, 300))
    assert few[1] == many[1]


def test_wrong_settings_are_listed_together():
    with pytest.raises(UserError, match="(?s)3 problems"):
        CurateConfig(
            problems=ProblemsConfig(),
            teacher=TeacherConfig(samples=0, budget_usd=1.0),
        )
    assert teacher.endpoint_name(TeacherConfig(port=1)) == teacher.endpoint_name(TeacherConfig(port=2))
    assert json.dumps(teacher.endpoint_name(TeacherConfig(seed=1))) != json.dumps(
        teacher.endpoint_name(TeacherConfig())
    )
