#!/usr/bin/env bash
# Everything that a change must pass, from a bare machine: environment, lint, types, tests.
# usage: bash scripts/test.sh          the default tests, under 20 minutes on 2 cores
#        bash scripts/test.sh --all    the long ones too (parity at size, chaos, ahead-of-time TPU), under 60
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

case "${1:-}" in
"") marks="not slow" ;;
--all) marks="" ;;
*)
  echo "usage: bash scripts/test.sh [--all]" >&2
  exit 2
  ;;
esac

. scripts/env.sh dev
echo "== lint"
ruff check .
ruff format --check .
echo "== types"
basedpyright --level error
echo "== tests"
python -m pytest -n 2 --dist loadfile --durations 15 -m "$marks"
