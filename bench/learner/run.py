#!/usr/bin/env python3
"""The learner's update against transformers + torch AdamW and the ceiling of the matrix products, in one run: `make bench-learner`.

SmolLM2-135M, fp32, two threads, 4 sequences of 256 tokens, with and without activation checkpointing; then the starter model on 64 sequences of 96
tokens, against a plain PyTorch update. Every program gets the machine to itself, one after the other; the peak of memory is its process's.
"""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".deps/parity/bin/python"
ENV = dict(os.environ, OMP_NUM_THREADS="2", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
ENV.pop("OMP_WAIT_POLICY", None)


def line(*command, **more):
    p = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=dict(ENV, **more))
    if p.returncode != 0:
        sys.exit(f"bench-learner: {' '.join(map(str, command))} failed:\n{p.stderr[-2000:]}")
    return json.loads([l for l in p.stdout.splitlines() if l.startswith("{")][-1])


print("| model | checkpointing | e3, tok/s | peer | x | packed products | of it | LibTorch's products | forward | backward | peak MiB | peer |")
print("| --- | --- " + "| ---: " * 10 + "|")
for name, folder, peer, sequences, tokens in (("SmolLM2-135M", ROOT / ".deps/models/smollm2", "transformers_peer.py", 4, 256),
                                              ("starter", ROOT / "deploy/models/countdown-starter", "starter_peer.py", 64, 96)):
    for recompute in ([], ["recompute"]):
        o = line(ROOT / "build/bin/bench_learner", folder, sequences, tokens, *recompute, GOMP_SPINCOUNT="10000")
        t = line(PYTHON, ROOT / "bench/learner" / peer, folder, sequences, tokens, *recompute)
        print(f"| {name} | {'yes' if recompute else 'no'} | {o['tokens_per_second']:.0f} | {t['tokens_per_second']:.0f} | {o['tokens_per_second'] / t['tokens_per_second']:.2f} | "
              f"{o['packed_products']:.0f} | {o['tokens_per_second'] / o['packed_products']:.2f} | {o['libtorch_products']:.0f} | {o['forward']:.0%} | {o['backward']:.0%} | "
              f"{o['peak_mib']:.0f} | {t['peak_mib']:.0f} |", flush=True)
