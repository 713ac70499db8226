# Sourced by the other scripts: makes (once) the virtual environment .venv with the pinned packages, and activates it.
# usage: . scripts/env.sh [EXTRAS]      e.g. dev, or curate,eval; what dev holds serves every script

find_python() {
  for name in ${STRATOS_PYTHON:-} python3.11 python3.12 python3; do
    if "$name" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "error: no Python 3.11 or 3.12 found
  do:     install one, or set STRATOS_PYTHON to its path" >&2
  exit 2
}

make_env() { # EXTRAS
  local stamp sum there python
  stamp=.venv/installed
  sum=$(cat setup.py constraints.txt | cksum)
  there=$(cat "$stamp" 2>/dev/null || true)
  if [ "$there" != "$1 $sum" ] && [ "$there" != "dev $sum" ]; then
    echo "installing into .venv (one to three minutes, once)" >&2
    python=$(find_python) || exit 2
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip setuptools wheel
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".${1:+[$1]}"
    echo "$1 $sum" >"$stamp"
  fi
}

make_env "${1:-}"
. .venv/bin/activate
