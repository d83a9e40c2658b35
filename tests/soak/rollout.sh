#!/usr/bin/env bash
# tests/soak/rollout.sh SECONDS [CLIENTS]: a rollout server of its own under rollout_soak (make soak).
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=$1 clients=${2:-64} model=deploy/models/countdown-starter
log=$(mktemp)
# A small cache and few places, so that sequences are preempted and wait.
build/bin/e3-rollout-server --listen 127.0.0.1:7970 --metrics 127.0.0.1:7971 --http 127.0.0.1:7972 --model "$model" \
  --kv-cache-mib 8 --max-sequences 96 --max-batch-tokens 512 2> "$log" &
server=$!
trap 'kill -9 $server 2>/dev/null; tail -3 "$log"; rm -f "$log"' EXIT
for _ in $(seq 100); do
  curl -sf 127.0.0.1:7972/health > /dev/null && break
  sleep 0.1
done
build/bin/rollout_soak 127.0.0.1:7970 7972 "$server" "$model" "$seconds" "$clients"
curl -s 127.0.0.1:7971/metrics | grep -E '^e3_rollout_(preemptions|prefix_hit|forced|sessions|tokens).*total' || true
