"""Loss and gradients of one GRPO mini-batch against PyTorch: Qwen3, Qwen2.5 and Llama shapes, every option.

tests/parity/grpo_dump runs the learner's own Trainer::Update on a batch that this script writes, and writes the gradients.
"""
import json
import os
import pathlib
import subprocess
import tempfile

import torch
import transformers
from harness import E3, check
from safetensors.torch import load_file

torch.manual_seed(1)
torch.set_num_threads(2)
DUMP = E3.parent / "grpo_dump"
SMALL = dict(vocab_size=101, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=256, initializer_range=0.15)
MODELS = {
    "qwen3 tied": transformers.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=True),
    "llama untied": transformers.LlamaConfig(**SMALL, head_dim=16, tie_word_embeddings=False),
    "qwen2.5 tied": transformers.Qwen2Config(**SMALL, head_dim=16, tie_word_embeddings=True),
}
DEFAULTS = dict(clip_low=0.2, clip_high=0.2, dual_clip=3.0, kl_coef=0.0, entropy_coef=0.0, mask=False, temperature=1.0, micro=100000, kl=3, sequence_mean=False, recompute=False)
OPTIONS = {
    "plain": {}, "clip high": dict(clip_high=0.5), "KL": dict(kl_coef=0.1), "entropy": dict(entropy_coef=0.05), "GRPOMask": dict(mask=True, kl_coef=0.02),
    "KL k1": dict(kl_coef=0.1, kl=1), "KL k2": dict(kl_coef=0.1, kl=2), "sequence mean": dict(sequence_mean=True, kl_coef=0.05, entropy_coef=0.01, micro=40),
    "sequence mean, GRPOMask": dict(sequence_mean=True, mask=True), "recomputed": dict(kl_coef=0.02, recompute=True, micro=60),
    "temperature, micro-batches": dict(temperature=0.6, kl_coef=0.05, entropy_coef=0.01, micro=40),
}


def token_logprobs(model, rollout, temperature):
    ids = torch.tensor([rollout["prompt"] + rollout["response"]])
    logits = model(ids).logits[0, len(rollout["prompt"]) - 1:-1] / temperature
    log_p = torch.log_softmax(logits, -1)
    return log_p.gather(1, torch.tensor(rollout["response"])[:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)


def reference_loss(model, reference, rollouts, o):
    def mean(values, over):  # of the tokens of each rollout of `over`
        values = [v for r, v in zip(rollouts, values) if over(r)]
        return sum(v.mean() for v in values) / len(values) if o["sequence_mean"] else torch.cat(values).mean()
    policy, kl, entropy = [], [], []
    for r in rollouts:
        logp, h = token_logprobs(model, r, o["temperature"])
        with torch.no_grad():
            ref, _ = token_logprobs(reference, r, o["temperature"])
        a = torch.full_like(logp, r["advantage"])
        ratio = (logp - torch.tensor(r["old_logprobs"])).clamp(-20, 20).exp()
        loss = torch.maximum(-a * ratio, -a * ratio.clamp(1 - o["clip_low"], 1 + o["clip_high"]))
        loss = torch.where(a < 0, torch.minimum(loss, -a * o["dual_clip"]), loss)
        policy.append(loss)
        k = ref - logp
        kl.append({1: -k, 2: k * k / 2, 3: (k.exp() - k - 1).clamp(-10, 10)}[o["kl"]])
        entropy.append(h)
    everything = lambda r: True
    return (mean(policy, (lambda r: r["advantage"] > 0) if o["mask"] else everything) + o["kl_coef"] * mean(kl, everything)
            - o["entropy_coef"] * mean(entropy, everything))


worst = 0.0
for model_name, config in MODELS.items():
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    reference = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    reference.load_state_dict(model.state_dict())
    with torch.no_grad():
        for p in reference.parameters():
            p.add_(torch.randn_like(p) * 0.01)
    rollouts = []
    for i in range(6):
        r = dict(prompt=torch.randint(0, 101, (torch.randint(1, 9, ()).item(),)).tolist(), response=torch.randint(0, 101, (torch.randint(1, 30, ()).item(),)).tolist(),
                 advantage=[1.5, -0.5, -0.5, 0.9, -1.2, 0.0][i])
        with torch.no_grad():  # sampled by a policy near this one, so that some ratios are clipped on each side
            logp, _ = token_logprobs(model, r, 1.0)
            r["old_logprobs"] = (logp + torch.randn_like(logp) * 0.6).tolist()
        rollouts.append(r)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model.save_pretrained(folder / "policy")
        reference.save_pretrained(folder / "reference")
        for option_name, changes in OPTIONS.items():
            o = {**DEFAULTS, **changes}
            (folder / "batch.json").write_text(json.dumps(dict(options=o, rollouts=rollouts)))
            result = subprocess.run([DUMP, folder / "policy", folder / "reference", folder / "batch.json", folder / "gradients.safetensors", os.environ.get("E3_TEST_DEVICE", "cpu")], capture_output=True, text=True,
                                    env={**os.environ})
            check(result.returncode == 0, f"{model_name}, {option_name}: ran {result.stderr}")
            model.zero_grad()
            loss = reference_loss(model, reference, rollouts, o)
            loss.backward()
            ours = load_file(folder / "gradients.safetensors")
            got = json.loads(result.stdout)["loss"]
            check(abs(got - loss.item()) <= 1e-5 * max(1, abs(loss.item())), f"{model_name}, {option_name}: loss {got:.7f} is {loss.item():.7f}")
            for name, p in model.named_parameters():
                if name == "lm_head.weight" and config.tie_word_embeddings:
                    continue
                # A tensor whose gradient is all rounding (a key bias moves all scores alike) is measured against the whole.
                scale = max(p.grad.norm().item(), 1e-4 * torch.cat([q.grad.flatten() for q in model.parameters() if q.grad is not None]).norm().item())
                error = (ours[name].reshape(p.grad.shape) - p.grad).norm().item() / scale
                worst = max(worst, error)
                if error > 1e-5:
                    check(False, f"{model_name}, {option_name}: gradient of {name} is off by {error:.2e} of its norm")
check(True, f"gradients of {len(MODELS)} models x {len(OPTIONS)} options; the largest difference is {worst:.2e} of a tensor's norm")
