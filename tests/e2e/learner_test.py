"""The learner cannot lose a step: kill -9 at random moments, a torn and a foreign checkpoint, a full disk.

`learner_test.py KILLS [RANKS [shard]]` kills it KILLS times (3; `make kill-learner`: 20), or with RANKS > 1 the learner and its last rank in turn; with `shard` they divide the optimizer.
"""
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

from harness import Cluster, check, ledger, run, write_job

KILLS = int(sys.argv[1]) if len(sys.argv) > 1 else 3
RANKS = int(sys.argv[2]) if len(sys.argv) > 2 else 1
STEPS = 30


def step_of(c, job):
    row = next(line for line in run("list", "--state", c.state).splitlines() if line.startswith(job)).split()
    return int(row[4]), row[1]


def log(c):
    return pathlib.Path(c.state, "logs/learner.log").read_text()


def history(records):
    """What must not change: every step with its data and what came of it."""
    return [(r["step"], r["data"], r["metrics"]["loss"], r["metrics"]["reward"], r["metrics"]["gradient_norm"]) for r in records]


def disturbed(c, job_file, draw, kills):
    """Runs the job; kills the learner, or the ranks in turn, at random moments, at most `kills` times."""
    job = c.submit(job_file)
    names = ["learner"] + [f"learner-rank-{r}" for r in range(1, RANKS)]
    killed = 0
    while killed < kills:
        time.sleep(draw.uniform(0.2, 2.5))
        if step_of(c, job)[1] not in ("queued", "running"):
            break
        try:
            c.kill(names[killed % len(names)])
            killed += 1
        except ProcessLookupError:
            pass  # killed a moment ago, and not started again yet
    run("watch", job, "--state", c.state)
    return job, killed


with Cluster("--learner-ranks", str(RANKS), *(["--shard-optimizer"] if "shard" in sys.argv else [])) as c:
    job_file = write_job(c.state, "durable", [(64, STEPS)], checkpoint_every=4)
    plain = c.submit(job_file)
    run("watch", plain, "--state", c.state)
    undisturbed = ledger(c.output(plain))
    seed = int.from_bytes(os.urandom(4), "little")
    draw = random.Random(seed)
    killed = 0
    while killed < KILLS:
        job, more = disturbed(c, job_file, draw, KILLS - killed)
        killed += more
        records = ledger(c.output(job))
        check([r["step"] for r in records] == list(range(1, STEPS + 1)), f"every step is recorded once after {more} kills")
        same = sum(a == b for a, b in zip(history(records), history(undisturbed)))
        check(same == STEPS, f"step, data, loss, reward and gradient norm of {same} of {STEPS} steps are those of the undisturbed run, to the last bit")
    print(f"ok: {killed} kills in all, at moments of seed {seed}", flush=True)
    if RANKS > 1:
        check(f'"ranks":{RANKS}' in log(c), f"{RANKS} ranks learned")
        sys.exit(0)

    # A checkpoint that is torn, and one of another job: refused by name and reason, the one before is used.
    foreign = sorted(c.output(plain).glob("checkpoints/step-*"))[-1]
    victim = c.submit(write_job(c.state, "torn", [(64, 60)], checkpoint_every=2, prompts_per_step=16))
    checkpoints = c.output(victim) / "checkpoints"
    for _ in range(600):
        whole = sorted(checkpoints.glob("step-*[0-9]"))
        if len(whole) >= 3:
            break
        time.sleep(0.1)
    os.kill(c.processes()["learner"]["pid"], 19)  # SIGSTOP: the supervisor does not start another one meanwhile
    whole = sorted(p for p in checkpoints.glob("step-*") if not p.name.endswith(".part"))
    newest, before = whole[-1], whole[-2]
    with open(newest / "model.safetensors", "r+b") as f:
        f.truncate(1000)
    shutil.copytree(foreign, checkpoints / "step-900000")
    c.kill("learner")
    for _ in range(300):
        opened = [json.loads(line) for line in log(c).splitlines() if '"job opened"' in line and victim in line]
        if len(opened) >= 2:
            break
        time.sleep(0.1)
    check(f"step-900000 is of job {plain}, not {victim}" in log(c), "the foreign checkpoint is refused by name and reason")
    check(f"{newest.name} has a torn or corrupt model.safetensors" in log(c), "so is the torn one")
    check(opened[-1]["step"] == int(before.name[5:]), f"the run goes on from {before.name}")
    run("cancel", victim, "--state", c.state)
    run("watch", victim, "--state", c.state, code=1)

    # A full disk, as a small file system of its own.
    disk = tempfile.mkdtemp(prefix="e3-disk-")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=80m", "tmpfs", disk], capture_output=True).returncode != 0:
        print("not tried: a full disk (mounting a tmpfs needs privileges)")
        sys.exit(0)
    try:
        spec = json.loads(write_job(c.state, "full", [(64, 12)], checkpoint_every=2, keep_checkpoints=1).read_text()) | {"output": disk}
        file = pathlib.Path(c.state, "full.yaml")
        file.write_text(json.dumps(spec))
        job = c.submit(file)
        good = pathlib.Path(disk, job, "checkpoints")
        for _ in range(1200):
            if any(good.glob("step-*[0-9]")):
                break
            time.sleep(0.05)
        with open(pathlib.Path(disk, "ballast"), "wb") as ballast:
            try:
                while True:
                    ballast.write(bytes(1 << 16))
                    ballast.flush()
            except OSError:
                pass
        for _ in range(300):
            listing = run("list", "--state", c.state)
            if "No space left on device" in listing:
                break
            time.sleep(0.1)
        check("No space left on device" in listing, "the job says that the disk is full")
        stopped = step_of(c, job)
        time.sleep(2)
        check(step_of(c, job) == stopped, f"and stands still at step {stopped[0]}")
        left = sorted(p.name for p in good.glob("step-*") if not p.name.endswith(".part"))
        check(len(left) >= 1 and all((good / name / "trainer.json").exists() for name in left), f"the checkpoints before are whole: {', '.join(left)}")
        os.unlink(pathlib.Path(disk, "ballast"))
        run("watch", job, "--state", c.state)
        full = ledger(pathlib.Path(disk, job))
        check([r["step"] for r in full] == list(range(1, 13)), "with room again it goes on to its end")
    finally:
        subprocess.run(["umount", "-l", disk])
