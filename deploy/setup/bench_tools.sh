#!/usr/bin/env bash
# What only benchmarks need: .deps/math-verify, the Python environment of the reward service's peer.
set -euo pipefail
cd "$(dirname "$0")/../.."
PIN="math-verify==0.9.0"
if ! { [ -f .deps/math-verify.stamp ] && [ "$(cat .deps/math-verify.stamp)" = "$PIN" ]; }; then
  rm -rf .deps/math-verify
  python3 -m venv .deps/math-verify
  .deps/math-verify/bin/pip install -q --disable-pip-version-check "$PIN"
  echo "$PIN" > .deps/math-verify.stamp
fi
