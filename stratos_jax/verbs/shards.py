"""`stratos shards`: build the packed data set of a recipe, or look into one."""

import argparse
import json

HELP = "turn conversations into packed rows (build), or look at them (inspect)"
EXAMPLE = "stratos shards inspect runs/first/shards --rows 2"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    verbs = parser.add_subparsers(dest="action", required=True)
    build = verbs.add_parser("build", help="tokenize, mask, mix, pack and write")
    build.add_argument("config", help="a file with recipe(), such as configs/stratos_7b_17k.py")
    build.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    build.add_argument("--directory", required=True, help="folder to write, local or gs://")
    build.add_argument("--curated", help="output folder of `stratos curate`, where a source is 'curate'")
    build.add_argument("--tokenizer", help="folder of the tokenizer, where the recipe names none")
    build.add_argument("--workers", type=int, help="processes; all cores when left out")
    build.add_argument("--scratch", help="local folder in which a gs:// data set is built")
    build.add_argument("--json", action="store_true", help="one JSON object with the manifest's counts")
    look = verbs.add_parser("inspect", help="rows, statistics, and which samples a step sees")
    look.add_argument("directory", help="a built folder")
    look.add_argument("--rows", type=int, default=1, help="rows to show, decoded")
    look.add_argument("--first", type=int, default=0, help="first row to show")
    look.add_argument("--step", type=int, help="show which samples this step of the epoch sees")
    look.add_argument("--epoch", type=int, default=0, help="epoch of --step, from 0")
    look.add_argument("--rows-per-step", type=int, help="of the run asked about; or give --config")
    look.add_argument("--seed", type=int, help="of the run asked about; or give --config")
    look.add_argument("--config", help="take rows per step and seed from this recipe")
    look.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run one of the two."""
    return _build(args) if args.action == "build" else _inspect(args)


def _build(args: argparse.Namespace) -> int:
    from stratos_jax import recipe as recipes
    from stratos_jax import store
    from stratos_jax.shards import build, statistics

    recipe, _ = recipes.load(args.config, args.overrides)
    manifest = build.run(
        recipe.shards,
        args.directory,
        inputs={"curate": args.curated} if args.curated else {},
        tokenizer_dir=args.tokenizer or recipe.model.source or None,
        workers=args.workers,
        scratch_dir=args.scratch,
    )
    if args.json:
        print(json.dumps({"directory": args.directory, **manifest.counts}))
        return 0
    figures = json.loads(store.read_text(store.join(args.directory, build.STATISTICS)))
    print("\n".join([f"{args.directory}: complete", *statistics.lines(figures)]))
    return 0


def _inspect(args: argparse.Namespace) -> int:
    from stratos_jax.shards import inspect

    if args.step is not None:
        shown = inspect.step(args.directory, args.step, args.epoch, *_run_settings(args))
        print(json.dumps(shown) if args.json else "\n".join(inspect.step_lines(shown)))
        return 0
    if args.json:
        print(json.dumps(inspect.rows(args.directory, args.first, args.rows)))
        return 0
    print("\n".join(inspect.lines(args.directory, args.first, args.rows)))
    return 0


def _run_settings(args: argparse.Namespace) -> tuple[int | None, int]:
    """Rows per step and seed of the run that is asked about."""
    from stratos_jax import recipe as recipes
    from stratos_jax.train.config import TrainConfig

    train = recipes.load(args.config)[0].train if args.config else TrainConfig(rows_per_step=args.rows_per_step or 1)
    chosen = train.rows_per_step if args.config and args.rows_per_step is None else args.rows_per_step
    return chosen, train.seed if args.seed is None else args.seed
