"""`stratos run`: all stages of a recipe, from problems to the report; run again, it goes on."""

import argparse
import json
import pathlib
import sys

HELP = "run a recipe's stages in order; the same command again goes on where it stopped"
EXAMPLE = "stratos run configs/quickstart.py --dir runs/quickstart"
STAGES = ("curate", "shards", "train", "convert", "evaluate", "report")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), such as configs/quickstart.py")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--dir", help="folder of the run; runs/NAME when left out")
    parser.add_argument(
        "--from", dest="start", default="", metavar="STAGE", help=f"make anew from here: {', '.join(STAGES)}"
    )
    parser.add_argument("--to", dest="end", default="", metavar="STAGE", help="stop after this stage")
    parser.add_argument("--json", action="store_true", help="the report as one JSON object on stdout")


def run(args: argparse.Namespace) -> int:
    """Run the stages."""
    from stratos_jax import pipeline
    from stratos_jax import recipe as recipes
    from stratos_jax.mesh import cores
    from stratos_jax.verbs._display import Display

    recipe, _ = recipes.load(args.config, args.overrides)
    arms = [recipe.arm(arm.name) for arm in recipe.arms] or [recipe]
    cores.one_device_per_core(arm.train.rows_per_step for arm in arms)
    folder = pathlib.Path(args.dir or pathlib.Path("runs") / recipe.name)
    from stratos_jax.train.loop import Preempted

    try:
        result = pipeline.run(recipe, folder, Display(recipe.name), start=args.start, end=args.end)
    except Preempted as stopped:
        print(f"{stopped}", file=sys.stderr)
        return 42
    if result.suffix != ".html":
        return 0
    report = json.loads((folder / "report.json").read_text())
    if args.json:
        print(json.dumps(report))
        return 0
    for name, value in report["accuracy"].items():
        low, high = report["intervals"][name]
        count = report["counts"][name]["problems"]
        print(f"{name}: {value:.1%} right ({low:.1%} to {high:.1%}) of {count} held-out problems")
    print(f"report: {result}")
    return 0
