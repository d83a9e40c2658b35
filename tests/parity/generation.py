"""Greedy paged generation of SmolLM2 against transformers: 8 prompts x 64 tokens, alone and batched.

A difference is allowed only where the two best logits are within 1e-4, and is printed.
"""
import torch
import transformers
from harness import check, e3, smollm2

torch.set_num_threads(2)
folder = smollm2()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
PROMPTS = [
    "The capital of France is", "def fibonacci(n):", "Once upon a time, in a small village by the sea,", "Question: What is 17 * 3? Answer:",
    "Die Hauptstadt von Deutschland ist", "The three primary colours are", "To make a good cup of tea, first",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips did Natalia sell altogether?",
]
batched = e3(["generate"], [{"id": i, "prompt": p} for i, p in enumerate(PROMPTS)], "--model", folder, "--budget", 64, "--temperature", 0)
check([line["id"] for line in batched] == list(range(8)), "lines come out in order")
for prompt, line in zip(PROMPTS, batched):
    alone = e3(["generate"], [{"prompt": prompt}], "--model", folder, "--budget", 64, "--temperature", 0)[0]
    ids = tokenizer(prompt)["input_ids"]
    with torch.no_grad():
        expected = model.generate(torch.tensor([ids]), max_new_tokens=64, do_sample=False)[0][len(ids):].tolist()
    for kind, got in (("batched", line), ("alone", alone)):
        if got["token_ids"] == expected:
            check(len(got["logprobs"]) == len(expected), f"{kind}: {prompt[:30]!r}: all {len(expected)} tokens")
            continue
        first = next(i for i, (a, b) in enumerate(zip(got["token_ids"] + [None], expected + [None])) if a != b)
        with torch.no_grad():
            best = model(torch.tensor([ids + expected[:first]])).logits[0, -1].topk(2).values
        gap = (best[0] - best[1]).item()
        print(f"{kind}: {prompt[:30]!r} differs at token {first}: the two best logits are {gap:.2e} apart")
        check(gap <= 1e-4, f"{kind}: {prompt[:30]!r}: a difference only at a tie")
check(all(line["finish_reason"] == ("stop" if line["token_ids"][-1] == 2 else "length") for line in batched), "finish reasons")
