"""MFU of a 7B training step on one GPU, beside transformers and torch: `python scripts/gpu_check_training.py`.

In: a GPU of 80 GB or more; torch and transformers for the other side. Out: one JSON object per side and one line that
compares them; exit code 1 where ours is below 45 % MFU or below theirs. Both sides train all weights of the Qwen2.5-7B
shape in bfloat16 with bfloat16 moments on rows of 16,384 tokens. Each side has a process and the whole GPU of its own.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

TOKENS, WARM_UP, STEPS, LEAST_MFU = 16_384, 2, 6, 0.45
HF = {
    "model_type": "qwen2",
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "rope_theta": 1_000_000.0,
    "max_position_embeddings": 32_768,
    "tie_word_embeddings": False,
}


def documents(packed: bool) -> list[int]:
    """Lengths of the samples in a row."""
    return [7000, 4500, 3000, 1884] if packed else [TOKENS]


def run_ours(packed: bool, remat: str) -> dict:
    """Seconds of our step."""
    import jax
    import numpy as np

    from stratos_jax.mesh import layout
    from stratos_jax.mesh.rules import AXES
    from stratos_jax.model.config import ModelConfig, read_architecture
    from stratos_jax.train.config import OptimizerConfig, TrainConfig
    from stratos_jax.train.state import init_state
    from stratos_jax.train.step import make_train_step

    arch = read_architecture(HF)
    mesh = layout.make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    train = TrainConfig(rows_per_step=1, remat=remat, optimizer=OptimizerConfig(moments="bfloat16"))
    model = ModelConfig(hf=HF, param_dtype="bfloat16", compute_dtype="bfloat16")
    step = make_train_step(arch, model, train, mesh, row_tokens=TOKENS, num_steps=100)
    state = init_state(step.layout, mesh, 0)
    lengths = documents(packed)
    tokens = np.random.default_rng(0).integers(0, arch.vocab_size, (1, TOKENS + 1)).astype(np.int32)
    batch = {
        "tokens_BT": tokens[:, :-1],
        "targets_BT": tokens[:, 1:],
        "positions_BT": np.concatenate([np.arange(n) for n in lengths])[None].astype(np.int32),
        "segment_ids_BT": np.repeat(np.arange(len(lengths)) + 1, lengths)[None].astype(np.int32),
        "loss_weights_BT": np.ones((1, TOKENS), np.float32),
        "spans_BT": np.ones((1, TOKENS), np.int8),
    }
    batch = jax.device_put(batch, step.batch_shardings)

    def one() -> float:
        nonlocal state
        state, metrics = step.run(state, batch)
        return float(metrics["loss"])

    seconds, loss = timed(one)
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {"seconds": seconds, "loss": loss, "memory_gib": used / 2**30, "device": jax.devices()[0].device_kind}


def run_theirs(attention: str) -> dict:
    """Seconds of transformers' step: gradient checkpointing, fused AdamW; one document a row, which is what it does."""
    import torch
    import transformers

    kwargs = {key: value for key, value in HF.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model("qwen2", **kwargs)
    with torch.device("cuda"):
        options = {"dtype": torch.bfloat16, "attn_implementation": attention}
        model = transformers.AutoModelForCausalLM.from_config(config, **options).train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    adam = torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=0.0, fused=True)
    ids = torch.randint(0, HF["vocab_size"], (1, TOKENS), device="cuda")

    def one() -> float:
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        return loss.item()

    seconds, loss = timed(one)
    return {"seconds": seconds, "loss": loss, "memory_gib": torch.cuda.max_memory_allocated() / 2**30}


def timed(one) -> tuple[float, float]:
    """Median seconds of a step, and the last loss."""
    loss = [one() for _ in range(WARM_UP)][-1]
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        loss = one()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), loss


def in_a_process(*words: str) -> dict | None:
    """One side's figures, None where it cannot run."""
    environment = {**os.environ, "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.95"}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        print(f"{' '.join(words)}: cannot run here (exit code {done.returncode})", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare() -> int:
    """Both sides, the best variant of each."""
    from stratos_jax.model.config import read_architecture
    from stratos_jax.model.flops import train_flops
    from stratos_jax.train.flops import peak_flops

    arch = read_architecture(HF)
    runs = {f"ours {row} {remat}": in_a_process("--ours", row, remat) for row, remat in OURS}
    runs |= {f"torch {attention}": in_a_process("--theirs", attention) for attention in THEIRS}
    device = next(run["device"] for run in runs.values() if run and "device" in run)
    for name, run in runs.items():
        if run is not None:
            peak = peak_flops(device) or float("nan")
            run["mfu"] = train_flops(arch, documents("packed" in name)) / run["seconds"] / peak
            run["tokens_per_second"] = TOKENS / run["seconds"]
            print(json.dumps({"run": name, **run}), flush=True)
    best = lambda start: max((r["mfu"] for n, r in runs.items() if r and n.startswith(start)), default=0.0)
    packed, one, theirs = best("ours packed"), best("ours one"), best("torch")
    print(f"{device}: ours {packed:.1%} packed, {one:.1%} one document; transformers + torch {theirs:.1%}")
    return 0 if packed >= LEAST_MFU and one > theirs else 1


OURS = [("packed", "full"), ("packed", "context"), ("one", "context")]
THEIRS = ["flash_attention_2", "sdpa"]


def main() -> int:
    """One side when asked for it, else the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ours", nargs=2, metavar=("ROW", "REMAT"))
    parser.add_argument("--theirs", metavar="ATTENTION")
    args = parser.parse_args()
    if args.ours:
        print(json.dumps(run_ours(args.ours[0] == "packed", args.ours[1])))
        return 0
    if args.theirs:
        print(json.dumps(run_theirs(args.theirs)))
        return 0
    return compare()


if __name__ == "__main__":
    sys.exit(main())
