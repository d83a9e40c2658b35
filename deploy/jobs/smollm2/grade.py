#!/usr/bin/env python3
"""Picks the GSM8K problems that a policy solves sometimes, by its own rollouts.

    grade.py E3 MODEL DATA.jsonl OUT.jsonl [PROBLEMS] [SAMPLES] [BUDGET] [TEMPERATURE]

Takes PROBLEMS problems with short solutions from the end of DATA (fine-tuning used the start), draws SAMPLES rollouts of each with
`e3 generate`, judges them with `e3 verify math`, and writes the lines whose rollouts are neither all right nor all wrong.
"""
import collections
import json
import pathlib
import subprocess
import sys

e3, model, data, out = sys.argv[1:5]
problems, samples, budget = (int(x) for x in (sys.argv[5:8] + ["128", "4", "128"][len(sys.argv[5:8]):]))
temperature = sys.argv[8] if len(sys.argv) > 8 else "0.6"
lines = [json.loads(line) for line in pathlib.Path(data).read_text().splitlines()]
lines = [line for line in reversed(lines) if len(line["answer"]) < 140][:problems]


def pipe(arguments, rows):
    text = subprocess.run([e3, *arguments], input="".join(json.dumps(r) + "\n" for r in rows), stdout=subprocess.PIPE, text=True, check=True).stdout
    return [json.loads(line) for line in text.splitlines()]


chats = [{"id": i, "messages": [{"role": "user", "content": line["question"] + "\nPut the final answer within \\boxed{}."}]} for i, line in enumerate(lines)]
rollouts = pipe(["generate", "--model", model, "--budget", str(budget), "--samples", str(samples), "--temperature", temperature, "--seed", "7"], chats)
verdicts = pipe(["verify", "math"], [{"id": r["id"], "response": r["text"], "gold": lines[r["id"]]["answer"].split("####")[1].strip()} for r in rollouts])
right = collections.Counter()
for verdict in verdicts:
    right[verdict["id"]] += verdict["score"] == 1
chosen = [line for i, line in enumerate(lines) if 0 < right[i] < samples]
pathlib.Path(out).write_text("".join(json.dumps(line) + "\n" for line in chosen))
boxed = sum(v["rule"] != "no-answer" for v in verdicts)
print(f"{len(rollouts)} rollouts: {boxed} boxed an answer, {sum(right.values())} right; {len(chosen)} of {len(lines)} problems solved sometimes")
if len(chosen) < 8:
    sys.exit("fewer than 8 problems: ask for more of them")
