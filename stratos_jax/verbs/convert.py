"""`stratos convert`: HF folders to checkpoints and back, each with its proof; and what two of them differ in."""

import argparse
import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator

from stratos_jax.convert.config import ConvertConfig

HELP = "turn HF folders into checkpoints and back, with proof; compare two of them"
EXAMPLE = "stratos convert to-hf runs/quickstart/train/checkpoints /tmp/student"
DEFAULTS = ConvertConfig()


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    actions = parser.add_subparsers(dest="action", required=True)
    ingest = actions.add_parser("from-hf", help="HF folder (or hub id, with a network) -> checkpoint")
    ingest.add_argument("source", metavar="SRC")
    ingest.add_argument("target", metavar="DST", help="a new folder, local or gs://")
    ingest.add_argument("--lora", metavar="ADAPTER", help="a PEFT adapter folder that is merged into the weights")
    _add_common(ingest, dtype="keep")
    export = actions.add_parser("to-hf", help="checkpoint -> HF folder")
    export.add_argument("source", metavar="CKPT", help="a folder of steps")
    export.add_argument("target", metavar="DST", help="a new folder, local or gs://")
    export.add_argument("--step", type=int, help="which step; the newest if not given")
    export.add_argument("--model", metavar="HF_DIR", help="its config.json; what the checkpoint names if not given")
    export.add_argument("--tokenizer", metavar="DIR", help="tokenizer and chat template to carry")
    export.add_argument("--max-shard-gib", type=float, default=DEFAULTS.max_shard_gib)
    export.add_argument("--vocab-rows", type=int, help="rows of embedding and head; as trained if not given")
    _add_common(export, dtype=DEFAULTS.dtype)
    compare = actions.add_parser("diff", help="compare two HF folders or checkpoints, tensor by tensor")
    compare.add_argument("a", metavar="A")
    compare.add_argument("b", metavar="B")
    compare.add_argument("--json", action="store_true", help="one JSON object with figures")


def _add_common(parser: argparse.ArgumentParser, *, dtype: str) -> None:
    parser.add_argument("--dtype", choices=["keep", "bfloat16", "float16", "float32"], default=dtype)
    parser.add_argument("--no-proof", action="store_true", help="skip round trip and logits; the report says so")
    parser.add_argument("--json", action="store_true", help="one JSON object with figures")


def run(args: argparse.Namespace) -> int:
    """Convert or compare, and print the figures."""
    return {"from-hf": _from_hf, "to-hf": _to_hf, "diff": _diff}[args.action](args)


def _from_hf(args: argparse.Namespace) -> int:
    from stratos_jax import convert
    from stratos_jax.convert.hub import local_or_fetched

    config = ConvertConfig(dtype=args.dtype, proof=not args.no_proof)
    source = local_or_fetched(args.source)
    with shown(f"to {args.target}") as progress:
        report = convert.from_hf(source, args.target, config, lora=args.lora, progress=progress)
    return _show(args, report)


def _to_hf(args: argparse.Namespace) -> int:
    from stratos_jax import convert
    from stratos_jax.convert.folder import read_config

    config = ConvertConfig(
        dtype=args.dtype, proof=not args.no_proof, max_shard_gib=args.max_shard_gib, vocab_rows=args.vocab_rows
    )
    with shown(f"to {args.target}") as progress:
        report = convert.to_hf(
            args.source,
            args.target,
            config,
            step=args.step,
            hf_config=read_config(args.model) if args.model else None,
            tokenizer_dir=args.tokenizer or args.model,
            progress=progress,
        )
    return _show(args, report)


def _show(args: argparse.Namespace, report: dict) -> int:
    if args.json:
        print(json.dumps({"target": args.target, **report}, indent=1))
        return 0
    logits = report.get("logits")
    print(f"{args.target}: {report['tensors']} tensors, {report['bytes']} bytes, {'/'.join(report['dtype'])}")
    if logits is None:
        print("  no proof was asked for")
        return 0
    print(f"  round trip: bitwise, {report['round_trip']['tensors']} tensors")
    if not logits["prompts"]:
        return 0
    print(
        f"  logits against {logits['reference']} on {logits['prompts']} prompts of {logits['tokens']} tokens: "
        f"largest difference {logits['max_abs_diff']:.3g} of {logits['scale']:.3g}, worst KL {logits['max_kl']:.3g}"
    )
    return 0


def _diff(args: argparse.Namespace) -> int:
    from stratos_jax.convert.diff import diff

    rows = []
    for row in diff(args.a, args.b):
        rows.append(row)
        if not args.json and not row.bitwise:
            print(f"{row.name}: {row.note or f'largest {row.max_abs:.3g}, relative {row.relative:.3g}'}")
    different = [row for row in rows if not row.bitwise]
    if args.json:
        figures = {
            "tensors": len(rows),
            "different": len(different),
            "differences": [*map(dataclasses.asdict, different)],
        }
        print(json.dumps({"a": args.a, "b": args.b, **figures}, indent=1))
    else:
        print(f"{len(rows)} tensors, {len(rows) - len(different)} bitwise equal, {len(different)} different")
    return 0


@contextlib.contextmanager
def shown(label: str) -> Iterator[Callable[[int, int], None]]:
    """Progress on stderr: a bar on a terminal, a line now and then elsewhere."""
    from stratos_jax.store.progress import Progress

    with contextlib.ExitStack() as stack:
        bars: list[Progress] = []
        seen = 0

        def update(done: int, total: int) -> None:
            nonlocal seen
            if not bars:
                bars.append(stack.enter_context(Progress(label, total)))
            bars[0].add(done - seen)
            seen = done

        yield update
