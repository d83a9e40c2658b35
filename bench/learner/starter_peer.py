"""A plain PyTorch update of the starter model: one batch of equally long sequences, log-probabilities of all tokens, fused AdamW.
starter_peer.py MODEL SEQUENCES TOKENS [recompute]; one JSON line."""
import json
import pathlib
import sys

import safetensors.torch
import torch
from report import report
from torch.nn.functional import cross_entropy, embedding, linear, scaled_dot_product_attention, silu
from torch.utils.checkpoint import checkpoint

torch.set_num_threads(2)
folder, n, t, recompute = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4
config = json.loads((folder / "config.json").read_text())
w = {k: v.float().requires_grad_() for k, v in safetensors.torch.load_file(folder / "model.safetensors").items()}
L, H, KV, D, eps = (config[k] for k in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"))
theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
angles = torch.arange(t)[:, None] * theta ** (-torch.arange(0, D, 2) / D)
COS, SIN = angles.cos(), angles.sin()


def norm(x, name):
    return torch.rms_norm(x, x.shape[-1:], w[name], eps)


def rope(x):
    a, b = x[..., :D // 2], x[..., D // 2:]
    return torch.cat([a * COS - b * SIN, b * COS + a * SIN], -1)


def layer(x, i):
    p = f"model.layers.{i}."
    y = norm(x, p + "input_layernorm.weight")
    q, k, v = (linear(y, w[p + f"self_attn.{name}_proj.weight"]).view(n, t, -1, D) for name in "qkv")
    q = rope(norm(q, p + "self_attn.q_norm.weight").transpose(1, 2))
    k = rope(norm(k, p + "self_attn.k_norm.weight").transpose(1, 2))
    a = scaled_dot_product_attention(q, k, v.transpose(1, 2), is_causal=True, enable_gqa=True)
    x = x + linear(a.transpose(1, 2).reshape(n, t, H * D), w[p + "self_attn.o_proj.weight"])
    y = norm(x, p + "post_attention_layernorm.weight")
    return x + linear(silu(linear(y, w[p + "mlp.gate_proj.weight"])) * linear(y, w[p + "mlp.up_proj.weight"]), w[p + "mlp.down_proj.weight"])


optimizer = torch.optim.AdamW(list(w.values()), lr=1e-6, fused=True)
ids = torch.tensor([[(s * 7 + i * 13) % config["vocab_size"] for i in range(t + 1)] for s in range(n)])


def step():
    optimizer.zero_grad()
    x = embedding(ids[:, :-1], w["model.embed_tokens.weight"])
    for i in range(L):
        x = checkpoint(layer, x, i, use_reentrant=False) if recompute else layer(x, i)
    logits = linear(norm(x, "model.norm.weight"), w["model.embed_tokens.weight"])
    cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
    torch.nn.utils.clip_grad_norm_(w.values(), 1.0)
    optimizer.step()


report(step, n * t)
