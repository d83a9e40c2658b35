"""kill -9 of each service in turn during a job: it is restarted, the job finishes, and the ledger is that of an undisturbed run.

With `default` as its argument the same is done to the default job (about five minutes).
"""
import subprocess
import sys
import time

from harness import E3, ROOT, SERVICES, Cluster, check, ledger, run, write_job

DEFAULT = sys.argv[1:] == ["default"]


def last_step(c, job):
    """Step and state of the job; waits while the job service is away."""
    for _ in range(200):
        p = subprocess.run([E3, "list", "--state", c.state], capture_output=True, text=True)
        if p.returncode == 0:
            row = next(line for line in p.stdout.splitlines() if line.startswith(job)).split()
            return int(row[4]), row[1]
        time.sleep(0.1)
    check(False, f"the job service comes back: {p.stderr}")


def finish(c, job_file, victims):
    job = c.submit(job_file)
    for i, name in enumerate(victims):
        target = 1 + (4 if DEFAULT else 7) * i
        for _ in range(1500):
            step, state = last_step(c, job)
            if step >= target or state != "running" and step > 0:
                break
            time.sleep(0.1)
        check(state == "running", f"the job runs when {name} is killed at step {step}")
        before = c.processes()[name]["restarts"]
        c.kill(name)
        for _ in range(200):
            if c.processes()[name]["restarts"] > before:
                break
            time.sleep(0.1)
        check(c.processes()[name]["restarts"] == before + 1, f"{name} was killed and started again")
    run("watch", job, "--state", c.state)
    return ledger(c.output(job))


with Cluster() as c:
    job_file = ROOT / "deploy/jobs/countdown.yaml" if DEFAULT else write_job(c.state, "killed", [(64, 36), ("auto", 4)])
    disturbed = finish(c, job_file, SERVICES)
    steps = 28 if DEFAULT else 40
    check([r["step"] for r in disturbed] == list(range(1, steps + 1)), f"no step of {steps} is missing or counted twice")
    check([r["generated_by"]["step"] for r in disturbed] == list(range(steps)), "each step learned from the weights of the step before")
    check(all(r["produced"]["step"] == r["step"] for r in disturbed), "each step made the next version")
    if not DEFAULT:
        undisturbed = finish(c, job_file, [])
        check([r["data"] for r in disturbed] == [r["data"] for r in undisturbed], "the data of every step is that of the undisturbed run")
        same = sum(a["metrics"]["reward"] == b["metrics"]["reward"] and a["metrics"]["loss"] == b["metrics"]["loss"] for a, b in zip(disturbed, undisturbed))
        check(same == steps, f"reward and loss of {same} of {steps} steps are those of the undisturbed run, to the last bit")
