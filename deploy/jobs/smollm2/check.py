"""check.py OUTPUT: the job's policy gradients were not all zero, and rollout server and learner agreed at every step."""
import json
import pathlib
import sys

records = [json.loads(line) for line in (pathlib.Path(sys.argv[1]) / "ledger.jsonl").read_text().splitlines()]
for r in records:
    m = r["metrics"]
    print(f"step {r['step']}: gradient norm {m['gradient_norm']:.3f}, largest difference of log-probabilities {m.get('mismatch_max', 0):.1e}, mean {m.get('mismatch_mean', 0):.1e}")
moved = [r for r in records if r["metrics"]["gradient_norm"] > 0]
if len(records) < 3 or not moved:
    sys.exit(f"{len(moved)} of {len(records)} steps had a gradient; at least one of three must")
if any(r["metrics"]["mismatch_max"] > 5e-4 or r["metrics"]["mismatch_mean"] > 1e-5 for r in moved):
    sys.exit("rollout server and learner disagree")
