"""A fine-tuning that is killed -9 again and again goes on from its checkpoints, and writes the model that it would have written."""
import json
import os
import pathlib
import shutil
import signal
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

    text = run("sft", whole, *DEVICE, code=1)
    check("exists already" in text and "--overwrite" in text, "a model that is there is not replaced unasked")
    check((folder / "whole/model.safetensors").read_bytes() == model, "and stays as it was")
    above = json.loads(spec(folder, "above").read_text()) | {"output": str(folder)}
    (folder / "above.yaml").write_text(json.dumps(above))
    text = run("sft", folder / "above.yaml", "--overwrite", *DEVICE, code=1)
    check("would replace" in text and (folder / "data.jsonl").exists(), "nor, in any case, a folder that holds what is read")
    nowhere = json.loads(spec(folder, "nowhere").read_text()) | {"output": "/proc/nowhere"}
    (folder / "nowhere.yaml").write_text(json.dumps(nowhere))
    check("step" not in run("sft", folder / "nowhere.yaml", *DEVICE, code=1), "a place where nothing can be written is known before the first step")

    long = spec(folder, "long", steps=100000)
    p = subprocess.Popen([E3, "sft", long, *DEVICE], stderr=subprocess.PIPE, text=True)
    while not list(folder.glob("long.checkpoints/step-*[0-9]")):
        time.sleep(0.01)
    check("another e3 sft writes" in run("sft", long, *DEVICE, code=1), "two at once do not write to one place")
    p.send_signal(signal.SIGINT)
    text = p.communicate()[1]
    check(p.returncode == 1 and "interrupted; the same command goes on after step" in text, "interrupted, it says how to go on")
    step = int(text.split("after step ")[1])
    check((folder / f"long.checkpoints/step-{step:06d}").exists(), f"with a checkpoint of the step it was at ({step})")

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
    check("passed over" in text and "other settings" in text, "checkpoints of other settings are passed over")

    text = run("sft", spec(folder, "large", batch_tokens=1 << 40, micro_batch_tokens=1 << 40), *DEVICE, code=1)
    check("GiB are available" in text and "recompute_activations" in text, "what does not fit into memory is refused with the numbers and what to change")
finally:
    shutil.rmtree(folder, ignore_errors=True)
