"""The command line as a person meets it: exit codes, one clear error each, no traceback."""

import os
import signal
import subprocess
import sys

import pytest

from stratos_jax import cli, verbs
from stratos_jax.types import UserError


def stratos(*words, **env):
    command = [sys.executable, "-m", "stratos_jax.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | env, timeout=300)


def test_overview_names_every_verb(capsys):
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert "show" in out and all(len(line) <= 100 for line in out.splitlines())


def test_unknown_verb_suggests(capsys):
    assert cli.main(["shwo"]) == 2
    assert "did you mean `stratos show`" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_of_a_verb_has_its_example(flag, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["show", flag])
    assert stop.value.code == 0
    assert "stratos show configs/" in capsys.readouterr().out


def test_a_user_error_is_one_message_and_exit_code_2():
    done = stratos("show", "configs/nothing.py")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: no such config file") and "Traceback" not in done.stderr
    assert "\033" not in done.stderr


def test_a_bug_is_a_traceback_and_exit_code_1(monkeypatch):
    def run(args):
        raise ValueError("ours")

    monkeypatch.setattr("stratos_jax.verbs.show.run", run)
    with pytest.raises(ValueError, match="ours"):
        cli.main(["show", "x"])


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys):
    def run(args):
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("stratos_jax.verbs.show.run", run)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background inherits "ignore"
    try:
        assert cli.main(["show", "configs/stratos_7b.py"]) == cli.INTERRUPTED
    finally:
        signal.signal(signal.SIGINT, before)
    assert "To go on: stratos show configs/stratos_7b.py" in capsys.readouterr().err


def test_colour_only_on_a_terminal_that_wants_it(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.delenv("NO_COLOR", raising=False)
    cli.complain(UserError("x"))
    monkeypatch.setenv("NO_COLOR", "1")
    cli.complain(UserError("x"))
    first, second = capsys.readouterr().err.splitlines()
    assert "\033[31m" in first and "\033" not in second


def test_verbs_is_a_package():
    assert list(verbs.__path__)
