"""A fine-tuning that is killed -9 again and again goes on from its checkpoints, and writes the model that it would have written."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

from harness import E3, ROOT, check, run

STEPS, EVERY = 60, 3
# E3_TEST_DEVICE=cuda trains on a GPU.
DEVICE = ["--device", os.environ["E3_TEST_DEVICE"]] if "E3_TEST_DEVICE" in os.environ else []


def spec(folder, name, **training):
    t = dict(steps=STEPS, batch_tokens=1024, micro_batch_tokens=512, max_tokens=256, learning_rate=1e-3, warmup_steps=4, checkpoint_every=EVERY) | training
    file = pathlib.Path(folder, f"{name}.yaml")
    file.write_text(json.dumps(dict(name=name, seed=5, model=str(ROOT / "deploy/models/countdown-starter"), output=str(folder / name), training=t,
                                    data=dict(prompting={"chat_template": False}, file=str(folder / "data.jsonl")))))
    return file


folder = pathlib.Path(tempfile.mkdtemp(prefix="e3-sft-"))
try:
    with open(folder / "data.jsonl", "w") as f:
        for i in range(60):
            a, b, c = 2 + i % 7, 1 + i % 11, 3 + i % 5
            attempts = " ".join(f"Try : {a} + {b} = {a + b} , {a + b} - {c} = {a + b - c} , no ." for _ in range(1 + i % 4))
            f.write(json.dumps(dict(prompt=f"Numbers {a} {b} {c} Target {a * b + c} <think>", response=f"{attempts} </think>")) + "\n")

    whole = spec(folder, "whole")
    run("sft", whole, *DEVICE)
    model = (folder / "whole/model.safetensors").read_bytes()
    check(not (folder / "whole.checkpoints").exists(), "the checkpoints are gone when the model is written")

    killed = spec(folder, "killed")
    checkpoints = folder / "killed.checkpoints"
    resumed = 0
    for kill in range(5):
        p = subprocess.Popen([E3, "sft", killed, *DEVICE], stderr=subprocess.PIPE, text=True)
        before = {c.name for c in checkpoints.glob("step-*[0-9]")}
        while p.poll() is None and len({c.name for c in checkpoints.glob("step-*[0-9]")} - before) < 2:
            time.sleep(0.01)
        if p.poll() is not None:
            break
        p.kill()
        resumed += "goes on from" in p.communicate()[1]
    check(kill >= 3 and resumed >= 2, f"killed {kill + 1} times, went on from a checkpoint {resumed} times")
    check(checkpoints.exists(), "it was killed before its end")
    newest = max(checkpoints.glob("step-*[0-9]"))
    with open(newest / "model.safetensors", "r+b") as f:
        f.truncate(1000)
    text = run("sft", killed, *DEVICE)
    check("passed over" in text and "torn or corrupt model.safetensors" in text and "goes on from" in text, "a torn checkpoint is passed over, with the reason, and the one before it used")
    check((folder / "killed/model.safetensors").read_bytes() == model, "the model is the same to the bit")

    # The same file with another setting is another training.
    half = subprocess.Popen([E3, "sft", spec(folder, "other", steps=100000), *DEVICE], stderr=subprocess.DEVNULL)
    while half.poll() is None and not list(folder.glob("other.checkpoints/step-*[0-9]")):
        time.sleep(0.01)
    half.kill()
    half.wait()
    text = run("sft", spec(folder, "other"), *DEVICE)
    check("passed over" in text and "is of job" in text, "checkpoints of other settings are passed over")

    text = run("sft", spec(folder, "large", batch_tokens=1 << 40, micro_batch_tokens=1 << 40), *DEVICE, code=1)
    check("GiB are available" in text and "recompute_activations" in text, "what does not fit into memory is refused with the numbers and what to change")
finally:
    shutil.rmtree(folder, ignore_errors=True)
