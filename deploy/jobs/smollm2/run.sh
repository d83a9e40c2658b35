#!/usr/bin/env bash
# A real model on real problems: converts SmolLM2-135M-Instruct, teaches it to box answers (e3 sft), picks GSM8K problems that it solves
# sometimes, and trains it on them with GRPO. Needs .deps/parity (deploy/setup/test_tools.sh) and gsm8k_train.jsonl in E3_DATA_DIR.
set -euo pipefail
cd "$(dirname "$0")/../../.."
export E3_DATA_DIR="${E3_DATA_DIR:-$(realpath -m ../shared/data)}"
e3="$PWD/build/bin/e3"
[ -f "$E3_DATA_DIR/gsm8k_train.jsonl" ] || { echo "smollm2: no gsm8k_train.jsonl in E3_DATA_DIR ($E3_DATA_DIR); skipped"; exit 77; }
[ -x .deps/parity/bin/python ] || { echo "smollm2: .deps/parity is not there (deploy/setup/test_tools.sh); skipped"; exit 77; }
[ -f .deps/models/smollm2/model.safetensors ] || .deps/parity/bin/python deploy/models/convert_smollm2.py .deps/models/smollm2
mkdir -p state/smollm2
[ -f state/smollm2/boxed/model.safetensors ] || "$e3" sft deploy/jobs/smollm2/sft.yaml
[ -f state/smollm2/sometimes.jsonl ] ||
  python3 deploy/jobs/smollm2/grade.py "$e3" state/smollm2/boxed "$E3_DATA_DIR/gsm8k_train.jsonl" state/smollm2/sometimes.jsonl
"$e3" run deploy/jobs/smollm2/rl.yaml --state state/smollm2/services --port-base 7800
python3 deploy/jobs/smollm2/check.py "$(ls -td state/smollm2/services/learner/jobs/*/ | head -1)"
