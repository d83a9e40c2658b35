#!/usr/bin/env python3
"""The default job, synchronous and with the rollouts of the next step generated meanwhile, with three seeds each: `make bench-pipelined`.

Wall time of the training steps (without measurements), the share of it in which each side waited for the other, and the final J of both stages.
On one machine both sides share the cores, so what one gains in waiting the other may lose in speed.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
E3 = ROOT / "build/bin/e3"
SPINS = sys.argv[1:] or ["10000"]


def run(seed, staleness, spin):
    with tempfile.TemporaryDirectory(prefix="e3-bench-") as folder:
        text = (ROOT / "deploy/jobs/countdown.yaml").read_text()
        text = text.replace("seed: 1  ", f"seed: {seed}  ").replace("../models/", f"{ROOT}/deploy/models/").replace("training:\n", f"training:\n  max_staleness: {staleness}\n", 1)
        job = pathlib.Path(folder, "job.yaml")
        job.write_text(text)
        env = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | {"GOMP_SPINCOUNT": spin}
        p = subprocess.run([E3, "run", job, "--state", f"{folder}/state", "--port-base", "17900"], capture_output=True, text=True, env=env)
        if p.returncode != 0:
            sys.exit(f"bench-pipelined: {p.stdout[-2000:]}{p.stderr[-2000:]}")
        output = next(pathlib.Path(folder, "state/learner/jobs").iterdir())
        steps = [json.loads(line)["metrics"] for line in (output / "ledger.jsonl").read_text().splitlines()]
        stages = json.loads((output / "summary.json").read_text())["stages"]
        seconds = sum(m["step_seconds"] for m in steps)
        final = [dict(zip(e["budgets"], e["j"])) for e in (s["evaluations"][-1] for s in stages)]
        return dict(seconds=seconds, learner=sum(m["idle_seconds"] for m in steps) / seconds, rollouts=sum(m["rollout_idle_seconds"] for m in steps) / seconds,
                    lag=sum(m["version_lag_mean"] for m in steps) / len(steps), j=[f[max(f)] for f in final])


print("| spin count | max_staleness | seed | steps, s | learner waits | rollouts wait | mean lag | J, stage 1 | J, stage 2 |")
print("| ---: " * 9 + "|")
for spin in SPINS:
    for staleness in (0, 1):
        for seed in (1, 2, 3):
            r = run(seed, staleness, spin)
            print(f"| {spin} | {staleness} | {seed} | {r['seconds']:.0f} | {r['learner']:.0%} | {r['rollouts']:.0%} | {r['lag']:.2f} | {r['j'][0]:.3f} | {r['j'][1]:.3f} |", flush=True)
