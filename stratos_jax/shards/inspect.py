"""A built data set as a person wants to see it: rows decoded with their spans in colour, and what a step sees.

In: a built folder. Out: lines of text, or plain values for JSON.
"""

import json
import os
import sys
from typing import Any

import numpy as np

from stratos_jax import store
from stratos_jax.shards import build, labels, loader, statistics, tokenize
from stratos_jax.types import Json, UserError

# Learned spans are bright, what is only read is grey.
COLOURS = {"none": "90", "thought": "36", "solution": "32", "format": "33", "padding": "2"}
READ, LEARNED = "context", "learned"

Path = str | os.PathLike[str]


def lines(directory: Path, first: int, count: int) -> list[str]:
    """Statistics, then `count` rows."""
    figures = json.loads(store.read_text(store.join(directory, build.STATISTICS)))
    shown = statistics.lines(figures)
    for row in rows(directory, first, count)["rows"]:
        shown += ["", *_row_lines(row)]
    return shown


def rows(directory: Path, first: int, count: int) -> dict[str, Json]:
    """Rows of the files, in order: each sample's id and its text in pieces of one label."""
    opened = loader.Loader(directory, rows_per_step=loader.any_rows_per_step(directory), seed=0, epochs=1)
    total = len(opened.table)
    if not 0 <= first < total:
        raise UserError("no such row", where=directory, got=first, wanted=f"0 to {total - 1}")
    tokenizer = tokenize.open_tokenizer(opened.folder / build.TOKENIZER)
    wanted = list(range(first, min(total, first + count)))
    read = zip(wanted, opened.read_rows(wanted), strict=True)
    return {"rows": [_row(number, row, tokenizer) for number, row in read], "total_rows": total}


def step(directory: Path, step: int, epoch: int, rows_per_step: int | None, seed: int) -> dict[str, Json]:
    """The rows and samples that step `step` of epoch `epoch` sees."""
    manifest = loader.read_manifest(directory)
    rows_per_step = rows_per_step or manifest.counts["balance_rows"]
    if rows_per_step is None:
        raise UserError("which run's step?", do="give --rows-per-step, or --config of the run")
    if epoch < 0 or step < 0:
        raise UserError("steps and epochs count from 0", got=f"step {step}, epoch {epoch}")
    opened = loader.Loader(directory, rows_per_step=rows_per_step, seed=seed, epochs=epoch + 1)
    begin = opened.first_step(epoch)
    if begin + step >= opened.num_steps:
        wanted = f"0 to {opened.num_steps - begin - 1}"
        raise UserError("the epoch has no such step", where=directory, got=step, wanted=wanted)
    row_of, epoch_of = opened.rows_of(begin + step)
    places = zip(row_of.tolist(), epoch_of.tolist(), opened.samples(begin + step), strict=True)
    return {
        "step": begin + step,
        "seed": seed,
        "rows_per_step": rows_per_step,
        "places": [{"row": row, "epoch": e, "samples": ids} for row, e, ids in places],
    }


def step_lines(shown: dict[str, Any]) -> list[str]:
    """One line for each row of a step."""
    head = f"step {shown['step']} of the run (seed {shown['seed']}, {shown['rows_per_step']} rows a step)"
    return [head] + [
        f"  row {p['row']:>6} epoch {p['epoch']}  {', '.join(p['samples'])}" if p["row"] >= 0 else "  padding"
        for p in shown["places"]
    ]


def _row(number: int, row: dict[str, Any], tokenizer: Any) -> dict[str, Json]:
    used = int((row["segment_ids"] > 0).sum())
    samples = []
    for segment, name in enumerate(row["ids"], start=1):
        here = row["segment_ids"] == segment
        tokens, learned, spans = row["tokens"][here], row["loss_mask"][here], row["spans"][here]
        samples.append({"id": name, "tokens": len(tokens), "pieces": _pieces(tokens, learned, spans, tokenizer)})
    return {"row": number, "tokens": used, "padding": len(row["tokens"]) - used, "samples": samples}


def _pieces(tokens: np.ndarray, learned: np.ndarray, spans: np.ndarray, tokenizer: Any) -> list[Json]:
    """Runs of tokens with one label, decoded."""
    label = spans.astype(int) + 8 * (learned > 0)
    borders = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(tokens)]
    return [
        {
            "span": labels.SPANS[spans[begin]],
            "loss": LEARNED if learned[begin] else READ,
            "tokens": end - begin,
            "text": tokenizer.decode(tokens[begin:end].tolist()),
        }
        for begin, end in zip(borders[:-1], borders[1:], strict=True)
    ]


def _row_lines(row: dict[str, Any]) -> list[str]:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    shown = [f"row {row['row']}: {len(row['samples'])} samples, {row['tokens']:,} tokens, padding {row['padding']:,}"]
    for segment, sample in enumerate(row["samples"], start=1):
        shown.append(f"-- segment {segment}: {sample['id']} ({sample['tokens']:,} tokens)")
        text = ""
        for piece in sample["pieces"]:
            if colour:
                text += f"\033[{COLOURS[piece['span']]}m{piece['text']}\033[0m"
            else:
                text += f"[{piece['span']} {piece['loss']} {piece['tokens']}]{piece['text']}"
        shown.append(text)
    return shown
