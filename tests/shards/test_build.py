"""The whole stage: what is written, that it is the same however it came about, and how bad input ends."""

import json
import pathlib
import shutil

import numpy as np
import pytest
import shards_data

from stratos_jax import store
from stratos_jax.shards import build, features, labels, render, tokenize, write
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.types import UserError

ROW = 512


def config(path, **changes) -> ShardsConfig:
    return ShardsConfig(sources=(SourceConfig(path=str(path)),), **{"row_tokens": ROW, "num_shards": 3, **changes})


@pytest.fixture(scope="module")
def tokenizer_dir(tmp_path_factory):
    return shards_data.tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def run(tokenizer_dir):
    return lambda settings, directory, **more: build.run(
        settings, directory, tokenizer_dir=tokenizer_dir, **{"workers": 1, **more}
    )


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return shards_data.write(folder / "dataset.jsonl", shards_data.rows(120))


@pytest.fixture(scope="module")
def built(dataset, tmp_path_factory, run):
    folder = tmp_path_factory.mktemp("built") / "shards"
    run(config(dataset), folder)
    return folder


def test_it_is_a_tfds_data_set_without_tensorflow(built):
    import sys

    import tensorflow_datasets as tfds

    source = tfds.builder_from_directory(str(built)).as_data_source(split="train")
    table = np.load(built / write.ROWS_TABLE)
    assert len(source) == len(table)
    row = source[len(table) - 1]
    assert row["tokens"].dtype == np.int32 and row["tokens"].shape == (ROW,)
    assert int((row["segment_ids"] > 0).sum()) == table["tokens"][-1]
    assert "tensorflow" not in sys.modules


def test_rows_hold_every_sample_as_it_was_rendered(built, dataset):
    renderer = render.Renderer(tokenize.open_tokenizer(built / "tokenizer"), config(dataset))
    from stratos_jax.shards import conversations

    lines = dataset.read_bytes().splitlines()
    wanted = {}
    for number, line in enumerate(lines, start=1):
        row = conversations.read_row(line, "dataset", number)
        wanted[row.id] = renderer.render(row).words
    seen = []
    manifest = store.manifest.read_manifest(built)
    for shard in range(3):
        for record in store.arrayrecord.ArrayRecordFile(built / features.shard_name(shard, 3)):
            row = features.decode_row(record, ROW)
            for segment, name in enumerate(row["ids"], start=1):
                here = row["segment_ids"] == segment
                words = wanted[name]
                assert row["tokens"][here].tolist() == labels.tokens_of(words).tolist()
                assert row["loss_mask"][here].astype(bool).tolist() == labels.learned(words).tolist()
                assert row["spans"][here].tolist() == labels.spans_of(words).tolist()
                assert row["positions"][here].tolist() == list(range(len(words)))
                seen.append(name)
            padding = row["segment_ids"] == 0
            assert not row["tokens"][padding].any() and not row["loss_mask"][padding].any()
    assert sorted(seen) == sorted(wanted)
    assert manifest.counts["samples"] == 120 and manifest.counts["total"]["tokens"] == sum(map(len, wanted.values()))


def test_files_beside_the_rows(built):
    lines = [json.loads(line) for line in (built / write.SAMPLES_TABLE).read_text().splitlines()]
    table = np.load(built / write.ROWS_TABLE)
    assert len(lines) == 120
    assert sum(line["tokens"] for line in lines) == table["tokens"].sum()
    figures = json.loads((built / build.STATISTICS).read_text())
    assert figures["sources"]["dataset"]["origins"].keys() == {"code", "math"}
    assert sum(figures["lengths"]["histogram"]) == 120
    assert not (built / build.WORK).exists()
    assert store.manifest.verify(built, deep=True) == []


def test_the_same_bytes_from_many_processes_and_a_second_run_does_nothing(built, dataset, tmp_path, monkeypatch, run):
    monkeypatch.setattr(tokenize, "CHUNK_ROWS", 16)
    monkeypatch.setattr(build, "WORKER_BYTES", 1)
    again = tmp_path / "again"
    run(config(dataset), again, workers=2)
    assert contents(again) == contents(built)
    before = {p: p.stat().st_mtime_ns for p in again.rglob("*")}
    run(config(dataset), again)
    assert before == {p: p.stat().st_mtime_ns for p in again.rglob("*")}


def test_other_settings_in_the_same_folder_are_refused(built, dataset, run):
    with pytest.raises(UserError, match="another run of this stage") as error:
        run(config(dataset, seed=7), built)
    assert "seed" in str(error.value)


def test_another_tokenizer_is_refused(built, dataset, tmp_path, tokenizer_dir):
    other = tmp_path / "tokenizer"
    shutil.copytree(tokenizer_dir, other)
    settings = json.loads((other / "tokenizer_config.json").read_text())
    (other / "tokenizer_config.json").write_text(json.dumps({**settings, "eos_token": "<|endoftext|>"}))
    build.check_tokenizer(built, tokenizer_dir)
    with pytest.raises(UserError, match="another tokenizer"):
        build.check_tokenizer(built, other)
    with pytest.raises(UserError, match="tokenizer"):
        build.run(config(dataset), built, tokenizer_dir=other, workers=1)
    with pytest.raises(UserError, match="no tokenizer"):
        build.run(config(dataset), tmp_path / "x", workers=1)
    with pytest.raises(UserError, match="does not exist"):
        build.run(config(dataset), tmp_path / "x", tokenizer_dir=tmp_path / "a" / "b" / "c", workers=1)


def test_malformed_rows_stop_the_build_with_their_lines_and_the_number_of_the_rest(tmp_path, run):
    path = shards_data.write(tmp_path / "bad.jsonl", shards_data.rows(20))
    good = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join(good[:3] + [b"\xff"] + good[3:5] + [b'{"prompt": "q"}'] * 15 + good[5:]) + b"\n")
    with pytest.raises(UserError) as error:
        run(config(path), tmp_path / "out")
    text = str(error.value)
    assert "16 of 36 rows are malformed" in text
    assert "bad.jsonl:4: not UTF-8" in text and "bad.jsonl:7: no field" in text and "and 6 more" in text
    manifest = run(config(path, bad_rows="skip"), tmp_path / "skipped")
    assert manifest.counts["total"]["malformed"] == 16 and manifest.counts["samples"] == 20


def test_over_long_samples_are_counted(tmp_path, run):
    rows = shards_data.rows(10) + shards_data.rows(4, seed=1, words=(900, 1000))
    path = shards_data.write(tmp_path / "long.jsonl", rows)
    total = lambda out, **c: run(config(path, **c), tmp_path / out).counts["total"]
    dropped = total("drop")
    assert dropped["dropped_too_long"] == 4 and dropped["samples"] == 10
    cut = total("cut", too_long="keep_head")
    assert cut["cut_tail"] == 4 and cut["samples"] == 14
    original = run(config(path, policy="stratos17k"), tmp_path / "original")
    assert original.counts["rows"] == 14 and original.counts["total"]["cut_tail"] == 4


def test_nothing_left_is_an_error_and_so_are_missing_sources(tmp_path, run):
    path = shards_data.write(tmp_path / "long.jsonl", shards_data.rows(3, words=(900, 1000)))
    with pytest.raises(UserError, match="no sample is left"):
        run(config(path), tmp_path / "out")
    with pytest.raises(UserError, match="no conversations found"):
        run(config(tmp_path / "nothing"), tmp_path / "out2")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="not a file of conversations"):
        run(config(tmp_path / "notes.txt"), tmp_path / "out3")
    with pytest.raises(UserError, match="same name"):
        run(ShardsConfig(sources=(SourceConfig(path=str(path)),) * 2), tmp_path / "out4")


def test_parquet_and_folders_and_the_output_of_curate(dataset, built, tmp_path, run):
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    folder = tmp_path / "many"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:60]), folder / "a.parquet")
    shards_data.write(folder / "b.jsonl", rows[60:])
    run(config(folder), tmp_path / "out")
    curated = tmp_path / "curated"
    curated.mkdir()
    shutil.copy(dataset, curated / "dataset.jsonl")
    (curated / "problems.jsonl").write_text('{"id": 1}\n')
    run(config("curate"), tmp_path / "out2", inputs={"curate": curated})
    for out in ("out", "out2"):
        for shard in range(3):
            name = features.shard_name(shard, 3)
            assert (tmp_path / out / name).read_bytes() == (built / name).read_bytes()


def test_a_mix_of_sources_is_recorded(dataset, tmp_path, run):
    general = shards_data.write(tmp_path / "general.jsonl", [{"prompt": f"q{i}", "response": "a b"} for i in range(50)])
    sources = (
        SourceConfig(path=str(dataset), name="reasoning", weight=3.0),
        SourceConfig(path=str(general), max_samples=40, epochs=2.0),
    )
    settings = ShardsConfig(sources=sources, row_tokens=ROW, num_shards=1)
    manifest = run(settings, tmp_path / "out")
    figures = json.loads((tmp_path / "out" / build.STATISTICS).read_text())["sources"]
    assert figures["general"]["offered"] == 80
    assert manifest.counts["shares"]["reasoning"][0] == 120 and manifest.counts["shares"]["general"][0] == 27
    ids = [json.loads(line)["id"] for line in (tmp_path / "out" / write.SAMPLES_TABLE).read_text().splitlines()]
    assert sum(name.startswith("row-") for name in ids) == 120


def test_memory_does_not_hold_the_data(dataset, tmp_path, monkeypatch, run):
    """Chunks are handed on as they are read: never more than a few are held."""
    monkeypatch.setattr(tokenize, "CHUNK_ROWS", 10)
    held, most = 0, 0
    plain_split, plain_write = tokenize.split, tokenize.scratch.write_chunk

    def split(files):
        nonlocal held, most
        for chunk in plain_split(files):
            held += 1
            most = max(most, held)
            yield chunk

    def write_chunk(*args):
        nonlocal held
        held -= 1
        plain_write(*args)

    monkeypatch.setattr(tokenize, "split", split)
    monkeypatch.setattr(tokenize.scratch, "write_chunk", write_chunk)
    run(config(dataset), tmp_path / "out")
    assert most == 1 and held == 0


def test_a_tokenizer_is_trained_where_the_config_says_so(dataset, tmp_path):
    from stratos_jax.shards.config import TokenizerConfig

    settings = config(dataset, tokenizer=TokenizerConfig(train_vocab_size=420))
    manifest = build.run(settings, tmp_path / "out", workers=1)
    tokenizer = tokenize.open_tokenizer(tmp_path / "out" / build.TOKENIZER)
    assert len(tokenizer) == 420 and manifest.counts["samples"] == 120
    again = build.run(settings, tmp_path / "again", workers=1)
    assert again.content_hash() == manifest.content_hash()


def test_verify_finds_rows_that_are_not_well_formed(built):
    from stratos_jax import cli
    from stratos_jax.shards import loader, verify

    assert verify.verify(built, deep=True) == []
    assert cli.main(["verify", str(built), "--deep"]) == 0
    opened = loader.Loader(built, rows_per_step=1, seed=0, epochs=1)
    row, entry = opened.read_rows([0])[0], opened.table[0]
    assert verify.row_problems(row, entry, 400) == []
    for name, place, value, said in (
        ("tokens", 3, 400, "outside the vocabulary"),
        ("segment_ids", 2, 0, "padding in the middle"),
        ("segment_ids", 0, 2, "segments not"),
        ("positions", 2, 7, "positions do not"),
        ("loss_mask", 0, 1, "begins with a learned"),
        ("loss_mask", -1, 1, "padding is learned"),
    ):
        bad = {k: np.array(v) if k != "ids" else v for k, v in row.items()}
        bad[name][place] = value
        assert any(said in problem for problem in verify.row_problems(bad, entry, 400)), said
    assert verify.row_problems({**row, "ids": []}, entry, 400) == ["another number of samples than the table's"]


def test_the_verb_builds_a_recipes_data_set_and_shows_the_figures(dataset, tokenizer_dir, tmp_path, capsys):
    from stratos_jax import cli

    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from stratos_jax.model.config import ModelConfig\n"
        "from stratos_jax.recipe import Recipe\n"
        "from stratos_jax.shards.config import ShardsConfig, SourceConfig\n"
        "from stratos_jax.train.config import TrainConfig\n"
        "def recipe():\n"
        f"    shards = ShardsConfig(sources=(SourceConfig(path={str(dataset)!r}),), row_tokens=512)\n"
        "    model = ModelConfig(hf={'model_type': 'qwen2'})\n"
        "    return Recipe(name='t', shards=shards, model=model, train=TrainConfig(rows_per_step=8))\n"
    )
    words = ["shards", "build", str(recipe), "shards.seed=3", "--directory", str(tmp_path / "out")]
    words += ["--tokenizer", str(tokenizer_dir), "--workers", "1"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert "complete" in shown and "real tokens" in shown and "dataset: 120 rows in" in shown
    assert cli.main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 120
    assert store.manifest.read_manifest(tmp_path / "out").config["seed"] == 3
    assert cli.main([*words[:3], "shards.policy=stratos17k", *words[4:]]) == 2
    assert "another run of this stage" in capsys.readouterr().err
    step = ["shards", "inspect", str(tmp_path / "out"), "--step", "0", "--config", str(recipe)]
    assert cli.main(step) == 0 and "8 rows a step" in capsys.readouterr().out


def test_work_begun_with_another_chunk_size_is_not_taken_for_this_ones(built, dataset, run, tmp_path, monkeypatch):
    """A chunk left by a killed run stands for its own lines alone."""

    class Killed(Exception):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(tokenize, "CHUNK_ROWS", 16)
        patch.setattr(write, "write_shard", killed)
        with pytest.raises(Killed):
            run(config(dataset), tmp_path / "out")
    assert len(list((tmp_path / "out" / build.WORK).glob("*.json"))) == 8
    run(config(dataset), tmp_path / "out")
    assert contents(tmp_path / "out").keys() == contents(built).keys()
    for shard in range(3):
        name = features.shard_name(shard, 3)
        assert (tmp_path / "out" / name).read_bytes() == (built / name).read_bytes()
