"""Tokens a second of a 20M-parameter student: this trainer beside transformers and torch, both on this CPU, float32.

python benchmarks/train_cpu.py [--rounds 5]
Both sides take the same weights, the same packed rows of one sample, AdamW and clipping; they take turns, so that other
work on the machine meets both alike. Prints one JSON object.
"""

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
ROWS, TOKENS = 8, 512
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


def ours():
    """A function that trains on one batch and waits for it."""
    import jax
    import numpy as np

    from stratos_jax.mesh import layout
    from stratos_jax.mesh.rules import AXES
    from stratos_jax.model.config import ModelConfig, read_architecture
    from stratos_jax.model.params import num_params
    from stratos_jax.train.config import TrainConfig
    from stratos_jax.train.state import init_state
    from stratos_jax.train.step import make_train_step

    arch = read_architecture(HF)
    mesh = layout.make_mesh(dict.fromkeys(AXES, 1), jax.devices()[:1])
    train = TrainConfig(rows_per_step=ROWS, remat="none")
    model = ModelConfig(hf=HF, compute_dtype="float32")
    step = make_train_step(arch, model, train, mesh, row_tokens=TOKENS, num_steps=1000)
    state = init_state(step.layout, mesh, 0)
    tokens = np.random.default_rng(0).integers(0, arch.vocab_size, (ROWS, TOKENS + 1)).astype(np.int32)
    batch = {
        "tokens_BT": tokens[:, :-1],
        "targets_BT": tokens[:, 1:],
        "positions_BT": np.tile(np.arange(TOKENS, dtype=np.int32), (ROWS, 1)),
        "segment_ids_BT": np.ones((ROWS, TOKENS), np.int32),
        "loss_weights_BT": np.ones((ROWS, TOKENS), np.float32),
        "spans_BT": np.ones((ROWS, TOKENS), np.int8),
    }
    batch = jax.device_put(batch, step.batch_shardings)

    def run():
        nonlocal state
        state, metrics = step.run(state, batch)
        return float(metrics["loss"])

    return run, num_params(arch)


def theirs():
    """The same with transformers' best attention on CPU and torch's fused AdamW."""
    import numpy as np
    import torch
    import transformers

    kwargs = {key: value for key, value in HF.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model("qwen2", **kwargs)
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="sdpa"
    ).train()
    adam = torch.optim.AdamW(model.parameters(), 1e-5, weight_decay=0.0, fused=True)
    tokens = np.random.default_rng(0).integers(0, HF["vocab_size"], (ROWS, TOKENS + 1))
    inputs, targets = (torch.from_numpy(part.copy()) for part in (tokens[:, :-1], tokens[:, 1:]))

    def run():
        loss = model(input_ids=inputs, labels=targets, shift_labels=targets).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        return loss.item()

    return run, sum(p.numel() for p in model.parameters())


def main() -> None:
    """Take turns, and print medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    sides = {"stratos_jax": ours(), "transformers + torch": theirs()}
    first = {name: run() for name, (run, _) in sides.items()}  # compiles, warms up
    seconds = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (run, _) in sides.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    rates = {name: ROWS * TOKENS / statistics.median(taken) for name, taken in seconds.items()}
    names = list(sides)
    ratio = statistics.median(b / a for a, b in zip(seconds[names[0]], seconds[names[1]]))
    parameters = {name: count for name, (_, count) in sides.items()}
    print(json.dumps({"tokens_per_second": rates, "ratio": ratio, "parameters": parameters, "first_loss": first}))


if __name__ == "__main__":
    main()
