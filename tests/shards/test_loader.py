"""Batches: alignment of targets, weights of each reduction, the order, and errors."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import shards_data

from stratos_jax.shards import build, features, loader, write
from stratos_jax.shards.config import ShardsConfig, SourceConfig
from stratos_jax.types import UserError

ROW = 512


@dataclasses.dataclass(frozen=True)
class Loss:
    reduction: str
    ranks: int = 2
    accumulation: int = 4


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """One data set, plain and with balanced steps."""
    folder = tmp_path_factory.mktemp("loader")
    path = shards_data.write(folder / "dataset.jsonl", shards_data.rows(90, words=(2, 50)))
    settings = ShardsConfig(sources=(SourceConfig(path=str(path)),), row_tokens=ROW, num_shards=3)
    tokenizer_dir = shards_data.tiny_tokenizer(folder / "tokenizer")
    made = {"plain": settings, "balanced": dataclasses.replace(settings, balance_rows=8)}
    for name, config in made.items():
        build.run(config, folder / name, tokenizer_dir=tokenizer_dir, workers=1)
    return folder


@pytest.fixture(scope="module")
def folder(folders):
    return folders / "plain"


def opened(folder, **changes) -> loader.Loader:
    return loader.Loader(folder, **{"rows_per_step": 8, "seed": 3, "epochs": 2.0, **changes})


def equal(a: loader.Batch, b: loader.Batch) -> bool:
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_targets_weights_and_spans_are_those_of_the_next_token(folder):
    made = opened(folder)
    batch, rows = made.batch(1), made.read_rows(made.rows_of(1)[0].tolist())
    assert {k: (v.dtype.name, v.shape) for k, v in batch.items()} == {
        "tokens_BT": ("int32", (8, ROW)),
        "targets_BT": ("int32", (8, ROW)),
        "positions_BT": ("int32", (8, ROW)),
        "segment_ids_BT": ("int32", (8, ROW)),
        "loss_weights_BT": ("float32", (8, ROW)),
        "spans_BT": ("int8", (8, ROW)),
    }
    for b, row in enumerate(rows):
        for t in range(ROW):
            follows = t + 1 < ROW and row["segment_ids"][t] == row["segment_ids"][t + 1] > 0
            assert batch["targets_BT"][b, t] == (row["tokens"][t + 1] if follows else 0)
            assert batch["loss_weights_BT"][b, t] == (row["loss_mask"][t + 1] if follows else 0)
            assert batch["spans_BT"][b, t] == (row["spans"][t + 1] if follows else 0)
    assert batch["loss_weights_BT"].sum() == made.table["targets"][made.rows_of(1)[0]].sum()


def test_any_part_of_a_step_is_the_same_part_of_the_whole(folder):
    made = opened(folder)
    whole = made.batch(2)
    for rows in (slice(2, 5), slice(None, None, 2), [7, 0, 3]):
        assert equal(made.batch(2, rows), {k: v[rows] for k, v in whole.items()})


def test_only_the_rows_asked_for_are_read(folder, monkeypatch):
    made = opened(folder)
    asked = []
    plain = made._source.__getitems__
    monkeypatch.setattr(made._source, "__getitems__", lambda rows: asked.extend(rows) or plain(rows), raising=False)

    class Spy:
        __getitems__ = staticmethod(lambda rows: asked.extend(rows) or plain(rows))

    made._source = Spy()
    made.batch(0, slice(2, 4))
    assert asked == made.rows_of(0)[0][2:4].tolist()


def test_the_iterator_starts_anywhere_and_ends_with_the_data(folder):
    made = opened(folder)
    read = list(made.steps(3))
    assert len(read) == made.num_steps - 3
    assert all(equal(batch, made.batch(3 + i)) for i, batch in enumerate(read))
    assert list(made.steps(made.num_steps)) == []
    assert len(list(made.steps(0, stop=2))) == 2
    with pytest.raises(IndexError):
        made.batch(made.num_steps)


def test_end_of_data_and_padding_are_counted(folder):
    made = opened(folder, epochs=1.5)
    counts, rows = made.counts(), len(made.table)
    assert counts["rows"] == round(1.5 * rows)
    assert counts["padding_rows"] == made.num_steps * 8 - counts["rows"] > 0
    last = made.batch(made.num_steps - 1)
    empty = counts["padding_rows"]
    assert not last["segment_ids_BT"][-empty:].any() and not last["loss_weights_BT"][-empty:].any()
    sums = sum(b["loss_weights_BT"].sum() for b in made.steps())
    assert sums == counts["target_tokens"]
    real = sum((b["segment_ids_BT"] > 0).sum() for b in made.steps())
    assert real == counts["real_tokens"] and real + counts["padding_tokens"] == made.num_steps * 8 * ROW


@pytest.mark.parametrize("name", ["plain", "balanced"])
def test_every_sample_is_seen_once_an_epoch(folders, name):
    made = opened(folders / name, epochs=3)
    seen = [[], [], []]
    for step in range(made.num_steps):
        row_of, epoch_of = made.rows_of(step)
        for row, epoch, ids in zip(row_of, epoch_of, made.samples(step), strict=True):
            assert (row < 0) == (not ids)
            seen[epoch] += ids if row >= 0 else []
    for epoch in seen:
        assert sorted(epoch) == sorted(f"row-{i}" for i in range(90))


def losses(batch: loader.Batch, nll: np.ndarray) -> float:
    weights = batch["loss_weights_BT"].astype(np.float64)
    return float((weights * nll).sum() / weights.sum())


def test_reductions_are_what_they_are_called(folder):
    """Against sums written out over ranks and samples, with any per-token loss."""
    rng = np.random.default_rng(0)
    plain = opened(folder)
    steps = [0, plain.num_steps - 1]  # the last has padding rows
    for step in steps:
        batch = plain.batch(step)
        nll, mask = rng.random((8, ROW)), batch["loss_weights_BT"] > 0
        assert losses(batch, nll) == pytest.approx(nll[mask].mean(), rel=1e-6)

        ranked = opened(folder, loss=Loss("per_rank_token")).batch(step)
        means = [nll[r::2][mask[r::2]].mean() for r in range(2) if mask[r::2].any()]
        assert losses(ranked, nll) == pytest.approx(np.mean(means), rel=1e-6)

        single = opened(folder, loss=Loss("sequence_mean")).batch(step)
        segments = batch["segment_ids_BT"]
        means = [
            nll[b][mask[b] & (segments[b] == s)].mean() for b in range(8) for s in range(1, int(segments[b].max()) + 1)
        ]
        assert losses(single, nll) == pytest.approx(np.mean(means), rel=1e-6)
        assert single["loss_weights_BT"].sum() == pytest.approx(mask.sum(), rel=1e-5)
        parts = [opened(folder, loss=Loss("sequence_mean")).batch(step, slice(i, i + 2)) for i in (0, 2, 4, 6)]
        assert np.array_equal(np.concatenate([p["loss_weights_BT"] for p in parts]), single["loss_weights_BT"])


def test_settings_that_do_not_fit_are_refused(folders):
    with pytest.raises(UserError, match="2 ranks x 4 rows are 8, but a step has 6"):
        opened(folders / "plain", rows_per_step=6, loss=Loss("per_rank_token"))
    with pytest.raises(UserError, match="balance steps of 8 rows"):
        opened(folders / "balanced", rows_per_step=4)
    with pytest.raises(UserError, match="above 0"):
        opened(folders / "plain", epochs=0)


def damaged(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    return copy


def test_a_missing_shard_and_a_missing_manifest_are_said(folder, tmp_path):
    copy = damaged(folder, tmp_path)
    (copy / features.shard_name(1, 3)).unlink()
    with pytest.raises(UserError, match=r"00001-of-00003: missing"):
        opened(copy)
    (copy / "manifest.json").unlink()
    with pytest.raises(UserError, match="no data set here"):
        opened(copy)


def test_a_corrupt_shard_is_an_error_where_it_is_met_and_the_iterator_does_not_end_quietly(folder, tmp_path):
    copy = damaged(folder, tmp_path)
    path = copy / features.shard_name(1, 3)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 2000] = bytes(b ^ 0xFF for b in data[middle : middle + 2000])
    path.write_bytes(data)
    read = 0
    with pytest.raises(UserError, match="a shard cannot be"):
        for _ in opened(copy).steps():
            read += 1
    assert read < opened(folder).num_steps


def test_a_step_can_be_asked_about_from_the_command_line(folder, capsys):
    from stratos_jax import cli

    words = ["shards", "inspect", str(folder), "--step", "1", "--epoch", "1", "--rows-per-step", "8", "--seed", "3"]
    assert cli.main([*words, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    made = opened(folder)
    assert [p["samples"] for p in shown["places"]] == made.samples(shown["step"])
    assert {p["epoch"] for p in shown["places"]} == {1}
    assert cli.main(words) == 0 and "row-" in capsys.readouterr().out
    assert cli.main(["shards", "inspect", str(folder), "--step", "99", "--rows-per-step", "8"]) == 2
    assert "no such step" in capsys.readouterr().err


def test_rows_are_shown_decoded_with_their_spans(folder, capsys):
    from stratos_jax import cli

    assert cli.main(["shards", "inspect", str(folder), "--rows", "1"]) == 0
    text = capsys.readouterr().out
    assert "[thought learned" in text and "[none context" in text and "lengths: mean" in text
    assert cli.main(["shards", "inspect", str(folder), "--rows", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert len(rows) == 2 and rows[0]["samples"][0]["pieces"][0]["loss"] == "context"


def test_the_table_knows_the_rows(folder):
    made = opened(folder)
    for number in range(0, len(made.table), 7):
        row = made.read_rows([number])[0]
        entry = made.table[number]
        lengths = np.bincount(row["segment_ids"])[1:]
        assert entry["tokens"] == lengths.sum() and entry["samples"] == len(row["ids"])
        assert entry["work"] == (lengths.astype(np.int64) ** 2).sum()
        assert entry["targets"] == row["loss_mask"].sum()
    assert write.ROWS_TABLE in {f.path for f in made.manifest.files}
