"""The scorecard counts what the graders said; on a small folder of our own."""

import json

import pytest

from stratos_jax.grading import scorecard
from stratos_jax.types import UserError


@pytest.fixture
def folder(tmp_path):
    pairs = [("1/2", "0.5", "right"), ("(-\\infty,-5)", "k<-5", "right"), ("3", "4", "wrong"), ("7", "seven", "wrong")]
    with (tmp_path / "hard_pairs.jsonl").open("w") as file:
        for i, (gold, answer, label) in enumerate(pairs):
            row = {"id": str(i), "half": "held", "gold": gold, "answer": answer, "label": label}
            file.write(json.dumps(row) + "\n")
    with (tmp_path / "aime25.jsonl").open("w") as file:
        for i in range(4):
            file.write(json.dumps({"problem": "?", "answer": str(10 + i)}) + "\n")
    return tmp_path


def test_figures_and_table(folder):
    result = scorecard.run(folder)
    rows = {row["set"]: row for row in result["sets"]}
    assert set(rows) == {"hard_pairs (held back at first)", "aime25"}
    ours = rows["hard_pairs (held back at first)"]["graders"]["stratos"]
    assert ours["recall"] == 1.0 and ours["false_accepts"] == 1  # "seven" is 7: that label is a planted error
    assert ours["differences"][0]["answer"] == "seven" and ours["pairs"] == 4
    exact = rows["hard_pairs (held back at first)"]["graders"]["exact"]
    assert exact["recall"] == 0.0 and exact["false_accepts"] == 0
    library = rows["hard_pairs (held back at first)"]["graders"]["math_verify"]
    assert library["recall"] == 0.5  # the inequality is what it misses
    assert rows["aime25"]["graders"]["stratos"]["recall"] == 1.0 and rows["aime25"]["right"] == 4
    table = scorecard.render(result)
    assert "| hard_pairs (held back at first) | 2 / 2 | stratos | 4 | 100.0 % | 1 (50.0 %) | 0 |" in table


def test_golds_of_one_value_are_no_shuffled_pair():
    pairs = [("", "120"), ("", r"120^\circ"), ("", "+2"), ("", "2"), ("", "-2"), ("", r"\frac{1}{2}")]
    for wrong in scorecard.against_others(pairs):
        assert scorecard.value_key(wrong.record["gold"]) != scorecard.value_key(wrong.record["answer"])
    assert scorecard.value_key("2") != scorecard.value_key("-2")
    assert scorecard.value_key("+2") == scorecard.value_key("2")


def test_an_empty_folder_is_a_users_error(tmp_path, monkeypatch):
    monkeypatch.setattr(scorecard, "REPOSITORY", tmp_path)  # whose tests have hard pairs
    with pytest.raises(UserError, match="no labelled set"):
        scorecard.run(tmp_path)
    with pytest.raises(UserError, match="no folder"):
        scorecard.run(tmp_path / "none")
