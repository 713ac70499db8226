"""`stratos train`: trains the student of a recipe on its shards; run again, it goes on from where it stopped."""

import argparse
import json
import sys

HELP = "train the student on packed shards; the same command again goes on"
EXAMPLE = "stratos train configs/quickstart.py --dir runs/quickstart"


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe()")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--dir", required=True, help="the run's folder: reads shards/ in it, writes train/")
    parser.add_argument("--shards", help="another folder of shards (default: DIR/shards), local or gs://")
    parser.add_argument("--coordinator", help="address:port of process 0, for plain processes without a scheduler")
    parser.add_argument("--num-hosts", type=int, help="processes of the run, with --coordinator")
    parser.add_argument("--host", type=int, help="number of this process, with --coordinator")
    parser.add_argument("--json", action="store_true", help="print the counts of the finished run as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Join the other hosts, train, and turn how it ended into an exit code."""
    from stratos_jax import recipe as recipes
    from stratos_jax import store
    from stratos_jax.convert.load import load_hf_params
    from stratos_jax.evaluate.during import make_sampler
    from stratos_jax.mesh import cores
    from stratos_jax.mesh import hosts as mesh_hosts

    recipe, _ = recipes.load(args.config, args.overrides)
    rendezvous = _rendezvous(args)
    if rendezvous is None:
        cores.one_device_per_core([recipe.train.rows_per_step])
    hosts = mesh_hosts.start(rendezvous, seconds=recipe.mesh.start_seconds, silence=recipe.mesh.silence_seconds)
    from stratos_jax.train import loop

    shards = args.shards or store.join(args.dir, "shards")
    held_out = store.join(args.dir, "curate", "held_out.jsonl") if recipe.curate is not None else None
    body = lambda: loop.run(
        recipe.train,
        recipe.mesh,
        recipe.model,
        shards_dir=shards,
        directory=store.join(args.dir, "train"),
        load_initial=load_hf_params,
        hosts=hosts,
        recipe=recipe,
        sample=make_sampler(recipe.train, recipe.evaluate, recipe.engine, shards_dir=shards, held_out=held_out),
    )
    manifest = mesh_hosts.guard(hosts, body, early=loop.Preempted)
    if args.json and hosts.is_primary:
        print(json.dumps({"config_hash": manifest.config_hash, **manifest.counts}))
    elif hosts.is_primary:
        print(f"trained: {manifest.counts['steps']} steps", file=sys.stderr)
    return 0


def _rendezvous(args: argparse.Namespace):
    from stratos_jax.mesh.hosts import Rendezvous
    from stratos_jax.types import UserError

    given = [args.coordinator, args.num_hosts, args.host]
    if all(value is None for value in given):
        return None
    if any(value is None for value in given):
        raise UserError("--coordinator, --num-hosts and --host go together", do="give all three, or none")
    return Rendezvous(coordinator=args.coordinator, num_hosts=args.num_hosts, host=args.host)
