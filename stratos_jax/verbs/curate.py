"""`stratos curate`: problems, a teacher, verdicts, a data set."""

import argparse
import json

HELP = "ask a teacher, verify its answers, and write the data set with its card"
EXAMPLE = "stratos curate configs/quickstart.py --dir runs/quickstart"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), such as configs/quickstart.py")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--dir", required=True, help="the run's folder: writes curate/ in it, and answers/ beside that")
    parser.add_argument("--json", action="store_true", help="one JSON object with the counts")


def run(args: argparse.Namespace) -> None:
    """Run the stage by itself."""
    import pathlib

    from stratos_jax import recipe as recipes
    from stratos_jax.curate import stage
    from stratos_jax.types import UserError
    from stratos_jax.verbs._display import Display

    recipe, _ = recipes.load(args.config, args.overrides)
    if recipe.curate is None:
        raise UserError("this recipe does not curate", where=args.config, do="its shards name the data set they read")
    folder = pathlib.Path(args.dir)
    with Display(recipe.name).stage("curate") as progress:
        manifest = stage.run(recipe.curate, folder / "curate", answers_dir=folder / "answers", progress=progress)
    if args.json:
        print(json.dumps({"directory": str(folder / "curate"), **manifest.counts}))
        return
    print(f"{folder / 'curate'}: complete")
    for name, value in manifest.counts.items():
        print(f"  {name.replace('_', ' ')}: {value:,}")
