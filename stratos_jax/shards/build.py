"""The stage `shards`: conversations in, a folder of packed rows out.

In: a `ShardsConfig`, the folders it refers to, a tokenizer. Out: ArrayRecord shards with their TFDS description,
`tokenizer/`, `index/`, `statistics.json`, and the manifest, written last. Killed at any moment and run again, it goes
on where it was and ends with the same bytes.
"""

import collections
import hashlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.shards import features, mix, pack, scratch, sources, statistics, tokenize, write
from stratos_jax.shards.config import ShardsConfig
from stratos_jax.shards.progress import Progress
from stratos_jax.types import Manifest, UserError, json_hash

WORK, TOKENIZER, STATISTICS = ".work", "tokenizer", "statistics.json"
SHOWN_PROBLEMS = 10
WORKER_BYTES = 16 << 20  # of text, for which another process is worth its start

Path = str | os.PathLike[str]


def run(
    config: ShardsConfig,
    directory: Path,
    *,
    inputs: Mapping[str, Path] | None = None,
    tokenizer_dir: Path | None = None,
    workers: int | None = None,
    scratch_dir: Path | None = None,
) -> Manifest:
    """Build the data set in `directory`, or find it built; a gs:// folder is built in `scratch_dir` and uploaded."""
    names = _names(config)
    files = {name: sources.files_of(s, inputs or {}) for name, s in zip(names, config.sources, strict=True)}
    hashes = sources.hash_inputs(files)
    tokenizer = None if config.tokenizer.train_vocab_size else _tokenizer_folder(config, tokenizer_dir)
    if tokenizer is not None:
        hashes["tokenizer"] = fingerprint(tokenizer)
    local = _local_folder(directory, config, hashes, scratch_dir)

    def body(folder: pathlib.Path) -> Mapping[str, Any]:
        return _build(config, folder, files, tokenizer, workers or os.cpu_count() or 1)

    manifest = store.stage.run_stage("shards", config, local, hashes, body, resume=True)
    if store.is_remote(directory):
        store.upload_tree(local, os.fspath(directory))
    return manifest


def fingerprint(folder: Path) -> str:
    """Hash of what decides a tokenizer's output: its vocabulary, rules, special tokens and chat template."""
    kept = {}
    for file in store.list_files(folder):
        name = file.url.rsplit("/", 1)[-1]
        if name in TOKENIZER_FILES:
            kept[name] = hashlib.sha256(store.read_bytes(file.url)).hexdigest()
    if not kept:
        raise UserError(
            "no tokenizer here", where=folder, wanted="a folder with tokenizer.json and tokenizer_config.json"
        )
    return json_hash(kept)


TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)


def check_tokenizer(directory: Path, tokenizer_dir: Path) -> None:
    """Refuse a tokenizer other than the one with which the shards were made."""
    theirs, ours = fingerprint(store.join(directory, TOKENIZER)), fingerprint(tokenizer_dir)
    if theirs != ours:
        raise UserError(
            "the shards were made with another tokenizer",
            where=directory,
            got=f"{tokenizer_dir} ({ours[:12]})",
            wanted=f"{TOKENIZER}/ of the shards ({theirs[:12]})",
            do="use the shards' own tokenizer folder, or build the shards again",
        )


def _build(
    config: ShardsConfig, folder: pathlib.Path, files: Mapping[str, list[str]], tokenizer: Path | None, workers: int
) -> dict[str, Any]:
    """The stage's story: tokenize, mix, pack, write, describe."""
    work = folder / WORK
    _place_tokenizer(config, folder / TOKENIZER, files, tokenizer)
    pool = tokenize.Workers(_useful(workers, files), os.fspath(folder / TOKENIZER), config)
    try:
        stems, owners, counts, origins = _tokenize(config, pool, work, files)
        index = scratch.read_index(stems)
        source_of = np.array(owners, np.int32)[index["chunk"]] if len(index) else np.zeros(0, np.int32)
        usable = np.bincount(source_of, minlength=len(config.sources)).tolist()
        shares = mix.shares(usable, config)
        items, copies = _draw(config, source_of, usable, shares)
        drawn = index[items]
        lengths, targets = drawn["length"].astype(np.int64), drawn["learned"].astype(np.int64)
        stages = pack.stages_by_length(lengths, config.curriculum_stages)
        plan = pack.plan(
            lengths, config.row_tokens, seed=config.seed, packed=config.packed, stages=stages, copies=copies
        )
        if not len(plan):
            raise UserError("no sample is left to train on", got=json.dumps(_totals(counts)))
        table = pack.table(plan, lengths, targets)
        count = write.num_shards(len(plan), config.row_tokens, config.num_shards)
        tasks = write.shard_tasks(plan, drawn, stems, folder, count, config.row_tokens)
        size = _write(pool, tasks, count, int(lengths.sum()))
    finally:
        pool.close()
    write.write_tables(plan, table, drawn, stems, folder)
    figures = statistics.collect(config, list(files), counts, origins, shares, lengths, table)
    store.write_text(folder / STATISTICS, json.dumps(figures, indent=1) + "\n")
    borders = write.shard_borders(len(plan), count)
    shard_lengths = [b - a for a, b in zip(borders[:-1], borders[1:], strict=True)]
    text = f"Packed conversations, policy {config.policy}, rows of {config.row_tokens} tokens."
    features.write_info(os.fspath(folder), shard_lengths, size, config.row_tokens, text)
    shutil.rmtree(work)
    return {
        "rows": len(plan),
        "row_tokens": config.row_tokens,
        "shard_lengths": shard_lengths,
        "samples": len(lengths),
        "real_tokens": figures["real_tokens"],
        "target_tokens": figures["target_tokens"],
        "total": figures["total"],
        "shares": {name: [s.drawn, s.share] for name, s in zip(files, shares, strict=True)},
        "tokenizer": fingerprint(folder / TOKENIZER),
        "policy": config.policy,
        "balance_rows": config.balance_rows,
    }


def _tokenize(config: ShardsConfig, pool: tokenize.Workers, work: pathlib.Path, files: Mapping[str, list[str]]):
    """Tokenize what is not yet; returns the chunks, the source of each, and per source its counts and origins."""
    stems, owners = [], []
    counts = [collections.Counter() for _ in files]
    origins = [collections.Counter() for _ in files]
    problems: list[str] = []
    progress = Progress("tokenize", _bytes(files))

    def tasks():
        for owner, (name, paths) in enumerate(files.items()):
            for file, lines in tokenize.split(paths):
                stem = work / f"{len(stems):07d}"
                stems.append(stem)
                owners.append(owner)
                yield name, file, lines, stem

    for number, report in enumerate(pool.map(tokenize.tokenize_task, tasks())):
        counts[owners[number]].update(report["counts"])
        origins[owners[number]].update(report["origins"])
        problems += report["problems"] if len(problems) < SHOWN_PROBLEMS else []
        progress.show(sum(c["tokens"] for c in counts), sum(c["bytes"] for c in counts))
    progress.end()
    _judge(config, _totals(counts), problems)
    return stems, owners, counts, origins


def _bytes(files: Mapping[str, list[str]]) -> int:
    return sum(found.bytes for paths in files.values() for path in paths if (found := store.stat(path)))


def _useful(workers: int, files: Mapping[str, list[str]]) -> int:
    """No more processes than there is work for: one takes seconds to start."""
    return max(1, min(workers, _bytes(files) // WORKER_BYTES))


def _write(pool: tokenize.Workers, tasks: Iterator[Any], count: int, tokens: int) -> int:
    """Write the shards; returns the bytes of their records."""
    progress, size = Progress("write", count), 0
    for number, written in enumerate(pool.map(write.write_shard, tasks), start=1):
        size += written
        progress.show(tokens * number // count, number)
    progress.end()
    return size


def _judge(config: ShardsConfig, total: Mapping[str, int], problems: list[str]) -> None:
    """Malformed rows stop the build, unless the config says to leave them out and count them."""
    malformed = total.get("malformed", 0)
    if malformed and config.bad_rows == "stop":
        shown = "".join(f"\n    - {problem}" for problem in problems[:SHOWN_PROBLEMS])
        more = malformed - min(malformed, SHOWN_PROBLEMS)
        raise UserError(
            f"{malformed:,} of {total['rows']:,} rows are malformed{shown}"
            + (f"\n    ... and {more:,} more" * (more > 0)),
            do="mend them, or set shards.bad_rows=skip to leave them out, counted",
        )


def _draw(config: ShardsConfig, source_of: np.ndarray, usable: list[int], shares: list[mix.Share]):
    """Entries of the index that are drawn, and the number of each one's copy."""
    items, copies = [], []
    for source, share in enumerate(shares):
        chosen, copy = mix.draws(usable[source], share.drawn, source, config)
        items.append(np.flatnonzero(source_of == source)[chosen])
        copies.append(copy)
    return np.concatenate(items), np.concatenate(copies)


def _totals(counts: list[Any]) -> dict[str, int]:
    return dict(sum(counts, collections.Counter()))


def _names(config: ShardsConfig) -> list[str]:
    names = [sources.name_of(s) for s in config.sources]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError("two sources have the same name", got=", ".join(doubled), do="set `name` on one of them")
    return names


def _tokenizer_folder(config: ShardsConfig, given: Path | None) -> Path:
    """The folder of the tokenizer that the config, or else the caller, names."""
    source = config.tokenizer.source or (os.fspath(given) if given is not None else "")
    if not source:
        raise UserError("no tokenizer is named", do="set shards.tokenizer.source, or train_vocab_size to train one")
    if store.is_remote(source) or os.path.isdir(source):
        return source
    if sources.HUB_ID.fullmatch(source):
        import huggingface_hub

        try:
            return huggingface_hub.snapshot_download(source, allow_patterns=list(TOKENIZER_FILES))
        except (OSError, ValueError, huggingface_hub.errors.HfHubHTTPError) as error:
            raise UserError(
                "the tokenizer is neither a folder nor could it be fetched from the hub",
                where=source,
                got=type(error).__name__,
                do="without network, download the model's tokenizer files elsewhere and give their folder",
            ) from error
    raise UserError("the tokenizer's folder does not exist", where=source)


def _place_tokenizer(
    config: ShardsConfig, folder: pathlib.Path, files: Mapping[str, list[str]], tokenizer: Path | None
) -> None:
    """Leave the tokenizer in the data set's own folder, whole or not at all."""
    if folder.exists():
        return
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".tokenizer") as temporary:
        made = pathlib.Path(temporary) / TOKENIZER
        made.mkdir()
        if tokenizer is None:
            _train_tokenizer(config, made, files)
        else:
            for file in store.list_files(tokenizer):
                name = file.url.rsplit("/", 1)[-1]
                if name in TOKENIZER_FILES:
                    store.write_bytes(made / name, store.read_bytes(file.url))
        os.replace(made, folder)


def _train_tokenizer(config: ShardsConfig, folder: pathlib.Path, files: Mapping[str, list[str]]) -> None:
    from stratos_jax.model import tokenizer
    from stratos_jax.shards import conversations

    def texts():
        for name, paths in files.items():
            for path in paths:
                for number, line in sources.read_lines(path):
                    row = conversations.read_row(line, name, number)
                    if not isinstance(row, str):
                        yield from (text for message in row.messages for text in (message.role, message.content))

    assert config.tokenizer.train_vocab_size is not None
    tokenizer.train_tokenizer(texts(), config.tokenizer.train_vocab_size, folder)


def _local_folder(directory: Path, config: ShardsConfig, hashes: Mapping[str, str], given: Path | None) -> pathlib.Path:
    """Where the stage works: the folder itself, or for a bucket one that the same build finds again."""
    if not store.is_remote(directory):
        return pathlib.Path(directory)
    key = json_hash([os.fspath(directory), store.manifest.plain_config(config), dict(hashes)])[:16]
    return pathlib.Path(given if given is not None else tempfile.gettempdir()) / f"stratos_shards_{key}"
