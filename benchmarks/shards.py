"""Packing, building and loading, each beside what others use, in one run.

    python benchmarks/shards.py pack|build|load|memory

pack: 17,000 log-normal lengths (mean about 5,000, cut at 16,384): fullness, seconds and the imbalance of steps of 64
rows, beside TRL's best-fit packing and Grain's first-fit and best-fit.
build: tokens a second of one process, chat template and mask included, beside `datasets.map` with the same tokenizer.
load: tokens a second of the loader, beside Grain reading and decoding the same files.
memory: peak of a whole build in this process, for --copies times 500 traces.
Sides take turns; the best of each side's rounds counts, for the machine may be shared.
"""

import argparse
import json
import pathlib
import random
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
ROW, SAMPLES, STEP_ROWS = 16_384, 17_000, 64


def best_of(rounds: int, sides: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, Any]]:
    """(best seconds, last result) of each side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    results = {}
    for _ in range(rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            results[name] = side()
            seconds[name].append(time.perf_counter() - start)
    return {name: (min(times), results[name]) for name, times in seconds.items()}


def lengths_of(sigma: float, count: int = SAMPLES) -> np.ndarray:
    """Log-normal lengths of mean 5,000 before the cut."""
    draws = np.random.default_rng(0).lognormal(np.log(5000) - sigma**2 / 2, sigma, count)
    return np.clip(draws, 1, ROW).astype(np.int64)


def pack(sigma: float = 0.8) -> dict[str, Any]:
    """Rows of each packer."""
    from stratos_jax.shards import pack, schedule

    lengths, zeros = lengths_of(sigma), np.zeros(SAMPLES, np.int64)
    ours = lambda: pack.plan(lengths, ROW, seed=1, packed=True, stages=zeros, copies=zeros)
    sides: dict[str, Callable[[], Any]] = {
        "stratos_jax best-fit, plan alone": ours,
        "stratos_jax best-fit, tokens copied into rows too": lambda: _with_rows(ours(), lengths),
        "TRL bfd": lambda: _trl(lengths),
        "Grain first-fit, 64 bins": lambda: _grain(lengths, "FirstFitPackIterDataset"),
        "Grain best-fit, 64 bins": lambda: _grain(lengths, "BestFitPackIterDataset"),
    }
    found = {}
    for name, (seconds, result) in best_of(1, sides).items():
        rows = [lengths[result.row(r)] for r in range(len(result))] if name.startswith("stratos") else result
        work = np.array([float((row.astype(np.int64) ** 2).sum()) for row in rows])
        if name.startswith("Grain"):
            order = np.arange(len(work))  # it is a stream: the order it comes in is the order there is
        else:
            order = np.random.default_rng(1).permutation(len(work))
        found[name] = _packed(len(rows), lengths, seconds, work[order])
    table = pack.table(ours(), lengths, lengths)
    start = time.perf_counter()
    rows, _ = schedule.run_order(table, 1, 1, STEP_ROWS, balanced=True)
    even = table["work"][rows].astype(float)
    found["stratos_jax best-fit, balance_rows=64"] = _packed(len(rows), lengths, time.perf_counter() - start, even)
    return {"sigma": sigma, "mean_length": float(lengths.mean()), "sides": found}


def _packed(rows: int, lengths: np.ndarray, seconds: float, work: np.ndarray) -> dict[str, float]:
    from stratos_jax.shards import pack

    uneven = pack.imbalance(work, STEP_ROWS)
    full = float(lengths.sum()) / (rows * ROW)
    shown = {"rows": rows, "real_tokens": full, "seconds": seconds}
    return {**shown, "imbalance_mean": float(uneven.mean()), "imbalance_worst": float(uneven.max())}


def _with_rows(plan: Any, lengths: np.ndarray) -> Any:
    from stratos_jax.shards import features

    words = np.zeros(ROW, np.uint32)
    for row in range(len(plan)):
        features.make_row([words[:n] for n in lengths[plan.row(row)]], [], ROW)
    return plan


def _trl(lengths: np.ndarray) -> list[np.ndarray]:
    import datasets
    import pyarrow as pa
    import trl

    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    flat = pa.array(np.zeros(int(lengths.sum()), np.int8))
    table = pa.table({"input_ids": pa.LargeListArray.from_arrays(pa.array(offsets), flat)})
    packed = trl.pack_dataset(datasets.Dataset(table), ROW, "bfd")
    return [np.array(row) for row in packed["seq_lengths"]]


def _grain(lengths: np.ndarray, name: str) -> list[np.ndarray]:
    import grain
    import grain.experimental

    source = grain.MapDataset.source([{"tokens": np.ones(n, np.int8)} for n in lengths]).seed(1).shuffle()
    packer = getattr(grain.experimental, name)
    stream = packer(source.to_iter_dataset(), length_struct={"tokens": ROW}, num_packing_bins=64)
    return [np.bincount(row["tokens_segment_ids"])[1:] for row in stream]


def traces(count: int, words: int) -> list[dict[str, Any]]:
    """Rows in the shape of the published data set, with answers of about `words` words."""
    rng = random.Random(0)
    vocabulary = [w for w in (ROOT / "LICENSE").read_text().split() if w.isascii()] + ["\\frac{1}{2}", "x^2", "= 7."]
    text = lambda n: " ".join(rng.choice(vocabulary) for _ in range(n))
    answer = lambda n: (
        f"<|begin_of_thought|>\n\n{text(n)}\n\n<|end_of_thought|>\n\n"
        f"<|begin_of_solution|>\n\n{text(n // 8)}\n\n<|end_of_solution|>"
    )
    turns = lambda: [
        {"from": "user", "value": text(60)},
        {"from": "assistant", "value": answer(rng.randint(words // 2, 2 * words))},
    ]
    return [{"id": str(i), "source": "b", "system": text(80), "conversations": turns()} for i in range(count)]


def build(rounds: int = 3) -> dict[str, Any]:
    """Tokens a second of one process."""
    import os

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import datasets

    from stratos_jax.shards import render, tokenize
    from stratos_jax.shards.config import ShardsConfig, SourceConfig

    datasets.disable_progress_bars()
    datasets.disable_caching()
    tokenizer = tokenize.open_tokenizer(_tokenizer())
    rows = traces(400, 1200)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "dataset.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        renderer = render.Renderer(tokenizer, ShardsConfig(sources=(SourceConfig(path=str(path)),), row_tokens=ROW))

        def ours() -> int:
            tokens = 0
            for number, (file, lines) in enumerate(tokenize.split([str(path)])):
                stem = folder / f"{number}"
                tokens += tokenize.tokenize_chunk(renderer, "b", file, lines, stem)["counts"]["tokens"]
            return tokens

        def mapped(marked: bool) -> int:
            template = _marked_template() if marked else None

            def encode(row: dict[str, Any]) -> dict[str, Any]:
                turns = [{"role": "system", "content": row["system"]}]
                turns += [{"role": t["from"], "content": t["value"]} for t in row["conversations"]]
                made = tokenizer.apply_chat_template(
                    turns, chat_template=template, return_dict=True, return_assistant_tokens_mask=marked
                )
                return {"input_ids": made["input_ids"], **({"mask": made["assistant_masks"]} if marked else {})}

            data = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=name)
            done = data.map(encode, remove_columns=data.column_names, keep_in_memory=False)
            return sum(map(len, done["input_ids"]))

        sides = {
            "stratos_jax (ids, mask, spans)": ours,
            "datasets.map (ids, mask)": lambda: mapped(True),
            "datasets.map (ids alone)": lambda: mapped(False),
        }
        found = best_of(rounds, sides)
    return {
        name: {"tokens": tokens, "tokens_per_second": tokens / seconds} for name, (seconds, tokens) in found.items()
    }


def load(rounds: int = 5) -> dict[str, Any]:
    """Tokens a second from files to batches of 16 rows."""
    import grain

    from stratos_jax.shards import build as stage
    from stratos_jax.shards import features, loader
    from stratos_jax.shards.config import ShardsConfig, SourceConfig

    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        path = folder / "dataset.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in traces(600, 1500)))
        settings = ShardsConfig(sources=(SourceConfig(path=str(path)),), row_tokens=ROW, num_shards=4)
        stage.run(settings, folder / "shards", tokenizer_dir=_tokenizer(), workers=1)
        opened = loader.Loader(folder / "shards", rows_per_step=16, seed=1, epochs=2)
        paths = sorted(str(p) for p in (folder / "shards").glob("*array_record*"))
        source = grain.sources.ArrayRecordDataSource(paths)
        options = grain.ReadOptions(num_threads=loader.THREADS, prefetch_buffer_size=loader.AHEAD * 16)

        def raw() -> int:
            rows = grain.MapDataset.source(source).seed(1).shuffle().repeat(2)
            rows = rows.map(lambda record: features.features(ROW).deserialize_example_np(record))
            rows = rows.map(lambda row: {k: v for k, v in row.items() if k != "ids"})
            return sum(batch["tokens"].size for batch in rows.to_iter_dataset(options).batch(16))

        def ours() -> int:
            return sum(batch["tokens_BT"].size for batch in opened.steps())

        found = best_of(rounds, {"stratos_jax loader (targets and weights too)": ours, "Grain alone": raw})
        rows = len(opened.table)
    return {"rows": rows} | {n: {"tokens": t, "tokens_per_second": t / s} for n, (s, t) in found.items()}


def memory(copies: int) -> dict[str, Any]:
    """Peak memory of a build of 500 x `copies` traces."""
    import resource

    from stratos_jax.shards import build as stage
    from stratos_jax.shards.config import ShardsConfig, SourceConfig

    with tempfile.TemporaryDirectory() as name:
        path = pathlib.Path(name) / "dataset.jsonl"
        with open(path, "w") as file:
            for copy in range(copies):
                file.writelines(json.dumps({**row, "id": f"{copy}-{row['id']}"}) + "\n" for row in traces(500, 1200))
        settings = ShardsConfig(sources=(SourceConfig(path=str(path)),), row_tokens=ROW)
        counts = stage.run(settings, pathlib.Path(name) / "out", tokenizer_dir=_tokenizer(), workers=1).counts
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"samples": counts["samples"], "real_tokens": counts["real_tokens"], "peak_MiB": peak}


def _tokenizer() -> pathlib.Path:
    sys.path.insert(0, str(ROOT / "tests"))
    import qwen_vocab

    folder = qwen_vocab.qwen_tokenizer_dir()
    assert folder is not None, "pip install dashscope: it carries the vocabulary"
    return folder


def _marked_template() -> str:
    sys.path.insert(0, str(ROOT / "tests" / "shards"))
    import test_render

    return test_render.MARKED_TEMPLATE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "build", "load", "memory"])
    parser.add_argument("--sigma", type=float, default=0.8, help="of the log-normal lengths")
    parser.add_argument("--copies", type=int, default=1, help="of 500 traces, for memory")
    args = parser.parse_args()
    chosen = {"pack": lambda: pack(args.sigma), "build": build, "load": load, "memory": lambda: memory(args.copies)}[
        args.what
    ]
    print(json.dumps(chosen(), indent=1))
