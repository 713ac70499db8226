"""Plans every config on its own topology with the TPU compiler.

Writes golden figures, the table of docs/plans.md, and the line "Chips:" of each config's docstring.

usage: python scripts/plans.py [CONFIG ...]      default: all configs with a topology
       python scripts/plans.py --pages           the pages alone, from the golden figures
"""

import json
import os
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["JAX_PLATFORMS"] = "cpu"

from stratos_jax import recipe as recipes  # noqa: E402
from stratos_jax.plan import cache, planner, report, target  # noqa: E402
from stratos_jax.plan.estimate import PUBLISHED  # noqa: E402
from stratos_jax.plan.program import Job  # noqa: E402
from stratos_jax.verbs.plan import quiet_compiler, say  # noqa: E402

GOLDEN = ROOT / "tests/golden/plan"
PAGE = ROOT / "docs/plans.md"
KEPT = (  # what a change of more than 2 % is shown of
    *("fits", "topology", "mesh", "remat", "rows_per_step", "row_tokens"),
    *("hbm_arguments_gib", "hbm_temporaries_gib", "hbm_peak_gib", "host_gib", "estimated_cycles", "attention_tflops"),
    *("wire_gib", "wire_async_gib", "dcn_gib", "step_seconds", "tokens_per_second_per_chip", "mfu", "hours", "usd"),
)
HEAD = """# What each config needs, by the TPU compiler

Made by `python scripts/plans.py`; `tests/plan/test_plan_golden.py` keeps it true. Nothing here was measured on a TPU:
memory is the compiler's, the step time is its cycle estimates and the links' speed times {ratio} ({source}), good to
about {error:.0%}. Dollars are list prices of the table in `stratos_jax/plan/chips.json`.

| config | topology | mesh data/fsdp/context/tensor | remat | peak HBM, GiB | step, s | MFU | hours | USD |
|---|---|---|---|---|---|---|---|---|
"""


def question(path: pathlib.Path) -> planner.Question:
    """A config on the topology that it names."""
    recipe, _ = recipes.load(path)
    return planner.Question(
        job=Job(model=recipe.model, mesh=recipe.mesh, train=recipe.train, row_tokens=recipe.shards.row_tokens),
        topology=target.parse(recipe.launch.topology, recipe.launch.num_slices),
        num_rows=recipe.launch.expected_rows,
    )


def configs() -> list[pathlib.Path]:
    """Those with a topology, one of each group that trains the same."""
    paths = sorted((ROOT / "configs").glob("*.py"))
    return [path for path in paths if recipes.load(path)[0].launch.topology]


def figures(path: pathlib.Path) -> dict:
    """The golden figures of a config, compiled now or recalled."""
    result = planner.plan(question(path), folder=cache.DEFAULT, say=say, find_remedy=False)
    plain = report.to_plain(result)
    return {name: plain[name] for name in KEPT if name in plain} | {"config": path.stem}


def row(plan: dict) -> str:
    """One line of the table."""
    if not plan["fits"]:
        return f"| {plan['config']} | {plan['topology']} | - | - | does not fit | - | - | - | - |"
    mesh = "/".join(str(plan["mesh"][axis]) for axis in ("data", "fsdp", "context", "tensor"))
    hours = "-" if plan["hours"] is None else f"{plan['hours']:.1f}"
    usd = "-" if plan["usd"] is None else f"{plan['usd']:,.0f}"
    figures = f"{plan['hbm_peak_gib']:.1f} | {plan['step_seconds']:.2f} | {plan['mfu']:.1%} | {hours} | {usd}"
    return f"| {plan['config']} | {plan['topology']} | {mesh} | {plan['remat']} | {figures} |"


def page() -> str:
    """The table from the golden files."""
    head = HEAD.format(ratio=PUBLISHED.value, source=PUBLISHED.source, error=PUBLISHED.error)
    plans = [json.loads(path.read_text()) for path in sorted(GOLDEN.glob("*.json"))]
    return head + "\n".join(map(row, plans)) + "\n"


def chips_line(plan: dict) -> str:
    """What a config's docstring says of chips, hours and cost."""
    topology = target.parse(plan["topology"])
    text = f"Chips:    {plan['topology']} ({topology.num_chips} chips)"
    if not plan["fits"]:
        return f"{text}; `stratos plan` says that it does not fit"
    if plan["hours"] is None:
        return f"{text}, {plan['step_seconds']:.1f} s a step by `stratos plan`"
    cost = "" if plan["usd"] is None else f", ${plan['usd']:,.0f}"
    return f"{text}, {plan['hours']:.1f} hours{cost} by `stratos plan`"


def write_pages() -> None:
    """The table and the configs' docstrings, from the golden files."""
    for golden in sorted(GOLDEN.glob("*.json")):
        line, path = chips_line(json.loads(golden.read_text())), ROOT / "configs" / f"{golden.stem}.py"
        path.write_text(re.sub(r"^Chips: .*$", lambda _, line=line: line, path.read_text(), count=1, flags=re.M))
    PAGE.write_text(page())


def main() -> None:
    """Plan, write, print."""
    words = [word for word in sys.argv[1:] if word != "--pages"]
    chosen = [] if "--pages" in sys.argv else [pathlib.Path(word) for word in words] or configs()
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path in chosen:
        with quiet_compiler():
            found = figures(path)
        (GOLDEN / f"{path.stem}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(row(found), flush=True)
    write_pages()


if __name__ == "__main__":
    main()
