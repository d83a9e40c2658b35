#!/usr/bin/env python3
"""The rollout engine against transformers, llama.cpp and the ceiling of the matrix products, in one run: `make bench-rollout`.

SmolLM2-135M, fp32, two threads, 64 tokens of prompt and 64 new ones, at 1, 8, 32 and 128 rollouts; then the starter model against a PyTorch
generator. Every peer gets the machine to itself, one after the other.
"""
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build/bin"
PYTHON = ROOT / ".deps/parity/bin/python"
LLAMA = ROOT / ".deps/llama.cpp"
SMOLLM2 = ROOT / ".deps/models/smollm2"
STARTER = ROOT / "deploy/models/countdown-starter"
SIZES = [1, 8, 32, 128]
PROMPT = NEW = 64
ENV = dict(os.environ, OMP_NUM_THREADS="2", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
ENV.pop("OMP_WAIT_POLICY", None)


def lines(*command, **more):
    p = subprocess.run(list(map(str, command)), capture_output=True, text=True, env=dict(ENV, **more))
    if p.returncode != 0:
        sys.exit(f"bench-rollout: {' '.join(map(str, command))} failed:\n{p.stderr[-2000:]}")
    return [json.loads(line) for line in p.stdout.splitlines() if line.startswith("{")]


def ours(model, prompt, new, sizes):
    # As `e3 up` sets it.
    return {r["rollouts"]: r for r in lines(BIN / "bench_rollout", model, prompt, new, *sizes, GOMP_SPINCOUNT="10000")}


def llama_cpp():
    gguf = ROOT / ".deps/models/smollm2-f32.gguf"
    if not gguf.exists():
        source = next((ROOT / ".deps/parity").rglob("*.gguf"))
        subprocess.run([LLAMA / "llama-quantize", "--allow-requantize", source, gguf, "F32"], check=True, capture_output=True)
    out = {}
    for n in SIZES:
        r = lines(LLAMA / "llama-batched-bench", "-m", gguf, "-c", n * (PROMPT + NEW) + 64, "-b", 2048, "-ub", 512, "-npp", PROMPT, "-ntg", NEW, "-npl", n, "-t", 2, "-tb", 2,
                  "--output-format", "jsonl")[-1]
        out[n] = {"end_to_end": n * NEW / (r["t_pp"] + r["t_tg"]), "decode": r["speed_tg"]}
    return out


def main():
    smollm2 = ours(SMOLLM2, PROMPT, NEW, SIZES)
    peer = {r["rollouts"]: r for r in lines(PYTHON, ROOT / "bench/rollout/transformers_peer.py", SMOLLM2, PROMPT, NEW, *SIZES)}
    llama = llama_cpp()
    print("SmolLM2-135M, fp32, 2 threads, 64 + 64 tokens; tokens a second\n")
    print("| rollouts | decode | llama.cpp | x | transformers | x | packed products | of it | LibTorch's products | end to end | llama.cpp | x | transformers | x |")
    print("| ---: " * 14 + "|")
    for n in SIZES:
        o, l, t = smollm2[n], llama[n], peer[n]
        print(f"| {n} | {o['decode']:.0f} | {l['decode']:.0f} | {o['decode'] / l['decode']:.2f} | {t['decode']:.0f} | {o['decode'] / t['decode']:.2f} | {o['packed_products']:.0f} | "
              f"{o['decode'] / o['packed_products']:.2f} | {o['libtorch_products']:.0f} | {o['end_to_end']:.0f} | {l['end_to_end']:.0f} | {o['end_to_end'] / l['end_to_end']:.2f} | "
              f"{t['end_to_end']:.0f} | {o['end_to_end'] / t['end_to_end']:.2f} |")
    sizes = [1, 8, 32, 128, 512]
    starter = ours(STARTER, 10, NEW, sizes)
    torch = {r["rollouts"]: r for r in lines(PYTHON, ROOT / "bench/rollout/starter_peer.py", STARTER, 10, NEW, *sizes)}
    print("\nStarter model, fp32, 2 threads, 10 + 64 tokens\n")
    print("| rollouts | end to end, tok/s | PyTorch | x | decode, steps/s | schedule | forward | sample | products' share of a step |")
    print("| ---: " * 9 + "|")
    for n in sizes:
        o, t = starter[n], torch[n]
        print(f"| {n} | {o['end_to_end']:.0f} | {t['end_to_end']:.0f} | {o['end_to_end'] / t['end_to_end']:.2f} | {o['steps_a_second']:.0f} | {o['schedule']:.0%} | {o['forward']:.0%} | "
              f"{o['sample']:.0%} | {o['decode'] / o['packed_products']:.0%} |")


main()
