#!/usr/bin/env bash
# Installs what building e3 needs, and nothing twice:
#   1. Debian 12 packages (apt-get; uses sudo when not root),
#   2. LibTorch, as the pinned PyPI wheel, into .deps/libtorch of this checkout.
# A stamp per step remembers what was installed; changing a pin below runs that step again.
set -euo pipefail
cd "$(dirname "$0")/../.."

TORCH=torch==2.11.0
# LibTorch's CPU library is linked against these two, even on a machine without a GPU.
CUDA_STUBS=("nvidia-cuda-runtime==13.0.96" "nvidia-cuda-cupti==13.0.85")
PACKAGES=(
  g++ cmake ninja-build ccache mold pkg-config curl ca-certificates
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libabsl-dev
  librocksdb-dev prometheus-cpp-dev libyaml-cpp-dev catch2 nlohmann-json3-dev libcli11-dev
  libcpp-httplib-dev libre2-dev libxxhash-dev libgmp-dev libflint-dev libflint-arb-dev libssl-dev zlib1g-dev libcurl4-openssl-dev libgloo-dev
)

need() { command -v "$1" >/dev/null 2>&1 || { echo "setup: '$1' is missing: $2" >&2; exit 1; }; }
need python3 "install Python 3 with pip (Debian: apt-get install python3 python3-pip)"
need cargo "install Rust 1.85 or newer (https://rustup.rs)"
python3 -m pip --version >/dev/null 2>&1 || { echo "setup: python3 has no pip: apt-get install python3-pip" >&2; exit 1; }

mkdir -p .deps

stamp() {  # stamp NAME KEY: true when NAME was done with exactly KEY
  [ -f ".deps/$1.stamp" ] && [ "$(cat ".deps/$1.stamp")" = "$2" ]
}

missing=()
for package in "${PACKAGES[@]}"; do
  [ "$(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "setup: installing Debian packages: ${missing[*]}"
  sudo=""
  if [ "$(id -u)" -ne 0 ]; then
    need sudo "not root, and these Debian packages are missing: ${missing[*]}"
    sudo=sudo
  fi
  need apt-get "this setup knows Debian 12 only; install by hand: ${missing[*]}"
  $sudo apt-get update -q
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y --no-install-recommends "${missing[@]}"
fi

key="$TORCH ${CUDA_STUBS[*]}"
if ! stamp libtorch "$key"; then
  echo "setup: fetching LibTorch ($TORCH) into .deps/libtorch"
  rm -rf .deps/libtorch .deps/libtorch.part
  python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile \
    --target .deps/libtorch.part --only-binary=:all: --python-version 3.11 --implementation cp \
    --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 "$TORCH" "${CUDA_STUBS[@]}"
  mv .deps/libtorch.part .deps/libtorch
  echo "$key" > .deps/libtorch.stamp
fi
