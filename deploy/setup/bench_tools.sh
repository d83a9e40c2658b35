#!/usr/bin/env bash
# What only benchmarks need, by name:
#   reward   .deps/math-verify, the Python environment of the reward service's peer
#   rollout  .deps/llama.cpp, built with all of this machine's vector instructions (about four minutes)
set -euo pipefail
cd "$(dirname "$0")/../.."
mkdir -p .deps

stamp() { [ -f ".deps/$1.stamp" ] && [ "$(cat ".deps/$1.stamp")" = "$2" ]; }

reward() {
  local pin="math-verify==0.9.0"
  stamp math-verify "$pin" && return
  rm -rf .deps/math-verify
  python3 -m venv .deps/math-verify
  .deps/math-verify/bin/pip install -q --disable-pip-version-check "$pin"
  echo "$pin" > .deps/math-verify.stamp
}

rollout() {
  local pin="llama-cpp-python==0.3.36"
  stamp llama.cpp "$pin" && return
  echo "bench tools: building llama.cpp from the sdist of $pin"
  local work; work=$(mktemp -d)
  python3 -m pip download -q --disable-pip-version-check --no-deps --no-binary :all: --dest "$work" "$pin"
  tar xzf "$work"/*.tar.gz -C "$work"
  rm -rf .deps/llama.cpp
  cmake -S "$work"/llama_cpp_python-*/vendor/llama.cpp -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_EXAMPLES=OFF > "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
  cmake --build "$work/build" --target llama-batched-bench llama-quantize >> "$work/log" 2>&1 || { tail -20 "$work/log"; exit 1; }
  mkdir -p .deps/llama.cpp
  cp "$work"/build/bin/llama-batched-bench "$work"/build/bin/llama-quantize .deps/llama.cpp/
  rm -rf "$work"
  echo "$pin" > .deps/llama.cpp.stamp
}

for tool in "$@"; do
  "$tool"
done
