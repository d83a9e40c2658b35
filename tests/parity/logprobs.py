"""Log-probabilities of `e3 score` against transformers, in fp32: random weights of every architecture, and SmolLM2."""
import pathlib
import tempfile

import torch
import transformers
from harness import check, e3, smollm2

torch.manual_seed(0)
torch.set_num_threads(2)


def reference(model, ids):
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].float()
    return torch.log_softmax(logits[:-1], -1).gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def compare(name, folder, model, sequences):
    worst = 0.0
    for line, ids in zip(e3(["score"], [{"token_ids": ids} for ids in sequences], "--model", folder), sequences):
        if line["logprobs"][0] is not None or len(line["logprobs"]) != len(ids):
            check(False, f"{name}: one value a token, the first null")
        worst = max(worst, (torch.tensor(line["logprobs"][1:]) - reference(model, ids)).abs().max().item())
    check(worst <= 1e-4, f"{name}: max difference {worst:.2e} <= 1e-4")


SMALL = dict(vocab_size=503, hidden_size=96, intermediate_size=160, num_hidden_layers=3, num_attention_heads=6,
             num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.3)
CONFIGS = {
    "qwen3": transformers.Qwen3Config(**SMALL, head_dim=32, tie_word_embeddings=True, rope_theta=1e6),
    "qwen3 untied": transformers.Qwen3Config(**SMALL, head_dim=16, tie_word_embeddings=False),
    "qwen2.5": transformers.Qwen2Config(**SMALL, tie_word_embeddings=True),
    "qwen2.5 untied": transformers.Qwen2Config(**SMALL, tie_word_embeddings=False),
    "llama": transformers.LlamaConfig(**SMALL, tie_word_embeddings=False),
    "llama 3 rope": transformers.LlamaConfig(
        **SMALL, tie_word_embeddings=True, rope_theta=5e5,
        rope_scaling={"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                      "original_max_position_embeddings": 64}),
}
for name, config in CONFIGS.items():
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    with torch.no_grad():  # biases and norms are initialised to constants, which would hide them
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    sequences = [torch.randint(0, 503, (n,)).tolist() for n in (2, 3, 17, 64, 300)]
    with tempfile.TemporaryDirectory() as folder:
        # Shards, and bf16 storage, are read as well as one fp32 file.
        if name == "llama":
            model.save_pretrained(folder, max_shard_size="300KB")
        elif name == "qwen2.5":
            model.bfloat16().save_pretrained(folder)
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
        else:
            model.save_pretrained(folder)
        # The tokenizer is not used for token ids, but a model folder has one.
        pathlib.Path(folder, "tokenizer.json").write_text(
            '{"version":"1.0","added_tokens":[],"model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}')
        compare(name, folder, model, sequences)

folder = smollm2()
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
texts = ["The capital of France is Paris, and the capital of Italy is Rome.", "def f(x):\n    return x ** 2\n",
         "Zürich, 東京, Москва — ¿qué tal? 🙂 " * 6]
compare("SmolLM2", folder, model, [tokenizer(t)["input_ids"] for t in texts])
