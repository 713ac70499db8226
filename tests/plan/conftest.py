"""One cache of compilations for all tests of a run, and the verb as a user calls it."""

import os
import subprocess
import sys

import pytest
from plan_small import PATIENCE, SMALL


@pytest.fixture(scope="session")
def plan_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("plans")


@pytest.fixture(scope="session")
def asked(plan_cache):
    """`stratos plan plan_small.py WORDS` in a process of its own."""

    def ask(*words):
        command = [sys.executable, "-m", "stratos_jax.cli", "plan", str(SMALL), "--cache", str(plan_cache), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, env=dict(os.environ))

    return ask
