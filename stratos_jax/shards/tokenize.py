"""Conversations to tokenized chunks in many processes, with memory that does not grow with the data.

In: the files of the sources. Out: chunks in a scratch folder, each with a report of what became of its rows.
A chunk that is complete is not made again, so that a killed build goes on where it was.
"""

import collections
import concurrent.futures
import concurrent.futures.process
import hashlib
import itertools
import multiprocessing
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from stratos_jax.shards import conversations, labels, render, scratch, sources
from stratos_jax.shards.config import ShardsConfig
from stratos_jax.types import UserError

CHUNK_ROWS, CHUNK_BYTES = 256, 4 << 20
KEPT_PROBLEMS = 20  # a chunk's malformed rows beyond these are counted only

Lines = list[tuple[int, bytes]]
_renderer: render.Renderer | None = None  # of a worker process


def open_tokenizer(directory: str | os.PathLike[str]) -> Any:
    """The Hugging Face tokenizer in a folder."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # our processes are the parallelism
    import transformers

    return transformers.AutoTokenizer.from_pretrained(os.fspath(directory))


def split(files: Sequence[str]) -> Iterator[tuple[str, Lines]]:
    """The files' lines in chunks of bounded size: (file, [(line number, line), ...])."""
    for file in files:
        lines: Lines = []
        size = 0
        for number, line in sources.read_lines(file):
            lines.append((number, line))
            size += len(line)
            if len(lines) >= CHUNK_ROWS or size >= CHUNK_BYTES:
                yield file, lines
                lines, size = [], 0
        if lines:
            yield file, lines


def covers(file: str, lines: Lines) -> list[str | int]:
    """Which lines a chunk is made of."""
    return [file, lines[0][0], lines[-1][0], len(lines)]


def tokenize_chunk(
    renderer: render.Renderer, source: str, file: str, lines: Lines, stem: pathlib.Path
) -> dict[str, Any]:
    """Tokenize the lines of one chunk and write it; returns its report."""
    counts: collections.Counter[str] = collections.Counter(rows=len(lines), bytes=sum(len(line) for _, line in lines))
    problems, good, samples = [], [], []
    for number, line in lines:
        row = conversations.read_row(line, source, number)
        if isinstance(row, str):
            counts["malformed"] += 1
            problems.append(f"{file}:{number}: {row}")
        else:
            good.append(row)
    origins: collections.Counter[str] = collections.Counter()
    for row, made in zip(good, renderer.render_many(good), strict=True):
        if isinstance(made, render.Dropped):
            counts[f"dropped_{made.reason}"] += 1
            counts["dropped_tokens"] += made.tokens
            continue
        learned = labels.learned(made.words)
        counts["samples"] += 1
        counts["tokens"] += len(made.words)
        counts["learned_tokens"] += int(learned.sum())
        counts.update({f"cut_{made.cut}": 1} if made.cut else {})
        spans = np.bincount(labels.spans_of(made.words), minlength=len(labels.SPANS))
        counts.update({f"{name}_tokens": int(n) for name, n in zip(labels.SPANS, spans, strict=True)})
        origins[row.source] += 1
        digest = hashlib.blake2b(made.words.tobytes(), digest_size=8).digest()
        samples.append((row.id, made.words, int(learned.sum()), int.from_bytes(digest, "little")))
    report = {"covers": covers(file, lines), "counts": counts, "origins": origins, "problems": problems[:KEPT_PROBLEMS]}
    scratch.write_chunk(stem, samples, report)
    return report


class Workers:
    """A pool of processes that ends when its owner does, even by kill -9; one worker runs in the caller instead."""

    def __init__(self, count: int, tokenizer_dir: str, config: ShardsConfig):
        self.count = count
        if count == 1:
            _start(tokenizer_dir, config, watch=False)
        context = multiprocessing.get_context("spawn")
        self._pool = (
            concurrent.futures.ProcessPoolExecutor(count, context, _start, (tokenizer_dir, config))
            if count > 1
            else None
        )

    def map(self, call: Callable[..., Any], tasks: Iterable[tuple[Any, ...]]) -> Iterator[Any]:
        """Results in the order of the tasks, of which only a few are held at a time."""
        if self._pool is None:
            yield from (call(*task) for task in tasks)
            return
        tasks, waiting = iter(tasks), collections.deque()
        try:
            while True:
                for task in itertools.islice(tasks, 2 * self.count - len(waiting)):
                    waiting.append(self._pool.submit(call, *task))
                if not waiting:
                    return
                yield waiting.popleft().result()
        except concurrent.futures.process.BrokenProcessPool as error:
            raise UserError(
                "a worker process died, perhaps for want of memory",
                do="run the same command again; finished work is kept. Use fewer --workers if it repeats",
            ) from error

    def close(self) -> None:
        """End the processes."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


def tokenize_task(source: str, file: str, lines: Lines, stem: pathlib.Path) -> dict[str, Any]:
    """`tokenize_chunk` with the process's own renderer, or its report where the chunk is complete."""
    if scratch.is_complete(stem, covers(file, lines)):
        return scratch.read_report(stem)
    assert _renderer is not None
    return tokenize_chunk(_renderer, source, file, lines, stem)


def _start(tokenizer_dir: str, config: ShardsConfig, watch: bool = True) -> None:
    global _renderer
    parent = multiprocessing.parent_process()
    if watch and parent is not None:
        threading.Thread(target=lambda: (parent.join(), os._exit(1)), daemon=True).start()
    _renderer = render.Renderer(open_tokenizer(tokenizer_dir), config)
