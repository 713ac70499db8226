"""`stratos evaluate`: samples, verdicts and scores of a model in an HF folder."""

import argparse
import json
import os

HELP = "sample a model on a recipe's tasks, grade the samples, and report scores with intervals"
EXAMPLE = "stratos evaluate configs/quickstart.py --model MODEL --problems held_out.jsonl --dir OUT"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), for its tasks, sampling and engine")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--model", required=True, help="an HF folder")
    parser.add_argument("--problems", help="JSONL of problems, where a task's path is 'curate'")
    parser.add_argument("--dir", required=True, help="folder to write")
    parser.add_argument("--json", action="store_true", help="report.json as one JSON object")


def run(args: argparse.Namespace) -> None:
    """Run the stage by itself."""
    from stratos_jax import recipe as recipes
    from stratos_jax import store
    from stratos_jax.evaluate import stage
    from stratos_jax.verbs._display import Display

    recipe, _ = recipes.load(args.config, args.overrides)
    with Display(recipe.name).stage("evaluate") as progress:
        stage.run(
            recipe.evaluate,
            recipe.engine,
            args.dir,
            model_dir=args.model,
            held_out=args.problems,
            progress=progress,
        )
    report = json.loads(store.read_text(os.path.join(args.dir, stage.REPORT)))
    if args.json:
        print(json.dumps(report))
        return
    for name, task in report["tasks"].items():
        print(f"{name}: {line(task['score'])}")
        for group, values in task["by"].items():
            for value, score in values.items():
                print(f"  {group} {value}: {line(score)}")


def line(score: dict) -> str:
    """A score in one line."""
    text = f"{score['value']:.1%} ({score['low']:.1%} to {score['high']:.1%}), {score['right']} of {score['samples']}"
    return f"{text}, {score['unknown']} could not be graded" if score["unknown"] else text
