#!/usr/bin/env python3
"""The learner's update against transformers or PyTorch with AdamW, and the ceiling of the matrix products, in one run: `make bench-learner`.

SmolLM2-135M, fp32, two threads, 4 sequences of 256 tokens, with and without activation checkpointing. Then the starter model: on 64 sequences of 96 tokens,
against one batch of them in plain PyTorch; and on 512 rollouts that it generates in this run, against the prototype's way (micro-batches of 8 rollouts, sorted
by length and padded). Every program gets the machine to itself, one after the other; the peak of memory is its process's. Tokens are those of prompts and
responses; padding does not count. bf16 rows are on processors that multiply in it.
"""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".deps/parity/bin/python"
STARTER, SMOLLM2 = ROOT / "deploy/models/countdown-starter", ROOT / ".deps/models/smollm2"
ENV = dict(os.environ, OMP_NUM_THREADS="2", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
ENV.pop("OMP_WAIT_POLICY", None)


def output(lines, *command, **more):
    p = subprocess.run(list(map(str, command)), input=lines, capture_output=True, text=True, env=dict(ENV, **more))
    if p.returncode != 0:
        sys.exit(f"bench-learner: {' '.join(map(str, command))} failed:\n{p.stderr[-2000:]}")
    return [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{")]


def rollout_lengths():
    """[prompt, response] tokens of 32 puzzles x 16 rollouts within 256 tokens."""
    puzzles = [f"Numbers {a} {b} {c} Target {a * b + c} <think>" for a, b, c in ((2 + i % 5, 3 + i // 8, 1 + i % 7) for i in range(32))]
    requests = "".join(json.dumps(dict(prompt=p)) + "\n" for p in puzzles)
    generated = output(requests, ROOT / "build/bin/e3", "generate", "--model", STARTER, "--samples", 16, "--budget", 256)
    return [[7, len(g["token_ids"])] for g in generated]


def bf16():
    return " avx512_bf16" in pathlib.Path("/proc/cpuinfo").read_text()


print("| model | checkpointing | e3, tok/s | peer | x | its products | of it | LibTorch's fp32 products | peak MiB | peer |")
print("| --- | --- " + "| ---: " * 8 + "|")
for name, model, peer, lengths, options in (
        ("SmolLM2-135M", SMOLLM2, "transformers_peer.py", [[1, 256]] * 4, []),
        ("starter", STARTER, "starter_peer.py", [[1, 96]] * 64, []),
        ("starter, rollouts", STARTER, "starter_peer.py", rollout_lengths(), ["--micro-batch", 8])):
    text = json.dumps(lengths)
    for recompute in ([], ["--recompute"]):
        (t,) = output(text, PYTHON, ROOT / "bench/learner" / peer, model, *options, *recompute)
        for dtype in ([], ["--bf16"]) if bf16() else ([],):
            micro_batch = ["--micro-batch-tokens", 4096] if options else []
            (o,) = output(text, ROOT / "build/bin/bench_learner", model, *micro_batch, *recompute, *dtype, GOMP_SPINCOUNT="10000")
            print(f"| {name}{', bf16' if dtype else ''} | {'yes' if recompute else 'no'} | {o['tokens_per_second']:.0f} | {t['tokens_per_second']:.0f} | "
                  f"{o['tokens_per_second'] / t['tokens_per_second']:.2f} | {o['own_products']:.0f} | {o['tokens_per_second'] / o['own_products']:.2f} | "
                  f"{o['libtorch_products']:.0f} | {o['peak_mib']:.0f} | {t['peak_mib']:.0f} |", flush=True)
