"""`stratos show`: the resolved recipe, with where each value came from."""

import argparse
import json
import os
import sys

HELP = "print a recipe as it will run, and where each value comes from"
EXAMPLE = "stratos show configs/stratos_7b.py train.optimizer.peak_lr=2e-5"
MARK = {"default": "", "config": "config file", "override": "command line"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), such as configs/stratos_7b.py")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--json", action="store_true", help="one JSON object with recipe, hash and origins")
    parser.add_argument("--changed", action="store_true", help="only values that are not defaults")


def run(args: argparse.Namespace) -> int:
    """Print every leaf of the recipe."""
    from stratos_jax import config, recipe

    resolved, values = recipe.load(args.config, args.overrides)
    if args.json:
        print(json.dumps(config.as_json(resolved, values), indent=1))
        return 0
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    print(f"{args.config}  hash {config.config_hash(resolved)[:12]}")
    for value in values:
        if args.changed and value.origin == "default":
            continue
        note = f"  ({MARK[value.origin]})" if value.origin != "default" else ""
        line = f"  {value.name} = {_short(value.value)}{note}"
        print(f"\033[1m{line}\033[0m" if colour and note else line)
    return 0


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
