"""Two ranks: the same run as often as it is repeated, also when one is killed or stalls; and the same gradients as one rank."""
import os
import pathlib
import signal
import time

from harness import Cluster, check, ledger, run, write_job

STEPS = 10


def history(records):
    return [(r["step"], r["data"], r["metrics"]["loss"], r["metrics"]["gradient_norm"]) for r in records]


with Cluster("--learner-ranks", "2", "--shard-optimizer") as c:
    job_file = write_job(c.state, "ranks", [(64, STEPS)], checkpoint_every=3)
    job = c.submit(job_file)
    log = pathlib.Path(c.state, "logs/learner.log")

    def wait_for(text, count=1):
        for _ in range(600):
            if log.read_text().count(text) >= count:
                return
            time.sleep(0.05)
        check(False, f"the learner's log says: {text}")

    wait_for('"msg":"step"', 3)
    c.kill("learner-rank-1")
    wait_for("group of ranks formed", 2)
    wait_for('"msg":"step"', 6)
    stalled = c.processes()["learner-rank-1"]["pid"]
    os.kill(stalled, signal.SIGSTOP)
    begin = time.time()
    text = log.read_text
    for _ in range(1200):
        if "rank 1 at" in text()[text().rfind("group of ranks formed"):]:
            break
        time.sleep(0.1)
    waited = time.time() - begin
    check(waited < 60, f"a rank that stalls is noticed after {waited:.0f} s")
    # Nobody but the supervisor ends it: the job goes on by itself.
    run("watch", job, "--state", c.state)
    disturbed = ledger(c.output(job))
    check([r["step"] for r in disturbed] == list(range(1, STEPS + 1)), "every step is there once")
    plain = c.submit(job_file)
    run("watch", plain, "--state", c.state)
    undisturbed = ledger(c.output(plain))
    same = sum(a == b for a, b in zip(history(disturbed), history(undisturbed)))
    check(same == STEPS, f"data, loss and gradient norm of {same} of {STEPS} steps are those of the undisturbed run, to the last bit")

with Cluster() as c:
    alone = c.submit(write_job(c.state, "ranks", [(64, STEPS)], checkpoint_every=3))
    run("watch", alone, "--state", c.state)
    one = ledger(c.output(alone))
    # From the first step on the same weights up to rounding; later ones may draw other tokens.
    a, b = one[0]["metrics"], undisturbed[0]["metrics"]
    check(one[0]["data"] == undisturbed[0]["data"] and a["reward"] == b["reward"], "one rank and two learn from the same rollouts")
    check(abs(a["gradient_norm"] - b["gradient_norm"]) <= 1e-4 * a["gradient_norm"], f"and their gradients agree ({a['gradient_norm']:.7f}, {b['gradient_norm']:.7f})")
