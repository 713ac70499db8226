"""Tokens a second of a 20M-parameter student: this trainer beside transformers and torch, both on this CPU.

python benchmarks/train_cpu.py [--rounds 9]
Two kinds of rows: as training packs them, three samples a row (the published run has 96 samples in about 30 rows) whose
prompts carry no loss, and of one sample. Two formats: bfloat16 with float32 weights, the trainer's default (torch:
autocast), and float32. Both sides take the same rows, AdamW and clipping. Each is a process of its own, started as
its user starts it (`stratos train` takes a device per core and a malloc that keeps memory; torch is as it comes, and
once more with that malloc); they take turns, so that other work on the machine meets all alike. Prints one JSON object
a line.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import numpy as np

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROWS, TOKENS = 8, 512
SIDES = ("stratos_jax", "torch", "torch, malloc keeps")
HF = {
    "model_type": "qwen2",
    "vocab_size": 4096,
    "hidden_size": 384,
    "intermediate_size": 1536,
    "num_hidden_layers": 8,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}


def batch_of(samples: int) -> dict[str, Any]:
    """Packed rows of so many random samples; a tenth of each is its prompt."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, HF["vocab_size"], (ROWS, TOKENS + 1)).astype(np.int32)
    cuts = [np.sort(rng.choice(np.arange(32, TOKENS - 32), samples - 1, replace=False)) for _ in range(ROWS)]
    starts = [np.concatenate([[0], cut]) for cut in cuts]
    segments = np.array([np.searchsorted(start, np.arange(TOKENS), side="right") for start in starts], np.int32)
    positions = np.array([np.arange(TOKENS) - start[row - 1] for start, row in zip(starts, segments)], np.int32)
    lengths = np.array([np.bincount(row)[row] for row in segments])
    return {
        "tokens_BT": tokens[:, :-1],
        "targets_BT": tokens[:, 1:],
        "positions_BT": positions,
        "segment_ids_BT": segments,
        "loss_weights_BT": (positions >= lengths // 10).astype(np.float32),
        "spans_BT": np.ones((ROWS, TOKENS), np.int8),
    }


def ours(batch: dict[str, Any], dtype: Any):
    """A function that trains on one batch and waits for it."""
    from stratos_jax.mesh import cores
    from stratos_jax.mesh.config import MeshConfig
    from stratos_jax.model.config import ModelConfig, read_architecture
    from stratos_jax.train.config import TrainConfig

    cores.keep_memory()
    cores.one_device_per_core([ROWS])
    import jax

    from stratos_jax.model.params import num_params
    from stratos_jax.train.devices import choose_mesh, with_remat
    from stratos_jax.train.state import init_state
    from stratos_jax.train.step import make_train_step

    arch = read_architecture(HF)
    model, train = ModelConfig(hf=HF, compute_dtype=dtype), TrainConfig(rows_per_step=ROWS)
    mesh, _ = choose_mesh(MeshConfig(), train, model, arch)
    train = with_remat(train, model, arch, mesh, row_tokens=TOKENS)
    step = make_train_step(arch, model, train, mesh, row_tokens=TOKENS, num_steps=1000)
    state = init_state(step.layout, mesh, 0)
    batch = jax.device_put(batch, step.batch_shardings)

    def run():
        nonlocal state
        state, metrics = step.run(state, batch)
        return float(metrics["loss"])

    return run, num_params(arch)


def theirs(batch: dict[str, Any], dtype: str):
    """The same with transformers' best attention on CPU and torch's fused AdamW; samples are told by positions."""
    import torch
    import transformers

    kwargs = {key: value for key, value in HF.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model("qwen2", **kwargs)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    ).train()
    adam = torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=0.0, fused=True)
    labels = np.where(batch["loss_weights_BT"] > 0, batch["targets_BT"], -100)
    one_sample = batch["segment_ids_BT"].max() == 1
    arrays = {"input_ids": batch["tokens_BT"], "shift_labels": labels}
    if not one_sample:  # without them its attention skips what lies ahead
        arrays["position_ids"] = batch["positions_BT"]
    inputs = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = model(**inputs, labels=inputs["shift_labels"]).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        return loss.item()

    return run, sum(p.numel() for p in model.parameters())


def work(side: str, dtype: str, samples: int) -> None:
    """One side: says what it is, then takes a step for each line that comes in, and prints its seconds."""
    run, parameters = (ours if side == "stratos_jax" else theirs)(batch_of(samples), dtype)
    print(json.dumps({"parameters": parameters, "first_loss": run()}), flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def compare(samples: int, dtype: str, rounds: int) -> dict[str, Any]:
    """Take turns; medians."""
    from stratos_jax.mesh.cores import KEEP, TUNABLES

    workers, said = {}, {}
    for side in SIDES:
        env = {**os.environ, TUNABLES: KEEP} if "keeps" in side else None
        command = [sys.executable, __file__, "--side", side, dtype, str(samples)]
        worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        workers[side], said[side] = worker, json.loads(worker.stdout.readline())
    seconds = {side: [] for side in SIDES}
    for turn in range(rounds + 1):
        for side, worker in workers.items():
            worker.stdin.write("step\n")
            worker.stdin.flush()
            taken = float(worker.stdout.readline())
            if turn:  # the first warms up
                seconds[side].append(taken)
    for worker in workers.values():
        worker.communicate()
    mine = seconds[SIDES[0]]
    ratios = {f"over {side}": statistics.median(b / a for a, b in zip(mine, seconds[side])) for side in SIDES[1:]}
    rates = {side: ROWS * TOKENS / statistics.median(taken) for side, taken in seconds.items()}
    return {"tokens_per_second": rates, **ratios, "said": said}


def main() -> None:
    """Both kinds of rows in both formats, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--side", nargs=3, metavar=("SIDE", "FORMAT", "SAMPLES"), help="one side's process")
    args = parser.parse_args()
    if args.side:
        work(args.side[0], args.side[1], int(args.side[2]))
        return
    for dtype in ("bfloat16", "float32"):
        for samples in (3, 1):
            result = compare(samples, dtype, args.rounds)
            print(json.dumps({"format": dtype, "samples_per_row": samples, **result}), flush=True)


if __name__ == "__main__":
    main()
