"""The client as people meet it: help, errors, offline commands in pipes."""
import json
import pathlib
import subprocess
import tempfile

from harness import E3, ROOT, check, free_port_base, run

STARTER = ROOT / "deploy/models/countdown-starter"


def pipe(*args, lines, code=0, out=False):
    p = subprocess.run([E3, *map(str, args)], input="".join(json.dumps(l) + "\n" for l in lines), capture_output=True, text=True)
    if p.returncode != code:
        check(False, f"e3 {args}: exit {p.returncode}\n{p.stderr}")
    return [json.loads(line) for line in p.stdout.splitlines()] if code == 0 or out else p.stderr


check("e3 run deploy/jobs/countdown.yaml" in run("--help"), "--help says where to start")
for command in ("up", "down", "run", "submit", "validate", "list", "watch", "cancel", "generate", "score", "encode", "decode", "verify", "sft"):
    check("--help" in run(command, "--help"), f"e3 {command} --help explains itself")

folder = pathlib.Path(tempfile.mkdtemp())
bad = folder / "bad.yaml"
bad.write_text((ROOT / "deploy/jobs/countdown.yaml").read_text().replace("group_size: 16", "group_sise: 16").replace("../models", str(ROOT / "deploy/models")))
message = run("validate", bad, code=1)
check(f"{bad}:" in message and "training.group_sise: unknown key 'group_sise'; did you mean 'group_size'?" in message, f"a bad job file is told with its place: {message.strip()}")
check("no such file" in run("validate", folder / "none.yaml", code=1), "a missing job file is told")
check("no job service at" in run("list", "--server", f"127.0.0.1:{free_port_base()}", code=1), "a missing server is told, with what to do")
check("nothing runs" in run("down", "--state", folder, code=1), "e3 down without e3 up is told")

PROMPT = {"prompt": "Numbers 3 7 12 Target 33 <think>"}
args = ("generate", "--model", STARTER, "--budget", 60, "--samples", 3, "--seed", 5)
lines = [{**PROMPT, "id": f"p{i}"} for i in range(5)]
out = pipe(*args, lines=lines)
check([(l["id"], l["sample"]) for l in out] == [(f"p{i}", s) for i in range(5) for s in range(3)], "a line a sample, in order")
check(all(len(l["token_ids"]) == len(l["logprobs"]) <= 60 and l["finish_reason"] in ("stop", "length") for l in out), "tokens, log-probabilities, finish reasons")
check(out == pipe(*args, lines=lines), "the same seed gives the same samples")
check(out[:3] == pipe(*args, lines=lines[:1]), "a line does not depend on the lines after it")
check(len({tuple(l["token_ids"]) for l in out}) > 3, "samples differ")

ids = pipe("encode", "--model", STARTER, lines=[PROMPT])[0]["token_ids"]
scored = pipe("score", "--model", STARTER, lines=[{"token_ids": ids + out[0]["token_ids"]}])[0]["logprobs"]
difference = max(abs(a - b) for a, b in zip(scored[len(ids):], out[0]["logprobs"]))
check(difference < 2e-5, f"score gives generate's log-probabilities ({difference:.1e})")
check(pipe("decode", "--model", STARTER, lines=[{"token_ids": ids}])[0]["text"] == PROMPT["prompt"], "decode is encode's inverse here")

verdicts = pipe("verify", "countdown", lines=[{"response": "<answer>3*7+12</answer>", "numbers": [3, 7, 12], "target": 33}, {"response": "", "numbers": [1], "target": 1}])
check([v["score"] for v in verdicts] == [1, 0] and set(verdicts[0]) == {"id", "score", "extracted", "rule", "reason"}, "verify countdown")
check(pipe("verify", "math", lines=[{"response": "\\boxed{\\frac12}", "gold": "0.5"}])[0]["rule"] == "rational", "verify math")
verdicts = pipe("verify", "math", "--extract", "any", lines=[{"response": "So the answer is 42.", "gold": "We add 40 and 2.\n#### 42"}])
check(verdicts[0]["score"] == 1 and verdicts[0]["extracted"] == "42", "verify math, anywhere in the text")
check([v["score"] for v in pipe("verify", "countdown", "--rule", "tinyzero", lines=[{"response": "<answer>3 + 7</answer>", "numbers": [3, 7, 12], "target": 33}])] == [0.1], "TinyZero's format score")
check([v["score"] for v in pipe("verify", "math", "--precision", 2, lines=[{"response": "\\boxed{3.14}", "gold": "3.14159"}])] == [1], "verify math to two digits")
many = [{"id": i, "response": f"\\boxed{{{i}}}", "gold": str(i - i % 2)} for i in range(5000)]
many[4321] = {"id": 4321, "response": "no gold"}
verdicts = pipe("verify", "math", lines=many, code=1, out=True)
check([v["id"] for v in verdicts] == list(range(5000)), "a line out for every line in, in order")
check(all(v.get("score") == 1 - v["id"] % 2 for v in verdicts if v["id"] != 4321) and "gold" in verdicts[4321]["error"], "a line that cannot be judged has an error, and the others their verdicts")
check("standard input:2: no \"gold\"" in pipe("verify", "math", lines=[{"response": "x", "gold": "1"}, {"response": "x"}], code=1), "a bad line is told by number")
check("context of 2048" in pipe("generate", "--model", STARTER, "--budget", 4000, lines=[PROMPT], code=1), "a budget beyond the context is refused by name")
check("has no chat template" in pipe("generate", "--model", STARTER, "--budget", 4, lines=[{"messages": [{"role": "user", "content": "x"}]}], code=1), "messages without a template are refused")
check("config.json" in pipe("generate", "--model", folder, "--budget", 4, lines=[PROMPT], code=1), "a folder without a model is told")
