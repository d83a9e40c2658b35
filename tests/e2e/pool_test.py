"""kill -9 of one of two rollout servers in mid-flight, again and again: its rollouts go on elsewhere from their last token, and everything that
is learned is, to the last bit, what an undisturbed run learns."""
import threading
import time

from harness import Cluster, check, ledger, run, write_job


def value(text, name):
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))


def finish(c, job_file, kill):
    """Runs the job; kills a server with running rollouts about every second. Returns the ledger and how many died while they had rollouts."""
    job = c.submit(job_file)
    done = threading.Event()
    killed = [0]

    def killer():
        while not done.is_set():
            name = f"rollout-server-{killed[0] % 2}"
            try:
                if value(c.metrics(name), "e3_rollout_running") >= 8:
                    c.kill(name)
                    killed[0] += 1
                    time.sleep(1)
            except OSError:
                pass
            time.sleep(0.02)

    thread = threading.Thread(target=killer)
    if kill:
        thread.start()
    try:
        run("watch", job, "--state", c.state)
    finally:
        done.set()
    if kill:
        thread.join()
    return ledger(c.output(job)), killed[0]


with Cluster("--rollout-servers", "2") as c:
    job_file = write_job(c.state, "pool", [(128, 12)], prompts_per_step=16, group_size=8)
    disturbed, killed = finish(c, job_file, True)
    check(killed >= 3, f"{killed} times a server died with rollouts on their way")
    undisturbed, _ = finish(c, job_file, False)
    check([r["step"] for r in disturbed] == list(range(1, 13)), "every step is there once")
    same = sum(a["metrics"][m] == b["metrics"][m] for a, b in zip(disturbed, undisturbed) for m in ("reward", "loss", "response_length"))
    check(same == 36, f"reward, loss and length of 12 steps are those of the undisturbed run, to the last bit ({same} of 36)")
