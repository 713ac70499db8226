"""`stratos verify URL`: whether a folder holds what its manifest says, by listing it, or by reading every byte."""

import argparse
import importlib
import json
from collections.abc import Callable
from types import ModuleType

from stratos_jax.types import raise_all

HELP = "check a folder, local or gs://, against its manifest or its sums"
EXAMPLE = "stratos verify gs://my-bucket/runs/stratos-7b/shards --deep"

# What a stage checks beyond names, sizes and hashes: stage -> "module:function", called as function(url, deep=...)
# and returning a list of problems. A stage that is not named here has no check of its own.
CHECKS: dict[str, str] = {
    "shards": "stratos_jax.shards.verify:verify",
    "convert": "stratos_jax.convert.verify:verify",
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("url", help="a folder with a manifest.json, a model folder or checkpoints, local or gs://")
    parser.add_argument("--deep", action="store_true", help="read every byte and compare sha256, too")
    parser.add_argument("--json", action="store_true", help="one JSON object with figures and problems")


def run(args: argparse.Namespace) -> int:
    """Compare, print, and end with 2 where something differs."""
    from stratos_jax import store

    store.list_files(args.url)  # says so where there is no such folder or bucket
    manifest = store.manifest.read_manifest(args.url)
    if manifest is None:
        from stratos_jax.convert import verify as models

        if models.kind_of(args.url):  # model folders and checkpoints carry records of their own
            return _run_model(args, models)
    problems = store.manifest.verify(args.url, deep=args.deep)
    if manifest is not None and not problems and manifest.stage in CHECKS:
        problems = _check_of(manifest.stage)(args.url, deep=args.deep)
    figures = {
        "url": args.url,
        "ok": not problems,
        "stage": manifest.stage if manifest else None,
        "files": len(manifest.files) if manifest else 0,
        "bytes": sum(file.bytes for file in manifest.files) if manifest else 0,
        "content_hash": manifest.content_hash() if manifest else None,
        "deep": args.deep,
        "problems": problems,
    }
    if args.json:
        print(json.dumps(figures, indent=1))
        return 2 if problems else 0
    raise_all(problems, what="the folder is not what its manifest says", where=args.url, do="run its stage again")
    how = "every byte read" if args.deep else "sizes and checksums" if store.is_remote(args.url) else "sizes"
    print(f"{args.url}: ok, stage {figures['stage']}, {figures['files']} files, {figures['bytes']} bytes ({how})")
    return 0


def _run_model(args: argparse.Namespace, models: ModuleType) -> int:
    problems = models.verify(args.url, deep=args.deep)
    kind = models.kind_of(args.url)
    if args.json:
        print(json.dumps({"url": args.url, "ok": not problems, "kind": kind, "deep": args.deep, "problems": problems}))
        return 2 if problems else 0
    raise_all(problems, what="not what was written", where=args.url, do="copy or convert it again")
    what = {"hf": "a model folder", "checkpoint": "checkpoints"}[kind]
    print(f"{args.url}: ok, {what} ({'every byte read' if args.deep else 'names, sizes and shapes; --deep reads all'})")
    return 0


def _check_of(stage: str) -> Callable[..., list[str]]:
    module, _, name = CHECKS[stage].partition(":")
    return getattr(importlib.import_module(module), name)
