"""transformers + torch.optim.AdamW on the same work as bench_learner, equally long sequences: transformers_peer.py MODEL [--recompute] [--bf16] [--device DEVICE] with a
JSON array of [prompt, response] tokens on standard input; one JSON line."""
import argparse
import json
import sys

import torch
import transformers
from report import report

torch.set_num_threads(2)
parser = argparse.ArgumentParser()
parser.add_argument("model")
parser.add_argument("--recompute", action="store_true")
parser.add_argument("--bf16", action="store_true", help="autocast")
parser.add_argument("--device", default="cpu")
options = parser.parse_args()
lengths = json.load(sys.stdin)
sequences, tokens = len(lengths), sum(lengths[0]) - 1
model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).train().to(options.device)
if options.recompute:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
ids = torch.tensor([[(s * 7 + t * 13) % model.config.vocab_size for t in range(tokens + 1)] for s in range(sequences)], device=options.device)


def step():
    optimizer.zero_grad()
    with torch.autocast(ids.device.type, torch.bfloat16, enabled=options.bf16):
        logits = model(ids[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), ids[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


report(step, sequences * (tokens + 1), options.device)
