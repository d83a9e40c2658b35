#!/usr/bin/env python3
"""The reward service against math-verify, in one run: `make bench-reward`.

500 answers of math_train.jsonl (in E3_DATA_DIR, or ../shared/data), each in a box at the end of a short solution, half of them
spelled in another way and a fifth of them wrong; then bombs, Countdown, and the service over gRPC.
"""
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, "build", "bin")
DATA = os.environ.get("E3_DATA_DIR", os.path.join(ROOT, "..", "shared", "data"))
PEER = os.path.join(ROOT, ".deps", "math-verify", "bin", "python")
BOMBS = ["10^{10^{10}}", "1000000!", "{" * 2000 + "1" + "}" * 2000, "(" * 2000 + "1" + ")" * 2000, "9^{9^{9^9}}", r"\binom{10^9}{5\cdot 10^8}",
         r"\sum_{k=1}^{10^9} \frac{1}{k}", r"\sum_{a=1}^{9999}\sum_{b=1}^{9999} ab", r"\prod_{k=1}^{100000} k^k", "e^{e^{e^{e^e}}}", r"\sin(10^{10^{10}})",
         "9" * 16000, r"\frac{" * 2000, "2^" * 3000 + "2", "1,"*5000 + "1", r"\boxed{" * 1000 + "1" + "}" * 1000, r"(\sqrt2+1)^{10^5}", r"1.0000001^{10^9}",
         r"\lfloor 10^{10^5}\pi \rfloor", "(x+1)^{10000}", "(x+1)" * 3000, r"\sqrt{" * 500 + "2" + "}" * 500]


def spelled(answer, rng):
    """Another spelling of the same answer, or the answer itself."""
    fraction = re.fullmatch(r"\\[dt]?frac\{(-?\d+)\}\{(\d+)\}", answer)
    choices = [answer.replace(" ", "  "), answer.replace("\\frac", "\\dfrac"), answer]
    if fraction:
        choices.append(f"{fraction[1]}/{fraction[2]}")
    if re.fullmatch(r"-?\d+", answer):
        choices += [answer + ".0", "x = " + answer]
    return rng.choice(choices)


def pairs():
    rng = random.Random(5)
    rows = [json.loads(line) for line in open(os.path.join(DATA, "math_train.jsonl"))]
    answers = rng.sample([row["answer"] for row in rows if row["answer"]], 500)
    out = []
    for i, gold in enumerate(answers):
        answer = rng.choice(answers) if i % 5 == 0 else spelled(gold, rng) if i % 2 else gold
        out.append({"gold": gold, "response": f"We set up the equation and solve it step by step. Wait, let me check that.\nThe answer is $\\boxed{{{answer}}}$."})
    return out


def write(path, rows):
    with open(path, "w") as f:
        for row in rows:
            f.write(json.dumps(row) + "\n")


def ours(*args):
    return json.loads(subprocess.run([os.path.join(BIN, "bench_reward"), *args], check=True, capture_output=True, text=True).stdout)


def main():
    if not os.path.exists(os.path.join(DATA, "math_train.jsonl")):
        sys.exit(f"bench-reward: no math_train.jsonl in {DATA} (set E3_DATA_DIR)")
    with tempfile.TemporaryDirectory() as work:
        file = os.path.join(work, "pairs.jsonl")
        rows = pairs()
        write(file, rows)
        e3 = ours("math", file)
        peer_out = os.path.join(work, "peer.jsonl")
        if os.path.exists(PEER):
            subprocess.run([PEER, os.path.join(ROOT, "bench", "reward", "math_verify_peer.py"), file, peer_out], check=True, stderr=subprocess.DEVNULL)
            results = [json.loads(line) for line in open(peer_out)]
            seconds = sorted(r["seconds"] for r in results)
            peer_rate = len(seconds) / sum(seconds)
            print(f"math-verify   {peer_rate:10.0f} /s on one core   median {1e3 * seconds[250]:.2f} ms   p99 {1e3 * seconds[495]:.1f} ms   longest {1e3 * seconds[-1]:.0f} ms")
        print(f"e3            {e3['per_second']:10.0f} /s on one core   median {e3['median_us']:.1f} us   p99 {e3['p99_us']:.0f} us   longest {e3['max_us']:.0f} us")
        if os.path.exists(PEER):
            print(f"ratio         {e3['per_second'] / peer_rate:10.0f} x                (aim: 75 x, p99 under 1 ms)")
            differ = [i for i, r in enumerate(results) if r["score"] != e3["verdicts"][i]]
            print(f"verdicts that differ: {len(differ)} of {len(rows)}")
            for i in differ:
                boxed = rows[i]["response"].split("boxed{")[1][:-3]
                print(f"    e3 {e3['verdicts'][i]}, math-verify {results[i]['score']}: {boxed!r} against {rows[i]['gold']!r}")
        bombs = os.path.join(work, "bombs.jsonl")
        slowest = 0
        for bomb in BOMBS:
            write(bombs, [{"gold": gold, "response": f"\\boxed{{{bomb}}}"} for gold in ("1", "\\pi", "x^2", "10^{10^9}")])
            slowest = max(slowest, ours("bombs", bombs)["max_us"])
        print(f"bombs         {len(BOMBS)}, the longest {slowest / 1e3:.2f} ms        (aim: under 10 ms)")
        print(f"countdown     {ours('countdown')['per_second']:10.0f} /s on one core   (aim: 300,000)")
        port = random.randint(20000, 30000)
        for cache in (0, 65536):
            server = subprocess.Popen([os.path.join(BIN, "e3-reward-service"), "--listen", f"127.0.0.1:{port}", "--metrics", "", "--cache-entries", str(cache)],
                                      stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                time.sleep(1)
                grpc = ours("grpc", file, f"127.0.0.1:{port}")
            finally:
                server.terminate()
                server.wait()
            print(f"over gRPC     {grpc['per_second']:10.0f} /s on {os.cpu_count()} cores with the client, cache {cache}   (aim: 20,000)   {grpc['errors']} errors, {grpc['status']}")
            port += 1


if __name__ == "__main__":
    main()
