#!/usr/bin/env bash
# Runs one parity test in its Python environment; exits with 77 (skipped) where that could not be made.
cd "$(dirname "$0")"
python=../../.deps/parity/bin/python
if [ ! -x "$python" ]; then
  echo "skipped: .deps/parity is not there; its packages could not be fetched (deploy/setup/test_tools.sh says why)"
  exit 77
fi
exec "$python" "$1.py"
