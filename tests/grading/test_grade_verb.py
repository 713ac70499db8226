"""`stratos grade`: one line per record in input order, bad lines by number, nothing half-written."""

import http.server
import json
import threading

import pytest

from stratos_jax import cli
from stratos_jax.grading import scorecard
from tests.grading.test_judge import GOLD, Model, by_meaning

STDIN = {"kind": "stdin", "cases": [{"input": "1\n", "output": "1"}]}
GOOD, BAD = "print(input())", "print(2)"


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        server.seen, server.rule = [], by_meaning
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def write(path, records):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return str(path)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_code_in_input_order_with_ids_as_they_came(tmp_path, capsys):
    programs = [GOOD, BAD] * 5
    records = [{"id": i, "code": program, "tests": STDIN} for i, program in enumerate(programs)]
    source, target = write(tmp_path / "in.jsonl", records), tmp_path / "out.jsonl"
    words = ["grade", "code", "--in", source, "--out", str(target), "--workers", "2", "--json"]
    assert cli.main([*words, "code.time_limit_s=5", "code.packages=[]"]) == 0
    figures = json.loads(capsys.readouterr().out)
    lines = read(target)
    assert [line["id"] for line in lines] == list(range(10))
    assert [line["outcome"] for line in lines] == ["right", "wrong"] * 5
    assert {"id", "outcome", "reason", "extracted", "seconds"} <= set(lines[0])
    assert figures["outcomes"] == {"right": 5, "wrong": 5} and figures["records"] == 10
    assert figures["reasons"] == {"code.passed": 5, "code.wrong_answer": 5}


@pytest.mark.parametrize("kind", ["math", "choice"])
def test_the_other_kinds_go_the_same_way(tmp_path, capsys, kind):
    answer, other = ("\\boxed{7}", "8") if kind == "math" else ("The answer is C.", "B")
    gold = "7" if kind == "math" else "C"
    more = {"num_choices": 4} if kind == "choice" else {}
    records = [
        {"id": "a", "gold": gold, "response": answer, **more},
        {"id": "b", "gold": gold, "answer": other, **more},
    ]
    target = tmp_path / "out.jsonl"
    assert cli.main(["grade", kind, "--in", write(tmp_path / "in.jsonl", records), "--out", str(target)]) == 0
    assert [(line["id"], line["outcome"]) for line in read(target)] == [("a", "right"), ("b", "wrong")]
    assert "1 right, 1 wrong" in capsys.readouterr().out


def test_the_judge_report_is_printed_and_in_the_json(tmp_path, capsys, server):
    records = [{"id": "a", "gold": "7", "answer": "7"}, {"id": "b", "gold": GOLD, "answer": "n not a power of 2"}]
    url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    words = ["grade", "math", "--in", write(tmp_path / "in.jsonl", records), "--out", str(tmp_path / "out.jsonl")]
    words += ["--judge-url", url, "--judge-model", "m", "math.use_math_verify=false", "judge.spot_check=1.0"]
    assert cli.main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)["judge"]
    assert report["asked"] == report["considered"] == 1 and report["outcomes"] == {"judge.same": 1}
    assert report["prompt_tokens"] == 14 and [c["id"] for c in report["spot_checks"]] == ["b"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "judge m: 1 considered, 1 asked, 14 + 6 tokens" in lines and "  b: right (judge.same)" in lines
    assert any("vote" in line and "SAME" in line for line in lines) and max(map(len, lines[1:])) <= 80


def test_the_scorecard_fits_a_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(scorecard, "NAMES", ("exact",))  # the other baselines only cost time here
    pairs = [("1/2", "0.5", "right"), ("3", "4", "wrong")]
    rows = [
        {"id": str(i), "half": "held", "gold": g, "answer": a, "label": label} for i, (g, a, label) in enumerate(pairs)
    ]
    write(tmp_path / "hard_pairs.jsonl", rows)
    assert cli.main(["grade", "scorecard", "--data", str(tmp_path)]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert "hard_pairs (held back at first): 1 right, 1 wrong" in lines and max(map(len, lines)) <= 80
    assert any(line.split()[:4] == ["stratos", "2", "100.0", "%"] for line in lines)
    assert "measuring hard_pairs (held back at first): 2 pairs" in shown.err


def test_all_bad_lines_are_named_and_nothing_is_written(tmp_path, capsys):
    lines = [
        {"id": "fine", "code": GOOD, "tests": STDIN},
        "{not json",
        {"id": "no tests", "code": GOOD},
        "",
        {"id": "both", "code": GOOD, "response": GOOD, "tests": STDIN},
        "[1]",
    ]
    source, target = write(tmp_path / "in.jsonl", lines), tmp_path / "out.jsonl"
    assert cli.main(["grade", "code", "--in", source, "--out", str(target)]) == 2
    said = capsys.readouterr().err
    for line in ("line 2: not JSON", "line 3: `tests`", "line 5: wanted one of", "line 6: not a JSON object"):
        assert line in said
    assert not target.exists() and [p.name for p in tmp_path.iterdir()] == ["in.jsonl"]


def test_math_lines_are_checked_before_any_is_graded(tmp_path, capsys):
    lines = [{"id": "a", "gold": "1"}, {"gold": "1", "answer": "1"}, {"id": "c", "gold": "1", "answer": "1"}]
    source = write(tmp_path / "in.jsonl", lines)
    assert cli.main(["grade", "math", "--in", source, "--out", str(tmp_path / "o")]) == 2
    said = capsys.readouterr().err
    assert "line 1: wanted one of" in said and "line 2: `id` is missing" in said and "line 3" not in said


@pytest.mark.parametrize(
    "words, wanted",
    [
        (["grade", "code"], "--in is missing"),
        (["grade", "code", "--in", "x", "--out", "y", "--workers", "0"], "--workers"),
        (["grade", "math", "--in", "x", "--out", "y", "--judge-url", "u"], "belong together"),
        (["grade", "code", "--in", "x", "--out", "y", "--judge-url", "u", "--judge-model", "m"], "belongs to math"),
        (["grade", "code", "code.time_limit=1"], "did you mean 'time_limit_s'"),
        (["grade", "audit", "--in", "x", "--out", "y", "--backend", "ray"], "--backend local"),
        (["grade", "code", "--in", "x", "--out", "y", "--ray-address", "auto"], "--backend ray"),
        (["grade", "code", "--in", "absent.jsonl", "--out", "y"], "absent.jsonl"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(words, wanted, capsys):
    assert cli.main(words) == 2
    assert wanted in capsys.readouterr().err


def test_an_empty_file_gives_an_empty_file(tmp_path):
    target = tmp_path / "out.jsonl"
    assert cli.main(["grade", "code", "--in", write(tmp_path / "in.jsonl", []), "--out", str(target)]) == 0
    assert target.read_text() == ""


def test_audit_lists_what_to_exclude_and_why(tmp_path, capsys):
    call = {"kind": "call", "fn_name": "f", "cases": [{"args": [], "expected": [1, 2]}]}
    floats = {"kind": "stdin", "cases": [{"input": "", "output": "0.333333333"}]}
    records = [
        {"id": "good", "code": GOOD, "tests": STDIN},
        {"id": "fails", "code": BAD, "tests": STDIN},
        {"id": "any order", "code": "def f(): return [2, 1]", "tests": call},
        {"id": "floats", "code": "print(1 / 3)", "tests": floats},
        {"id": "declared", "code": "print(1 / 3)", "tests": floats, "checker": "floats"},
        {"id": "judge", "code": GOOD, "tests": STDIN, "problem": "If there are multiple answers, print any of them."},
        {"id": "crashes", "code": "1/0", "tests": STDIN},
        {"id": "no test", "code": "x = 1", "tests": {"kind": "assert", "code": "pass"}},
    ]
    target = tmp_path / "out.jsonl"
    words = ["grade", "audit", "--in", write(tmp_path / "in.jsonl", records), "--out", str(target), "--json"]
    assert cli.main(words) == 0
    found = {line["id"]: (line["keep"], line["reason"], line["detail"]) for line in read(target)}
    assert list(found) == [record["id"] for record in records]
    assert found["good"] == found["declared"] == (True, "audit.ok", "")
    assert found["fails"][:2] == (False, "audit.reference_fails") and "code.wrong_answer" in found["fails"][2]
    assert found["any order"] == (False, "audit.needs_checker", "unordered")
    assert found["floats"] == (False, "audit.needs_checker", "floats")
    assert found["judge"][:2] == (False, "audit.special_judge") and "print any" in found["judge"][2]
    assert "code.runtime_error" in found["crashes"][2]
    assert found["no test"] == (False, "audit.cannot_run", "unknown.bad_tests")
    assert json.loads(capsys.readouterr().out)["outcomes"] == {"kept": 2, "excluded": 6}
