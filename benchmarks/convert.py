"""Conversion of a 7B-shaped checkpoint both ways, beside safetensors.torch load + save of the same files, in one run.

Each side runs in a process of its own, whose largest resident set is its peak. Weights are random, in shape and format
those of Qwen2.5-7B (15 GB of bfloat16). Needs about 50 GB of disk; everything is deleted at the end.
    python benchmarks/convert.py --folder /tmp/convert [--layers N] [--json FIGURES]
"""

import argparse
import json
import pathlib
import platform
import shutil
import subprocess
import sys
import time

import ml_dtypes
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIG = ROOT / "tests" / "golden" / "configs" / "Qwen2.5-7B-Instruct.json"
SHARD = 4 << 30
MEASURED = """
import json, resource, sys, time
start = time.monotonic()
{body}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"seconds": time.monotonic() - start, "cpu_seconds": used.ru_utime + used.ru_stime,
                   "peak_gib": used.ru_maxrss / 2**20}}))
"""
FROM_HF = """
from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
convert.from_hf({source!r}, {target!r}, ConvertConfig(dtype="keep"))
"""
TO_HF = """
from stratos_jax import convert
from stratos_jax.convert.config import ConvertConfig
convert.to_hf({source!r}, {target!r}, ConvertConfig(dtype="keep"))
"""
TORCH = """
import pathlib
from safetensors.torch import load_file, save_file
pathlib.Path({target!r}).mkdir()
for path in sorted(pathlib.Path({source!r}).glob("*.safetensors")):
    save_file(load_file(path), pathlib.Path({target!r}) / path.name)
"""


def write_model(folder: pathlib.Path, layers: int | None) -> int:
    """Random weights under the real config; returns their bytes."""
    from stratos_jax.convert.safetensors import Planned, plan_shards, write_header, write_tensor
    from stratos_jax.model.config import read_architecture
    from stratos_jax.model.names import hf_entries

    config = json.loads(CONFIG.read_text())
    config["num_hidden_layers"] = layers or config["num_hidden_layers"]
    dtype = np.dtype(ml_dtypes.bfloat16)
    tensors = [Planned(e.hf_name, dtype, e.hf_shape) for e in hf_entries(read_architecture(config))]
    files = plan_shards(tensors, SHARD)
    block = (np.random.default_rng(0).standard_normal(1 << 24, dtype=np.float32) * 0.02).astype(dtype)
    folder.mkdir(parents=True)
    for name, planned in files.items():
        with open(folder / name, "wb") as file:
            write_header(file, planned)
            for number, tensor in enumerate(planned):
                numbers = np.resize(np.roll(block, number * 7919), tensor.shape)
                write_tensor(file, tensor, numbers)
    weight_map = {tensor.name: name for name, planned in files.items() for tensor in planned}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps(config))
    return sum(tensor.bytes for tensor in tensors)


def measure(body: str, **names: str) -> dict[str, float]:
    """Run one side in a process of its own."""
    code = MEASURED.format(body=body.format(**names))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    figures = {key: round(value, 2) for key, value in json.loads(done.stdout.splitlines()[-1]).items()}
    print(body.strip().splitlines()[-1].strip()[:40], figures, flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    parser.add_argument("--layers", type=int, help="fewer layers, for a trial")
    parser.add_argument("--json", type=pathlib.Path, help="where to write the figures")
    args = parser.parse_args()
    if args.folder.exists():
        raise SystemExit(f"{args.folder} is there already")
    source, ckpt, out, copy = (str(args.folder / name) for name in ("hf", "ckpt", "out", "copy"))
    try:
        start = time.monotonic()
        size = write_model(pathlib.Path(source), args.layers)
        print(f"{size / 1e9:.2f} GB written in {time.monotonic() - start:.0f} s", flush=True)
        figures: dict[str, object] = {"bytes": size, "python": platform.python_version()}
        figures["from_hf"] = measure(FROM_HF, source=source, target=ckpt)
        figures["to_hf"] = measure(TO_HF, source=ckpt, target=out)
        shutil.rmtree(ckpt)
        figures["safetensors.torch"] = measure(TORCH, source=source, target=copy)
        print(json.dumps(figures, indent=1))
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1) + "\n")
    finally:
        shutil.rmtree(args.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
