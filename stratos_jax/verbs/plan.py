"""`stratos plan`: will it fit, how long will it take, what will it cost; asked of the TPU compiler, with no TPU."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import time

HELP = "say whether a recipe fits a TPU slice, how long it takes and what it costs"
EXAMPLE = "stratos plan configs/stratos_32b_17k.py --topology v5p:4x4x4"
DOES_NOT_FIT = 3


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), such as configs/stratos_7b.py")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--topology", help="e.g. v5p:4x4x4; default: the recipe's launch.topology")
    parser.add_argument("--slices", type=int, help="how many slices of it; default: the recipe's")
    parser.add_argument(
        "--rows", type=int, help="rows of the shards, for hours and dollars; default: launch.expected_rows"
    )
    parser.add_argument("--usd-per-chip-hour", type=float, help="your price instead of the list price")
    parser.add_argument("--search", action="store_true", help="try remat policies and meshes, and --topologies")
    parser.add_argument("--topologies", help="with --search: names, separated by commas")
    parser.add_argument("--budget-usd", type=float, help="with --search: leave out what costs more")
    parser.add_argument("--deadline-hours", type=float, help="with --search: leave out what takes longer")
    parser.add_argument("--plot", help="with --search: write cost against time to this PNG")
    parser.add_argument("--calibrate", metavar="RUN_DIR", help="compare with a finished run and remember the ratio")
    parser.add_argument("--explain", action="store_true", help="one sentence on each figure")
    parser.add_argument("--cache", help="folder of earlier compilations; default: ~/.cache/stratos_jax/plans")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Plan, print, and exit 3 where it does not fit."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # compile-only devices; an accelerator here is left alone
    from stratos_jax import recipe as recipes
    from stratos_jax.plan import cache, calibrate, planner, report, search, target
    from stratos_jax.plan.program import Job

    recipe, _ = recipes.load(args.config, args.overrides)
    name = args.topology or recipe.launch.topology
    topology = target.parse(name, args.slices or recipe.launch.num_slices)
    folder = pathlib.Path(args.cache) if args.cache else cache.DEFAULT
    question = planner.Question(
        job=Job(model=recipe.model, mesh=recipe.mesh, train=recipe.train, row_tokens=recipe.shards.row_tokens),
        topology=topology,
        num_rows=args.rows if args.rows is not None else recipe.launch.expected_rows,
        usd_per_chip_hour=args.usd_per_chip_hour,
        ratio=calibrate.ratio_of(topology.chip.name, folder),
    )
    with quiet_compiler():
        if args.search:
            limits = search.Limits(usd=args.budget_usd, hours=args.deadline_hours)
            topologies = [target.parse(n, topology.num_slices) for n in (args.topologies or name).split(",")]
            return search.show(search.search(question, topologies, limits, folder, say), args)
        result = planner.plan(question, folder=folder, say=say)
        if args.calibrate:
            result = calibrate.compare(result, args.calibrate, topology.chip.name, folder)
    print(json.dumps(report.to_plain(result)) if args.json else "\n".join(report.lines(result, explain=args.explain)))
    return 0 if result.fits else DOES_NOT_FIT


def say(text: str) -> None:
    """Progress, with the time of day, so that a waiting person sees that something moves."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def quiet_compiler():
    """Keep the compiler's own log lines, which come from C++, off the terminal; ours go on."""
    ours = sys.stderr
    keep = os.dup(2)
    with open(os.devnull, "w") as nowhere, os.fdopen(os.dup(keep), "w", buffering=1) as terminal:
        sys.stderr = terminal
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(keep, 2)
            os.close(keep)
            sys.stderr = ours
