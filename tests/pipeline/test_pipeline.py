"""The runner on a recipe so small that nothing is learned: stages, skips, refusals, and ways on."""

import contextlib
import dataclasses
import json
import shutil

import pytest
from helpers import ROOT

from stratos_jax import config, pipeline, recipe, store
from stratos_jax.types import UserError

WORDS = (
    "curate.problems.procedural.problems=48",
    "curate.problems.procedural.held_out=9",
    "train.max_steps=3",
    "train.checkpoint.every_steps=2",
    "evaluate.sampling.max_tokens=8",
    "evaluate.bootstrap=50",
    "convert.proof_tokens=16",
)
ARMS = ("traces", "answers_only")


class Recorded:
    """Remembers what was shown."""

    def __init__(self):
        self.lines = {}

    @contextlib.contextmanager
    def stage(self, name):
        yield lambda done, total, note: None

    def done(self, name, note):
        self.lines[name] = note

    def made(self):
        return {name for name, note in self.lines.items() if note != "done before"} - {"report"}


def small(*words):
    chosen, _ = recipe.load(ROOT / "configs" / "quickstart.py", [*WORDS, *words])
    student = {**chosen.model.hf, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    student |= {"num_attention_heads": 2, "num_key_value_heads": 1}
    return dataclasses.replace(chosen, model=dataclasses.replace(chosen.model, hf=student))


def run(folder, *words, **span):
    show = Recorded()
    pipeline.run(small(*words), folder, show, **span)
    return show


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return folder, run(folder)


def test_the_exported_student_gives_the_same_greedy_answers_in_transformers(finished):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = finished[0] / "traces" / "convert" / "hf"
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    trained = transformers.AutoTokenizer.from_pretrained(finished[0] / "traces" / "shards" / "tokenizer")
    assert trained.tokenize("A dial shows 7.") == tokenizer.tokenize("A dial shows 7.")  # a config.json lies beside one
    held_out = {r["id"]: r for _, r in store.jsonl.read_jsonl(finished[0] / "curate" / "held_out.jsonl")}
    samples = [r for _, r in store.jsonl.read_jsonl(finished[0] / "traces" / "evaluate" / "samples.jsonl")]
    assert len(samples) == len(held_out)
    for sample in samples:
        turn = [{"role": "user", "content": held_out[sample["problem_id"]]["question"]}]
        text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False)
        assert out[0, ids.shape[1] :].tolist() == sample["tokens"]


@pytest.fixture
def copy(finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "run")
    return tmp_path / "run"


def test_every_stage_of_every_arm_leaves_a_manifest_and_the_report_its_figures(finished):
    folder, show = finished
    assert show.made() == {"curate"} | {
        f"{arm}/{s}" for arm in ARMS for s in ("shards", "train", "convert", "evaluate")
    }
    report = json.loads((folder / "report.json").read_text())
    for arm in ARMS:
        assert 0 <= report["accuracy"][arm] <= 1
        low, high = report["intervals"][arm]
        assert low <= report["accuracy"][arm] <= high
        counts = report["counts"][arm]
        assert counts["problems"] == 9 == counts["right"] + counts["wrong"] + counts["unknown"]
        assert report["training"][arm]["steps"] == 3
        assert not store.manifest.verify(folder / arm / "train", deep=True)
    assert (folder / "report.html").read_text().startswith("<!doctype html>")


def test_a_second_run_makes_nothing_and_says_the_same(copy):
    before = (copy / "report.json").read_bytes()
    assert run(copy).made() == set()
    assert (copy / "report.json").read_bytes() == before


@pytest.mark.parametrize(
    "stage", ["curate", "answers_only/shards", "traces/train", "traces/convert", "traces/evaluate"]
)
def test_a_deleted_output_is_made_again_and_ends_in_the_same_report(copy, stage):
    before = json.loads((copy / "report.json").read_text())
    shutil.rmtree(copy / stage)
    assert run(copy).made() == {stage}
    assert json.loads((copy / "report.json").read_text()) == before


@pytest.mark.parametrize("stage, file", [("curate", "dataset.jsonl"), ("traces/evaluate", "samples.jsonl")])
def test_a_damaged_output_is_one_error_that_says_the_way_on(copy, stage, file):
    path = copy / stage / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    name = stage.split("/")[-1]
    with pytest.raises(UserError, match=rf"(?s){file}.*sha256.*--from {name}"):
        run(copy)
    assert path.read_bytes() == data  # nothing was taken away


def test_a_deleted_file_is_one_error_that_says_the_way_on(copy):
    (copy / "traces" / "shards" / "statistics.json").unlink()
    with pytest.raises(UserError, match=r"(?s)traces/shards.*statistics.json: missing.*--from shards"):
        run(copy)
    assert run(copy, start="shards", end="shards").made() == {f"{arm}/shards" for arm in ARMS}


def test_an_edited_config_is_refused_and_from_goes_on_without_losing_anything(copy):
    with pytest.raises(UserError, match=r"(?s)max_tokens: there 8, now 9.*--from evaluate"):
        run(copy, "evaluate.sampling.max_tokens=9")
    show = run(copy, "evaluate.sampling.max_tokens=9", start="evaluate")
    assert show.made() == {f"{arm}/evaluate" for arm in ARMS}
    aside = list((copy / "replaced").glob("*/traces/evaluate/report.json"))
    assert len(aside) == 1


def test_a_run_can_end_early_and_wrong_names_are_refused(tmp_path):
    show = run(tmp_path / "run", end="curate")
    assert show.made() == {"curate"} and not (tmp_path / "run" / "traces").exists()
    with pytest.raises(UserError, match="no such stage"):
        run(tmp_path / "run", end="training")
    with pytest.raises(UserError, match="nothing to run"):
        run(tmp_path / "run", start="train", end="curate")


def test_a_full_disk_is_one_error(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setitem(pipeline.BODIES, "curate", full)
    with pytest.raises(UserError, match="(?s)No space left.*run the same command again"):
        run(tmp_path / "run")


def test_the_students_differ_in_their_target_and_learning_rate_alone():
    arms = [small().arm(name) for name in ARMS]
    left, right = (config.as_json(arm, [])["recipe"] for arm in arms)
    assert left["shards"].pop("target") == "trace" and right["shards"].pop("target") == "answer"
    left["train"]["optimizer"].pop("peak_lr"), right["train"]["optimizer"].pop("peak_lr")
    assert left == right


def test_complete_stages_are_copied_to_the_bucket(copy, fake_gcs):
    show = run(copy, "launch.bucket=gs://test-bucket/run")
    assert show.made() == set()
    stages = [path.parent for path in copy.rglob("manifest.json") if "replaced" not in path.parts]
    for stage in stages:
        url = store.join("gs://test-bucket/run", *stage.relative_to(copy).parts)
        assert store.manifest.verify(url) == []
