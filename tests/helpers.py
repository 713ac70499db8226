"""Shared by tests: where the optional public data lies."""

import os
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_data_dir() -> pathlib.Path | None:
    """The folder with public data sets, or None where it is absent."""
    folder = pathlib.Path(os.environ.get("STRATOS_TEST_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


test_data_dir.__test__ = False  # pyright: ignore[reportFunctionMemberAccess]  (its name is not a test's)
