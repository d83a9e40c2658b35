#!/usr/bin/env bash
# What running on GPUs needs besides LibTorch: NVIDIA's libraries, as the wheels that the pinned LibTorch was built with, beside
# it in .deps/libtorch (about 3 GB). Building needs no GPU and no driver.
set -euo pipefail
cd "$(dirname "$0")/../.."
PINS=(nvidia-cublas==13.1.0.3 nvidia-cuda-cccl==13.0.85 nvidia-cuda-crt==13.0.88 nvidia-cuda-cupti==13.0.85 nvidia-cuda-nvrtc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cudnn-cu13==9.19.0.56 nvidia-cufft==12.0.0.61 nvidia-cufile==1.15.1.6 nvidia-curand==10.4.0.35 nvidia-cusolver==12.0.4.66 nvidia-cusparse==12.6.3.3 nvidia-cusparselt-cu13==0.8.0 nvidia-nccl-cu13==2.28.9 nvidia-nvjitlink==13.0.88 nvidia-nvshmem-cu13==3.4.5 nvidia-nvtx==13.0.85)
key="${PINS[*]}"
[ -f .deps/cuda.stamp ] && [ "$(cat .deps/cuda.stamp)" = "$key" ] && exit 0
echo "setup: fetching NVIDIA's libraries into .deps/libtorch"
python3 -m pip install -q --disable-pip-version-check --root-user-action=ignore --no-deps --no-compile --upgrade --target .deps/libtorch \
  --only-binary=:all: --platform manylinux_2_24_x86_64 --platform manylinux_2_18_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux1_x86_64 --platform manylinux2010_x86_64 --platform manylinux_2_5_x86_64 --platform manylinux_2_12_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --python-version 3.11 --implementation cp "${PINS[@]}"
echo "$key" > .deps/cuda.stamp
