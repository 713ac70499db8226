"""`stratos plan`: will it fit, how long will it take, what will it cost; asked of the TPU compiler, with no TPU."""

import argparse
import contextlib
import json
import os
import pathlib
import sys
import threading
import time
from typing import Any

HELP = "say whether a recipe fits a TPU slice, how long it takes and what it costs"
EXAMPLE = "stratos plan configs/stratos_32b_17k.py --topology v5p:4x4x4"
DOES_NOT_FIT = 3
LAST: dict[str, float] = {}  # when something was said
CLEAR = "\r\x1b[K"  # to the start of the line, and nothing after it
WHAT = ("train", "prefill", "decode", "evaluate", "convert")


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("config", help="a file with recipe(), such as configs/stratos_7b.py")
    parser.add_argument("overrides", nargs="*", metavar="NAME=VALUE", help="dotted overrides")
    parser.add_argument("--topology", help="e.g. v5p:4x4x4, or h100:8; default: the recipe's launch.topology")
    parser.add_argument("--slices", type=int, help="how many slices of it; default: the recipe's")
    parser.add_argument("--what", choices=WHAT, default="train", help="which part of the work; default: train")
    parser.add_argument(
        "--rows", type=int, help="rows of the shards, for hours and dollars; default: launch.expected_rows"
    )
    parser.add_argument("--usd-per-chip-hour", type=float, help="your price instead of the list price")
    parser.add_argument("--prompt-tokens", type=int, default=1024, help="of --what prefill, decode and evaluate")
    parser.add_argument("--answer-tokens", type=int, help="of --what evaluate; default: assumed for each benchmark")
    parser.add_argument("--roofline", type=float, default=0.4, help="share of full speed for evaluate and convert")
    parser.add_argument("--disk-gb-s", type=float, default=0.5, help="speed of the disk, for --what convert")
    parser.add_argument("--search", action="store_true", help="try remat policies and meshes, and --topologies")
    parser.add_argument("--topologies", help="with --search: names, separated by commas")
    parser.add_argument("--row-tokens", help="with --search: row lengths, separated by commas")
    parser.add_argument("--budget-usd", type=float, help="with --search: leave out what costs more")
    parser.add_argument("--deadline-hours", type=float, help="with --search: leave out what takes longer")
    parser.add_argument("--plot", help="with --search: write cost against time to this PNG")
    parser.add_argument("--calibrate", metavar="RUN_DIR", help="compare with a finished run and remember the ratio")
    parser.add_argument(
        "--check", action="store_true", help="compile the change that is named for a run that does not fit"
    )
    parser.add_argument("--explain", action="store_true", help="one sentence on each figure")
    parser.add_argument("--cache", help="folder of earlier compilations; default: ~/.cache/stratos_jax/plans")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def run(args: argparse.Namespace) -> int:
    """Plan, print, and exit 3 where it does not fit."""
    os.environ["JAX_PLATFORMS"] = "cpu"  # compile-only devices; an accelerator here is left alone
    from stratos_jax import recipe as recipes
    from stratos_jax.plan import cache, gpu, report
    from stratos_jax.types import UserError

    check(args)
    recipe, _ = recipes.load(args.config, args.overrides)
    name = args.topology or recipe.launch.topology
    if not name and not args.topologies and args.what != "convert":
        do = "name one: --topology v5e:8x8 (a wrong name shows them all), or h100:8 for GPUs"
        raise UserError("this recipe names no topology", where=args.config, do=do)
    folder = pathlib.Path(args.cache) if args.cache else cache.DEFAULT
    with quiet_compiler(), ticking(cache.usual_seconds(folder)):
        if args.search:
            return _search(args, recipe, name, folder)
        if args.what == "train":
            result, lines = (_gpu if gpu.is_gpu(name) else _train)(args, recipe, name, folder)
        else:
            result, lines = _other(args, recipe, name, folder)
    print(json.dumps(report.to_plain(result)) if args.json else "\n".join(lines))
    return 0 if result.fits else DOES_NOT_FIT


def check(args: argparse.Namespace) -> None:
    """Refuse options that would do nothing."""
    from stratos_jax.types import UserError, raise_all

    problems = []
    for name in ("topologies", "row_tokens", "budget_usd", "deadline_hours", "plot"):
        if getattr(args, name) is not None and not args.search:
            problems.append(f"--{name.replace('_', '-')} needs --search")
    if args.search and args.calibrate:
        problems.append("--search and --calibrate are two commands")
    if args.what != "train" and (args.search or args.calibrate):
        problems.append("--search and --calibrate are about training")
    if not 0 < args.roofline <= 1:
        problems.append(f"--roofline: got {args.roofline}, wanted more than 0 and at most 1")
    for name in ("prompt_tokens", "answer_tokens", "disk_gb_s", "rows", "usd_per_chip_hour"):
        value = getattr(args, name)
        if value is not None and value <= 0:
            problems.append(f"--{name.replace('_', '-')}: got {value}, wanted more than 0")
    raise_all(problems, what="these options do not go together")
    if args.calibrate and not pathlib.Path(args.calibrate).is_dir() and "://" not in args.calibrate:
        raise UserError("no such run", where="--calibrate", got=args.calibrate, wanted="the folder of a run")


def _question(args: argparse.Namespace, recipe: Any, name: str, folder: pathlib.Path) -> Any:
    from stratos_jax.plan import calibrate, planner, target

    topology = target.parse(name, args.slices or recipe.launch.num_slices)
    return planner.Question(
        job=_job(recipe),
        topology=topology,
        num_rows=args.rows if args.rows is not None else recipe.launch.expected_rows,
        usd_per_chip_hour=args.usd_per_chip_hour,
        ratio=calibrate.ratio_of(topology.chip.name, folder),
        packing=recipe.shards.packing,
    )


def _job(recipe: Any) -> Any:
    from stratos_jax.plan.program import Job

    return Job(model=recipe.model, mesh=recipe.mesh, train=recipe.train, row_tokens=recipe.shards.row_tokens)


def _search(args: argparse.Namespace, recipe: Any, name: str, folder: pathlib.Path) -> int:
    from stratos_jax.plan import search, target

    names = (args.topologies or name).split(",")
    question = _question(args, recipe, names[0], folder)
    topologies = [target.parse(name, question.topology.num_slices) for name in names]
    limits = search.Limits(usd=args.budget_usd, hours=args.deadline_hours)
    lengths = tuple(int(length) for length in args.row_tokens.split(",")) if args.row_tokens else ()
    return search.show(search.search(question, topologies, limits, folder, say, lengths), args)


def _train(args: argparse.Namespace, recipe: Any, name: str, folder: pathlib.Path) -> tuple[Any, list[str]]:
    from stratos_jax.plan import calibrate, planner, report

    question = _question(args, recipe, name, folder)
    result = planner.plan(question, folder=folder, say=say, check=args.check)
    if args.calibrate:
        result = calibrate.compare(result, args.calibrate, question.topology.chip.name, folder)
    return result, report.lines(result, explain=args.explain)


def _gpu(args: argparse.Namespace, recipe: Any, name: str, folder: pathlib.Path) -> tuple[Any, list[str]]:
    from stratos_jax.plan import calibrate, gpu

    kind = gpu.parse(name)[0].name
    rows = args.rows if args.rows is not None else recipe.launch.expected_rows
    ratio = calibrate.ratio_of(kind, folder, gpu.PUBLISHED)
    result = gpu.plan(_job(recipe), name, num_rows=rows, price=args.usd_per_chip_hour, ratio=ratio)
    if args.calibrate:
        result = calibrate.compare(result, args.calibrate, kind, folder)
    return result, gpu.lines(result)


def _other(args: argparse.Namespace, recipe: Any, name: str, folder: pathlib.Path) -> tuple[Any, list[str]]:
    from stratos_jax.plan import report, serving, suite, target

    if args.what == "convert":
        result = suite.convert(recipe.model, disk_gb_s=args.disk_gb_s, roofline=args.roofline)
        return result, suite.lines(result)
    topology, price = target.parse(name, args.slices or 1), args.usd_per_chip_hour
    job = serving.Serve(
        what=args.what,
        model=recipe.model,
        engine=recipe.engine,
        prompt_tokens=args.prompt_tokens,
        sampling=recipe.evaluate.sampling,
    )
    if args.what == "evaluate":
        parts = [
            suite.Part(
                name=task.name,
                path=task.path,
                max_problems=task.max_problems,
                sampling=task.sampling or recipe.evaluate.sampling,
            )
            for task in recipe.evaluate.tasks
        ]
        result = suite.evaluate(
            parts, job, topology, answer_tokens=args.answer_tokens, roofline=args.roofline, price=price
        )
        return result, suite.lines(result)
    plan = serving.answer(job, topology, folder=folder, say=say, price=price)
    return plan, report.serving_lines(plan)


def say(text: str) -> None:
    """Progress, with the time of day, so that a waiting person sees that something moves."""
    LAST.update(said=time.monotonic())
    print(f"{CLEAR * sys.stderr.isatty()}{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def bar(seconds: float, usual: float | None) -> str:
    """How long it has taken, of how long a compilation usually takes here."""
    if usual is None:
        return f"{seconds:.0f} s"
    full = min(20, int(20 * seconds / usual))
    return f"[{'#' * full}{'.' * (20 - full)}] {seconds:.0f} of about {usual:.0f} s"


@contextlib.contextmanager
def ticking(usual: float | None):
    """On a terminal, a bar below the last line said: the compiler itself says nothing for a minute."""
    if not sys.stderr.isatty():
        yield
        return
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(1.0):
            if LAST:
                text = bar(time.monotonic() - LAST["said"], usual)
                print(f"{CLEAR}  {text}", end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        print(CLEAR, end="", file=sys.stderr, flush=True)


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
