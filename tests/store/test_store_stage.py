"""Manifests, and stages that are killed, repeated, changed and raced."""

import json
import os
import signal
import subprocess
import sys

import pytest

from stratos_jax import cli, store
from stratos_jax.store import manifest, stage
from stratos_jax.types import UserError


def body(folder):
    """A stage with two files."""
    store.write_text(folder / "a.txt", "one")
    store.write_text(folder / "sub/b.txt", "two")
    return {"rows": 2}


def run(folder, *, config=None, inputs=None, resume=False, work=body):
    return stage.run_stage("test", config or {"seed": 1}, folder, inputs or {}, work, resume=resume)


def test_a_stage_runs_once(tmp_path):
    calls = []
    first = run(tmp_path / "s", work=lambda folder: calls.append(1) or body(folder))
    again = run(tmp_path / "s", work=lambda folder: calls.append(1) or body(folder))
    assert first == again == manifest.read_manifest(tmp_path / "s") and calls == [1]
    assert first.counts == {"rows": 2} and [file.path for file in first.files] == ["a.txt", "sub/b.txt"]
    assert sorted(os.listdir(tmp_path / "s")) == ["a.txt", "manifest.json", "sub"]


def test_another_config_or_input_is_refused_and_both_are_shown(tmp_path):
    run(tmp_path / "s", inputs={"in": "0" * 64})
    with pytest.raises(UserError, match="config.seed: there 1, now 2"):
        run(tmp_path / "s", config={"seed": 2}, inputs={"in": "0" * 64})
    with pytest.raises(UserError, match="inputs.in"):
        run(tmp_path / "s", inputs={"in": "1" * 64})


def test_inputs_by_file_by_folder_and_by_manifest(tmp_path):
    made = run(tmp_path / "s")
    assert stage.input_hash(tmp_path / "s") == stage.input_hash(made) == made.content_hash()
    store.write_text(tmp_path / "f", "abc")
    assert stage.input_hash(tmp_path / "f").startswith("ba7816bf")
    (tmp_path / "half").mkdir()
    with pytest.raises(UserError, match="no manifest"):
        stage.input_hash(tmp_path / "half")
    with pytest.raises(store.Missing):
        stage.input_hash(tmp_path / "nothing")


KILLED = """
import os, signal, sys
from stratos_jax import store
def body(folder):
    store.write_text(folder / "part.txt", "half")
    (folder / ".tmp-left-over").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
store.stage.run_stage("test", {"seed": 1}, sys.argv[1], {}, body)
"""


@pytest.mark.parametrize("resume", [False, True])
def test_a_killed_stage_starts_clean_or_goes_on(tmp_path, resume):
    ran = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s")], check=False)
    assert ran.returncode == -signal.SIGKILL
    assert manifest.read_manifest(tmp_path / "s") is None and manifest.verify(tmp_path / "s")
    seen = []
    made = run(tmp_path / "s", resume=resume, work=lambda folder: seen.extend(os.listdir(folder)) or body(folder))
    assert sorted(seen) == ([".stage.json", "part.txt"] if resume else [".stage.json"])
    assert "part.txt" in [file.path for file in made.files] if resume else len(made.files) == 2


def test_half_done_work_of_another_config_is_not_gone_on_with(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "s")], check=False)
    with pytest.raises(UserError, match="half-done work of another run"):
        run(tmp_path / "s", config={"seed": 2}, resume=True)
    assert run(tmp_path / "s", config={"seed": 2}).config == {"seed": 2}


def test_a_folder_of_somebody_else_is_left_alone(tmp_path):
    store.write_text(tmp_path / "s/thesis.tex", "years of work")
    with pytest.raises(UserError, match="no stage began"):
        run(tmp_path / "s")
    assert store.read_text(tmp_path / "s/thesis.tex") == "years of work"


def test_two_runs_at_once(tmp_path):
    with pytest.raises(UserError, match="another process"):
        run(tmp_path / "s", work=lambda folder: run(folder))


@pytest.mark.parametrize("spoil", ["delete", "add", "longer", "same size"])
def test_verify_finds_every_change(tmp_path, spoil, capsys):
    run(tmp_path / "s")
    target = tmp_path / "s/a.txt"
    {
        "delete": lambda: target.unlink(),
        "add": lambda: (tmp_path / "s/c.txt").write_text(""),
        "longer": lambda: target.write_text("one!"),
        "same size": lambda: target.write_text("eno"),
    }[spoil]()
    quick, deep = manifest.verify(tmp_path / "s"), manifest.verify(tmp_path / "s", deep=True)
    assert len(deep) == 1 and bool(quick) == (spoil != "same size")
    assert cli.main(["verify", str(tmp_path / "s"), "--deep"]) == 2
    assert "is not what its manifest says" in capsys.readouterr().err
    if spoil != "same size":
        with pytest.raises(UserError, match="have changed since"):
            run(tmp_path / "s")


def test_verify_verb(tmp_path, capsys):
    made = run(tmp_path / "s")
    assert cli.main(["verify", str(tmp_path / "s"), "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["ok"] and figures["files"] == 2 and figures["content_hash"] == made.content_hash()
    assert cli.main(["verify", str(tmp_path / "s")]) == 0
    assert cli.main(["verify", str(tmp_path / "nothing")]) == 2
    (tmp_path / "s/manifest.json").unlink()
    assert cli.main(["verify", str(tmp_path / "s"), "--json"]) == 2
    assert "manifest.json: missing" in capsys.readouterr().out


def test_a_stage_may_have_a_check_of_its_own(tmp_path, monkeypatch, capsys):
    from stratos_jax.verbs import verify

    run(tmp_path / "s")
    module = tmp_path / "check_of_test.py"
    module.write_text("def check(url, *, deep):\n    return [f'wrong, deep={deep}']\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(verify.CHECKS, "test", "check_of_test:check")
    assert cli.main(["verify", str(tmp_path / "s"), "--deep"]) == 2
    assert "wrong, deep=True" in capsys.readouterr().err


def test_a_manifest_that_is_no_manifest(tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        manifest.read_manifest(tmp_path)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="Manifest.stage: missing"):
        manifest.read_manifest(tmp_path)
