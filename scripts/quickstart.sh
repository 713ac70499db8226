#!/usr/bin/env bash
# From a fresh clone to a report on two students: environment, installation, and the whole chain.
# Needs Python 3.11 or 3.12; no key, no accelerator, no network after installation.
# Ctrl-C and run again: it goes on where it stopped. Words after the name go to `stratos run`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

. scripts/env.sh ""
export JAX_PLATFORMS=cpu
exec .venv/bin/stratos run configs/quickstart.py "$@"
