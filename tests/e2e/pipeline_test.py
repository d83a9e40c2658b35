"""Rollouts ahead of the learner: generated while it learns, never older than the bound, through changes of weights and deaths of servers and learner."""
import json
import threading
import time

from harness import Cluster, check, ledger, run, write_job

STALENESS = 2
STAGES = ["continue", "recompute", "cut", "drain"]

with Cluster("--rollout-servers", "2") as c:
    job_file = write_job(c.state, "pipelined", [(64, 6)] * len(STAGES), max_staleness=STALENESS)
    spec = json.loads(job_file.read_text())
    for stage, running in zip(spec["curriculum"]["stages"], STAGES):
        stage["training"] = {"running_rollouts": running}
    job_file.write_text(json.dumps(spec))
    job = c.submit(job_file)
    done = threading.Event()
    killed = []

    def killer():
        names = ["rollout-server-0", "learner", "rollout-server-1"]
        while not done.wait(2):
            if len(killed) < 6:
                try:
                    c.kill(names[len(killed) % 3])
                    killed.append(names[len(killed) % 3])
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=killer)
    thread.start()
    try:
        run("watch", job, "--state", c.state)
    finally:
        done.set()
        thread.join()
    records = ledger(c.output(job))
    steps = 6 * len(STAGES)
    check([r["step"] for r in records] == list(range(1, steps + 1)), f"every one of {steps} steps is there once, under {', '.join(STAGES)}; {len(killed)} processes were killed")
    check(len(killed) >= 3, "servers and learner among them")
    lag = [r["metrics"]["version_lag_max"] for r in records]
    begun = [r["step"] - 1 - r["generated_by"]["step"] for r in records]
    check(max(lag) <= STALENESS and max(begun) <= STALENESS, f"no token is older than {STALENESS} versions (at most {max(lag):.0f})")
    check(max(begun) == STALENESS, "and rollouts do begin that early")
    check(all(r["metrics"]["rollouts"] == 32 for r in records), "no rollout was dropped")
    check(all(r["metrics"]["response_length_max"] <= 64 for r in records), "and none is longer than its budget")
    mixed = [r["step"] for r in records if 0 < r["metrics"]["version_lag_mean"] % 1 < 1]
    check(mixed, f"tokens of one step are of several versions ({len(mixed)} steps)")
    check(all("mismatch_max" not in r["metrics"] or r["metrics"]["mismatch_max"] == 0 for r in records), "where a batch is not stale, both sides agree to the last bit")
