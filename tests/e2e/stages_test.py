"""What a stage begins with: optimizer and reference afresh or kept; and a job that does not fit into memory is refused."""
import json
import pathlib
import struct

from harness import Cluster, check, ledger, run, write_job


def tensor(path, name):
    """The bytes of a tensor in a safetensors file."""
    data = path.read_bytes()
    (n,) = struct.unpack("<Q", data[:8])
    begin, end = json.loads(data[8:8 + n])[name]["data_offsets"]
    return data[8 + n + begin:8 + n + end]


def last_checkpoint(c, job):
    folder = max((c.output(job) / "checkpoints").glob("step-*[0-9]"))
    return json.loads((folder / "trainer.json").read_text()), tensor(folder / "trainer.safetensors", "reference")


with Cluster() as c:
    stages = [(32, 2), (64, 2)]
    jobs = {}
    for name, kept in (("afresh", False), ("kept", True)):
        job = c.submit(write_job(c.state, name, stages, kl_coef=0.01, fresh_optimizer=not kept, reset_reference=not kept, checkpoint_every=1, keep_checkpoints=4))
        run("watch", job, "--state", c.state)
        check(len(ledger(c.output(job))) == 4, f"the job whose optimizer and reference are {name} does all steps")
        jobs[name] = job
    first = {name: json.loads((c.output(job) / "checkpoints/step-000002/trainer.json").read_text()) for name, job in jobs.items()}
    updates = first["afresh"]["updates"]
    check(updates == first["kept"]["updates"] and updates > 0, f"both made the same {updates} updates in their first stage")

    state, reference = last_checkpoint(c, jobs["kept"])
    of_start = tensor(c.output(jobs["kept"]) / "checkpoints/step-000001/trainer.safetensors", "reference")
    check(state["updates"] > updates, "kept: the optimizer counts on over the stages")
    check(reference == of_start, "kept: the reference is the model that the job began with")

    state, reference = last_checkpoint(c, jobs["afresh"])
    of_start = tensor(c.output(jobs["afresh"]) / "checkpoints/step-000001/trainer.safetensors", "reference")
    before = (c.output(jobs["afresh"]) / "checkpoints/step-000002/model.safetensors").read_bytes()
    policy = before[8 + struct.unpack("<Q", before[:8])[0]:]  # all parameters, in the order of the reference
    check(state["updates"] <= updates, "afresh: the optimizer begins anew with the stage")
    check(reference == policy != of_start, "afresh: the reference is the policy at the start of the stage")

    job = c.submit(write_job(c.state, "large", [(64, 2)], micro_batch_tokens=1 << 40))
    text = run("watch", job, "--state", c.state, code=1) + run("list", "--state", c.state)
    check("GiB are available" in text and "micro_batch_tokens: " in text, "what does not fit into memory is refused with the numbers and what to change")
    check(not ledger(c.output(job)) if pathlib.Path(c.output(job), "ledger.jsonl").exists() else True, "before its first step")
