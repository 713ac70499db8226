#!/usr/bin/env bash
# On a machine with one NVIDIA GPU, jax for CUDA and torch: parity of the GPU attention kernels, and training MFU beside
# torch in the same run. Prints what belongs under docs/benchmarks/.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1

date -u
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
python3 -c 'import jax, torch; print("jax", jax.__version__, "torch", torch.__version__, jax.devices())'
python3 scripts/gpu_check_attention.py
python3 scripts/gpu_check_training.py
