"""Shared by the end-to-end tests: real processes in a state folder of their own, on ports of their own."""
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
E3 = str(pathlib.Path(os.environ.get("E3_BIN", ROOT / "build/bin")) / "e3")
SKIP = 77  # ctest SKIP_RETURN_CODE
SERVICES = ["job-service", "reward-service", "rollout-server-0", "learner", "curriculum-controller"]


def check(condition, message):
    if not condition:
        print(f"FAILED: {message}", flush=True)
        raise SystemExit(1)
    print(f"ok: {message}", flush=True)


def run(*args, code=0, **kwargs):
    """Runs e3; checks its exit code; returns what it printed."""
    p = subprocess.run([E3, *map(str, args)], capture_output=True, text=True, timeout=600, **kwargs)
    if p.returncode != code:
        check(False, f"e3 {' '.join(map(str, args))}: exit {p.returncode}, not {code}\n{p.stdout}\n{p.stderr}")
    return p.stdout + p.stderr


def free_port_base():
    """A base such that the ports of all services are free."""
    for base in range(17400, 60000, 400):
        try:
            for offset in (0, 1, 2, 3, 10, 11, 20, 21, 31, 32, 33, 100, 101, 102, 103, 110, 111, 131, 132, 133):
                with socket.socket() as s:
                    s.bind(("127.0.0.1", base + offset))
            return base
        except OSError:
            continue
    raise SystemExit("no free ports")


class Cluster:
    """`e3 up` for the time of a `with`."""

    def __init__(self, *flags):
        self.state = tempfile.mkdtemp(prefix="e3-e2e-")
        self.base = free_port_base()
        # E3_TEST_DEVICE=cuda runs the models on a GPU.
        device = os.environ.get("E3_TEST_DEVICE")
        self.flags = (*flags, "--device", device) if device else flags

    def __enter__(self):
        run("up", "--state", self.state, "--port-base", self.base, *self.flags)
        return self

    def __exit__(self, kind, error, _):
        subprocess.run([E3, "down", "--state", self.state], capture_output=True)
        if kind is not None and not (kind is SystemExit and error.code == 0):
            for log in sorted(pathlib.Path(self.state, "logs").glob("*.log")):
                print(f"--- {log.name}\n{log.read_text()[-3000:]}", flush=True)
        else:
            shutil.rmtree(self.state, ignore_errors=True)

    def processes(self):
        for _ in range(50):
            try:
                return {s["name"]: s for s in json.loads(pathlib.Path(self.state, "processes.json").read_text())["services"]}
            except (OSError, ValueError):
                time.sleep(0.05)
        raise SystemExit("no processes.json")

    def kill(self, name):
        os.kill(self.processes()[name]["pid"], signal.SIGKILL)

    def submit(self, job):
        return run("submit", job, "--state", self.state).strip().splitlines()[-1]

    def metrics(self, name):
        with urllib.request.urlopen(f"http://{self.processes()[name]['metrics']}/metrics", timeout=10) as reply:
            return reply.read().decode()

    def output(self, job):
        return pathlib.Path(self.state, "learner/jobs", job)


def write_job(folder, name, stages, **training):
    """A small Countdown job; stages are (budget, steps)."""
    t = dict(prompts_per_step=8, group_size=4, mini_batches=2, micro_batch_tokens=4096, learning_rate=1e-4, checkpoint_every=2) | training
    job = dict(name=name, seed=3, model=str(ROOT / "deploy/models/countdown-starter"),
               datasets={"d": {"countdown": {"numbers": 3, "count": 64, "seed": 4}}}, prompting={"chat_template": False}, training=t,
               curriculum=dict(grid=[32, 64], measurement=dict(prompts=16, samples=1),
                               stages=[dict(name=f"s{i}", dataset="d", budget=str(b), steps=n) for i, (b, n) in enumerate(stages)]))
    path = pathlib.Path(folder, f"{name}.yaml")
    path.write_text(json.dumps(job, indent=1))  # JSON is YAML
    return path


def ledger(output):
    return [json.loads(line) for line in (output / "ledger.jsonl").read_text().splitlines()]


def alive(pattern):
    return subprocess.run(["pgrep", "-f", pattern], capture_output=True, text=True).stdout.split()
