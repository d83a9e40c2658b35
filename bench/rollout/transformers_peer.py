"""transformers' generate, fp32, 2 threads: transformers_peer.py MODEL PROMPT NEW N…; a JSON line for each N."""
import json
import sys
import time

import torch
import transformers

torch.set_num_threads(2)
folder, prompt, new = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def seconds(ids, tokens):
    begin = time.perf_counter()
    with torch.no_grad():
        model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, min_new_tokens=tokens, do_sample=True, temperature=1.0, top_k=0, top_p=1.0)
    return time.perf_counter() - begin


for n in map(int, sys.argv[4:]):
    ids = torch.tensor([[(i * 7 + t * 13) % model.config.vocab_size for t in range(prompt)] for i in range(n)])
    seconds(ids[:1], 2)
    first, whole = seconds(ids, 1), seconds(ids, new)
    print(json.dumps({"rollouts": n, "end_to_end": n * new / whole, "decode": n * (new - 1) / (whole - first)}), flush=True)
