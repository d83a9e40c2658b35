"""A plain PyTorch generator for the starter model: one fused forward for all rollouts, keys and values in one buffer, no paging, finished
rows not dropped since all have the same length. starter_peer.py MODEL PROMPT NEW N…; a JSON line for each N."""
import json
import pathlib
import sys
import time

import safetensors.torch
import torch
from torch.nn.functional import embedding, linear, scaled_dot_product_attention, silu

torch.set_num_threads(2)
folder, prompt, new = pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
config = json.loads((folder / "config.json").read_text())
w = {k: v.float() for k, v in safetensors.torch.load_file(folder / "model.safetensors").items()}
L, H, KV, D, eps = (config[k] for k in ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"))
theta = config.get("rope_theta") or config["rope_parameters"]["rope_theta"]
layers = []
for i in range(L):
    p = f"model.layers.{i}."
    layers.append((w[p + "input_layernorm.weight"], torch.cat([w[p + f"self_attn.{n}_proj.weight"] for n in "qkv"]), w[p + "self_attn.q_norm.weight"], w[p + "self_attn.k_norm.weight"],
                   w[p + "self_attn.o_proj.weight"], w[p + "post_attention_layernorm.weight"], torch.cat([w[p + "mlp.gate_proj.weight"], w[p + "mlp.up_proj.weight"]]), w[p + "mlp.down_proj.weight"]))
table, final = w["model.embed_tokens.weight"], w["model.norm.weight"]
angles = torch.arange(4096)[:, None] * theta ** (-torch.arange(0, D, 2) / D)
COS, SIN = angles.cos(), angles.sin()


def norm(x, weight):
    return torch.rms_norm(x, x.shape[-1:], weight, eps)


def rope(x, at):
    cos, sin = COS[at:at + x.shape[2]], SIN[at:at + x.shape[2]]
    a, b = x[..., :D // 2], x[..., D // 2:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def forward(ids, at, keys, values):
    """Log-probabilities of the token after the last of ids [n, t], which begin at position `at`."""
    n, t = ids.shape
    x = embedding(ids, table)
    for i, (n1, qkv, qn, kn, o, n2, gate_up, down) in enumerate(layers):
        q, k, v = linear(norm(x, n1), qkv).split([H * D, KV * D, KV * D], -1)
        q = rope(norm(q.view(n, t, H, D), qn).transpose(1, 2), at)
        keys[i][:, :, at:at + t] = rope(norm(k.view(n, t, KV, D), kn).transpose(1, 2), at)
        values[i][:, :, at:at + t] = v.view(n, t, KV, D).transpose(1, 2)
        a = scaled_dot_product_attention(q, keys[i][:, :, :at + t], values[i][:, :, :at + t], is_causal=t > 1, enable_gqa=True)
        x = x + linear(a.transpose(1, 2).reshape(n, t, H * D), o)
        gate, up = linear(norm(x, n2), gate_up).chunk(2, -1)
        x = x + linear(silu(gate) * up, down)
    return torch.log_softmax(linear(norm(x[:, -1], final), table), -1)


with torch.no_grad():
    for n in map(int, sys.argv[4:]):
        ids = torch.tensor([[(i * 7 + t * 13) % len(table) for t in range(prompt)] for i in range(n)])
        best = 0
        for _ in range(3):
            keys = [torch.empty(n, KV, prompt + new, D) for _ in range(L)]
            values = [torch.empty(n, KV, prompt + new, D) for _ in range(L)]
            begin = time.perf_counter()
            logp = forward(ids, 0, keys, values)
            for step in range(new):
                # What the engine reports, too: log-probability and entropy. (torch.multinomial would cost much more.)
                p = logp.exp()
                token = (p.cumsum(-1) > torch.rand(n, 1) * p.sum(-1, keepdim=True)).float().argmax(-1)
                logp.gather(1, token[:, None]), -(p * logp).sum(-1)
                if step + 1 < new:
                    logp = forward(token[:, None], prompt + step, keys, values)
            best = max(best, n * new / (time.perf_counter() - begin))
        print(json.dumps({"rollouts": n, "end_to_end": best}), flush=True)
