#!/usr/bin/env bash
# run.sh SECONDS JOBS: fuzzes the math verifier from the table of cases, tests/fuzz/math_corpus and what earlier runs found.
# An input that takes over five seconds or 1 GiB (sanitized) is a finding, as a crash is; each is kept in build-fuzz/findings.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=$1
jobs=$2
work=build-fuzz/corpus
mkdir -p "$work" build-fuzz/findings build-fuzz/seeds
python3 - <<'PY'
import hashlib
for line in open("tests/reward_service/math_cases.txt", encoding="utf-8"):
    if line.startswith("#") or ";;" not in line:
        continue
    _, gold, response, _ = (field.strip() for field in line.split(";;"))
    text = f"{gold}\n%%\n{response}".encode()
    open("build-fuzz/seeds/" + hashlib.sha1(text).hexdigest(), "wb").write(text)
PY
pids=()
for ((i = 0; i < jobs; ++i)); do
  build-fuzz/bin/math_fuzzer -max_total_time="$seconds" -timeout=5 -rss_limit_mb=1024 -max_len=2048 -reload=10 -seed=$((RANDOM + i)) \
    -dict=tests/fuzz/latex.dict -artifact_prefix=build-fuzz/findings/ -print_final_stats=1 \
    "$work" build-fuzz/seeds tests/fuzz/math_corpus > "build-fuzz/fuzz-$i.log" 2>&1 &
  pids+=($!)
done
failed=0
for ((i = 0; i < jobs; ++i)); do
  if ! wait "${pids[$i]}"; then
    failed=1
    tail -n 40 "build-fuzz/fuzz-$i.log"
  fi
  grep -h -E 'number_of_executed_units|average_exec_per_sec|peak_rss_mb' "build-fuzz/fuzz-$i.log" || true
done
if [ "$failed" -ne 0 ]; then
  echo "fuzz: findings in build-fuzz/findings"
  exit 1
fi
echo "fuzz: nothing found in $seconds seconds on $jobs cores"
