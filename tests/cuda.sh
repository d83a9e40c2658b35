#!/usr/bin/env bash
# The tests that take a device, on this machine's GPU, with the programs of E3_BIN (build-cuda/bin) and the Python of E3_PYTHON (.deps/parity):
# operators, rollouts, gradients, the offline commands against transformers, and jobs.
set -uo pipefail
cd "$(dirname "$0")/.."
export E3_BIN="${E3_BIN:-$PWD/build-cuda/bin}" E3_TEST_DEVICE=cuda
python="${E3_PYTHON:-.deps/parity/bin/python}"
failed=0
check() {
  local begin=$SECONDS
  "$@" && echo "ok ($((SECONDS - begin)) s): $*" || { echo "FAILED ($((SECONDS - begin)) s): $*"; failed=1; }
}
check "$E3_BIN/torch_test" "rollouts of other devices*"
check "$E3_BIN/torch_test" "every device and dtype*"
check "$E3_BIN/torch_test" "every device does the same*"
check "$python" tests/parity/logprobs.py
check "$python" tests/parity/grpo.py
check python3 tests/e2e/sft_test.py
check python3 tests/e2e/nccl_test.py 2
check python3 tests/e2e/nccl_test.py 2 shard
check python3 tests/e2e/job_test.py
exit $failed
