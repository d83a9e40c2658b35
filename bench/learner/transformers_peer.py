"""transformers + torch.optim.AdamW on the same work as bench_learner: transformers_peer.py MODEL SEQUENCES TOKENS [recompute]; one JSON line."""
import sys

import torch
import transformers
from report import report

torch.set_num_threads(2)
folder, sequences, tokens, recompute = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), len(sys.argv) > 4
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
if recompute:
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
ids = torch.tensor([[(s * 7 + t * 13) % model.config.vocab_size for t in range(tokens + 1)] for s in range(sequences)])


def step():
    optimizer.zero_grad()
    logits = model(ids[:, :-1], use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


report(step, sequences * tokens)
