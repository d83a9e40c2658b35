"""A plain PyTorch update of the starter model on rollouts of given lengths: sorted by length, padded within micro-batches, policy gradient, fused AdamW.
starter_peer.py MODEL [--micro-batch N] [--recompute] with a JSON array of [prompt, response] tokens on standard input; one JSON line."""
import argparse
import json
import pathlib
import sys

import safetensors.torch
import torch
from report import report
from torch.nn.functional import cross_entropy, embedding, linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

torch.set_num_threads(2)
parser = argparse.ArgumentParser()
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("--micro-batch", type=int, default=1 << 30)
parser.add_argument("--recompute", action="store_true")
options = parser.parse_args()
folder, lengths = options.model, sorted(json.load(sys.stdin), key=sum)
config = json.loads((folder / "config.json").read_text())
w = {k: v.float().requires_grad_() for k, v in safetensors.torch.load_file(folder / "model.safetensors").items()}
L, H, KV, D, eps = (config[k] for k in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"))
theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
angles = torch.arange(max(map(sum, lengths)))[:, None] * theta ** (-torch.arange(0, D, 2) / D)
COS, SIN = angles.cos(), angles.sin()


def norm(x, name):
    return torch.rms_norm(x, x.shape[-1:], w[name], eps)


def rope(x):
    a, b = x[..., :D // 2], x[..., D // 2:]
    cos, sin = COS[:x.shape[-2]], SIN[:x.shape[-2]]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def layer(x, i):
    p, (n, t, _) = f"model.layers.{i}.", x.shape
    y = norm(x, p + "input_layernorm.weight")
    q, k, v = (linear(y, w[p + f"self_attn.{name}_proj.weight"]).view(n, t, -1, D) for name in "qkv")
    q = rope(norm(q, p + "self_attn.q_norm.weight").transpose(1, 2))
    k = rope(norm(k, p + "self_attn.k_norm.weight").transpose(1, 2))
    a = scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
    x = x + linear(a.transpose(1, 2).reshape(n, t, H * D), w[p + "self_attn.o_proj.weight"])
    y = norm(x, p + "post_attention_layernorm.weight")
    return x + linear(silu(linear(y, w[p + "mlp.gate_proj.weight"])) * linear(y, w[p + "mlp.up_proj.weight"]), w[p + "mlp.down_proj.weight"])


def micro_batch(part):
    """Token ids, targets and the weight of each target: advantages of the response, 0 of prompt and padding."""
    t = max(map(sum, part))
    ids = torch.tensor([[(s * 7 + i * 13) % config["vocab_size"] for i in range(t)] for s in range(len(part))])
    weights = torch.zeros(len(part), t - 1)
    for s, (prompt, response) in enumerate(part):
        weights[s, prompt - 1:prompt + response - 1] = 1 if s % 2 == 0 else -1
    return ids[:, :-1], ids[:, 1:], weights


optimizer = torch.optim.AdamW(list(w.values()), lr=1e-6, fused=True)
batches = [micro_batch(lengths[i:i + options.micro_batch]) for i in range(0, len(lengths), options.micro_batch)]
total = sum(response for _, response in lengths)


def step():
    optimizer.zero_grad()
    for ids, targets, weights in batches:
        x = embedding(ids, w["model.embed_tokens.weight"])
        for i in range(L):
            x = checkpoint(layer, x, i, use_reentrant=False) if options.recompute else layer(x, i)
        logits = linear(norm(x, "model.norm.weight"), w["model.embed_tokens.weight"])
        logp = -cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(weights)
        ratio = (logp - logp.detach()).exp()
        loss = torch.maximum(-weights * ratio, -weights * ratio.clamp(0.8, 1.2)).sum() / total
        loss.backward()
    torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
    optimizer.step()


report(step, sum(map(sum, lengths)))
