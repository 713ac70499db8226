"""Every config still compiles for its topology, and needs what the committed figures say, to 2 %."""

import importlib.util
import json
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = sorted((ROOT / "tests/golden/plan").glob("*.json"))
OWN = [path for path in GOLDEN if "@" not in path.stem]  # figures for the config's own row length
COMPARED = (
    "hbm_arguments_gib",
    "hbm_temporaries_gib",
    "hbm_peak_gib",
    "wire_gib",
    "estimated_cycles",
    "attention_tflops",
)

spec = importlib.util.spec_from_file_location("plans", ROOT / "scripts/plans.py")
assert spec is not None and spec.loader is not None
plans = importlib.util.module_from_spec(spec)
spec.loader.exec_module(plans)


def test_golden_figures_are_of_configs():
    assert {"stratos_7b", "stratos_32b"} <= {path.stem for path in OWN} <= {path.stem for path in plans.configs()}


def test_the_page_is_made_of_the_golden_figures():
    assert plans.PAGE.read_text() == plans.page(), "run python scripts/plans.py"


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.stem)
def test_the_docstring_says_what_the_plan_says(path):
    assert plans.chips_line(json.loads(path.read_text())) in (ROOT / "configs" / f"{path.stem}.py").read_text()


@pytest.mark.slow
@pytest.mark.tpu_compiler
@pytest.mark.parametrize("path", GOLDEN, ids=lambda p: p.stem)
def test_golden_plan(path):
    golden = json.loads(path.read_text())
    if plans.older(golden):
        pytest.skip("starred in docs/plans.md: made from older code than the newest figures")
    now = plans.figures(ROOT / "configs" / f"{golden['config']}.py", golden["row_tokens"])
    assert (now["fits"], now["mesh"], now["remat"]) == (golden["fits"], golden["mesh"], golden["remat"])
    names = COMPARED if golden["fits"] else ("hbm_needed_gib",)
    changed = {k: (golden[k], now[k]) for k in names if abs(now[k] - golden[k]) > 0.02 * max(abs(golden[k]), 1e-9)}
    assert not changed, f"review, then run python scripts/plans.py configs/{golden['config']}.py: {changed}"
