"""The README's tables are those that the code makes."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_readme_is_up_to_date():
    command = [sys.executable, "scripts/readme.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, f"run python scripts/readme.py\n{done.stdout}{done.stderr}"
