"""Plans every config on its own topology with the TPU compiler.

Writes golden figures, the table of docs/plans.md, and the line "Chips:" of each config's docstring.

usage: python scripts/plans.py [CONFIG ...]       default: all configs with a topology, at 16k and 32k tokens
       python scripts/plans.py --missing          those that have no golden figures yet
       python scripts/plans.py --pages            the pages alone, from the golden figures
"""

import json
import os
import pathlib
import re
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ["JAX_PLATFORMS"] = "cpu"

from stratos_jax import recipe as recipes  # noqa: E402
from stratos_jax.plan import cache, planner, report, target  # noqa: E402
from stratos_jax.plan.estimate import PUBLISHED  # noqa: E402
from stratos_jax.plan.program import Job  # noqa: E402
from stratos_jax.verbs.plan import quiet_compiler, say  # noqa: E402

LENGTHS = (16_384, 32_768)
GOLDEN = ROOT / "tests/golden/plan"
PAGE = ROOT / "docs/plans.md"
KEPT = (  # what a change of more than 2 % is shown of
    *("fits", "topology", "mesh", "remat", "rows_per_step", "row_tokens", "hbm_needed_gib", "hbm_limit_gib"),
    *("hbm_arguments_gib", "hbm_temporaries_gib", "hbm_peak_gib", "host_gib", "estimated_cycles", "attention_tflops"),
    *("wire_gib", "wire_async_gib", "dcn_gib", "step_seconds", "tokens_per_second_per_chip", "mfu", "hours", "usd"),
)
HEAD = """# What each config needs, by the TPU compiler

Made by `python scripts/plans.py`; `tests/plan/test_plan_golden.py` keeps it true. Nothing here was measured on a TPU.
Memory is the compiler's. The step time is its cycle estimates and the links' speed times {ratio}
({source}), good to about {error:.0%}.
Dollars are list prices of the table in `stratos_jax/plan/chips.json`; a kind of chip without a price there gets none.

Rows of a config's own length come first. At the other length the step has as many rows, so other work, and hours are
left open; they are open too where a config's data is not public. A config without a row has not been compiled yet:
`python scripts/plans.py --missing` does that. A star: compiled from older code of the step than the newest row, so
memory and time are of that code; `python scripts/plans.py configs/NAME.py` renews it.

| config | row tokens | topology | mesh data/fsdp/context/tensor | remat | peak HBM, GiB | step, s | MFU | hours | USD |
|---|---|---|---|---|---|---|---|---|---|
"""
TAIL = """
## What else can be asked

```bash
stratos plan configs/stratos_32b.py --topology v6e:4x4            # refused, exit code 3; a change that fits is named
stratos plan configs/stratos_32b.py --topology v6e:4x4 --check    # ... and compiled before it is named
stratos plan configs/stratos_7b.py --search --topologies v5e:8x8,v6e:4x4 --plot front.png
stratos plan configs/stratos_7b.py --what decode --topology v6e:1x1 engine.batch_size=4
stratos plan configs/stratos_7b.py --what evaluate --topology v6e:1x1 --roofline 0.4
stratos plan configs/stratos_7b.py --topology h100:8              # GPUs: an analytic estimate, and marked as one
stratos plan configs/stratos_7b.py --calibrate RUN_DIR            # the ratio of a real run to its estimate, kept
stratos plan configs/stratos_7b.py --explain
```

The change that is named for a refused run is found by arithmetic on the memory (`stratos_jax/plan/guess.py`), with 15%
of the limit left free; `tests/plan/test_plan_guess.py` holds that arithmetic to 25% of the compiler's peak on every
program of the table. On the chips `train.remat=auto` is decided by another arithmetic, of the trainer: the plan says
which `train.remat=` makes the run the very step that was planned. The sampler keeps a model on one device; decode plans
are of one device, whatever the slice. A second plan of the same program comes from a cache and loads neither jax nor
the compiler.
"""


def question(path: pathlib.Path, row_tokens: int) -> planner.Question:
    """A config on the topology that it names; hours only for rows of its own length."""
    recipe, _ = recipes.load(path)
    own = row_tokens == recipe.shards.row_tokens
    return planner.Question(
        job=Job(model=recipe.model, mesh=recipe.mesh, train=recipe.train, row_tokens=row_tokens),
        topology=target.parse(recipe.launch.topology, recipe.launch.num_slices),
        num_rows=recipe.launch.expected_rows if own else None,
    )


def configs() -> list[pathlib.Path]:
    """Those with a topology, one of each group that trains the same."""
    paths = sorted((ROOT / "configs").glob("*.py"))
    return [path for path in paths if recipes.load(path)[0].launch.topology]


def golden_of(path: pathlib.Path, row_tokens: int) -> pathlib.Path:
    """Where the figures stand: CONFIG.json for its own length, CONFIG@TOKENS.json for the other."""
    own = recipes.load(path)[0].shards.row_tokens
    return GOLDEN / (f"{path.stem}.json" if row_tokens == own else f"{path.stem}@{row_tokens}.json")


def figures(path: pathlib.Path, row_tokens: int) -> dict:
    """The golden figures of a config, compiled now or recalled."""
    result = planner.plan(question(path, row_tokens), folder=cache.DEFAULT, say=say)
    plain = report.to_plain(result)
    kept = {name: plain[name] for name in KEPT if name in plain}
    made = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
    return kept | {"config": path.stem, "row_tokens": row_tokens, "code": cache.code_of_a_step()[:12], "made": made}


def older(plan: dict) -> bool:
    """Whether a plan was compiled from other code than the newest one."""
    newest = max(goldens(), key=lambda other: other.get("made", ""))
    return plan.get("code") != newest.get("code")


def row(plan: dict) -> str:
    """One line of the table."""
    head = f"| {plan['config']}{' *' * older(plan)} | {plan['row_tokens']:,} | {plan['topology']}"
    mesh = "/".join(str(plan["mesh"][axis]) for axis in ("data", "fsdp", "context", "tensor"))
    if not plan["fits"]:
        return f"{head} | {mesh} | {plan['remat']} | does not fit | - | - | - | - |"
    hours = "-" if plan["hours"] is None else f"{plan['hours']:.1f}"
    usd = "-" if plan["usd"] is None else f"{plan['usd']:,.0f}"
    figures = f"{plan['hbm_peak_gib']:.1f} | {plan['step_seconds']:.2f} | {plan['mfu']:.1%} | {hours} | {usd}"
    return f"{head} | {mesh} | {plan['remat']} | {figures} |"


def goldens() -> list[dict]:
    """All golden figures, own lengths first."""
    paths = sorted(GOLDEN.glob("*.json"), key=lambda path: ("@" in path.stem, path.stem))
    return [json.loads(path.read_text()) for path in paths]


def page() -> str:
    """The table from the golden files."""
    head = HEAD.format(ratio=PUBLISHED.value, source=PUBLISHED.source, error=PUBLISHED.error)
    return head + "\n".join(map(row, goldens())) + "\n" + TAIL


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
    for golden in sorted(path for path in GOLDEN.glob("*.json") if "@" not in path.stem):
        line, path = chips_line(json.loads(golden.read_text())), ROOT / "configs" / f"{golden.stem}.py"
        path.write_text(re.sub(r"^Chips: .*$", lambda _, line=line: line, path.read_text(), count=1, flags=re.M))
    PAGE.write_text(page())


def main() -> None:
    """Plan, write, print."""
    words = [word for word in sys.argv[1:] if not word.startswith("--")]
    chosen = [] if "--pages" in sys.argv else [pathlib.Path(word) for word in words] or configs()
    wanted = [(path, length, golden_of(path, length)) for path in chosen for length in LENGTHS]
    wanted.sort(key=lambda job: "@" in job[2].stem)  # own lengths first
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for path, length, golden in wanted:
        if "--missing" in sys.argv and golden.exists():
            continue
        with quiet_compiler():
            found = figures(path, length)
        golden.write_text(json.dumps(found, indent=1) + "\n")
        print(row(found), flush=True)
    write_pages()


if __name__ == "__main__":
    main()
