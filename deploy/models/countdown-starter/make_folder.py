#!/usr/bin/env python3
"""Writes the starter model's configuration and tokenizer into this folder; `e3 sft` adds the weights.

    python3 deploy/models/countdown-starter/make_folder.py && e3 sft deploy/models/countdown-starter/sft.yaml

Qwen3 architecture with 0.82M parameters. The vocabulary has a token for each word of a search trace and for each
integer from -15 to 225; WhitespaceSplit keeps `<think>` and `-4` whole.
"""
import json
import pathlib

HERE = pathlib.Path(__file__).parent
WORDS = ("<pad> <eos> Numbers Target <think> </think> <answer> </answer> Wait but Try : + - * / = ( ) , . no yes So").split()
vocab = {word: i for i, word in enumerate(WORDS + [str(n) for n in range(-15, 226)])}


def write(name, value):
    (HERE / name).write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def special(word):
    return {"id": vocab[word], "content": word, "single_word": False, "lstrip": False, "rstrip": False,
            "normalized": False, "special": True}


write("tokenizer.json", {
    "version": "1.0", "truncation": None, "padding": None,
    "added_tokens": [special("<pad>"), special("<eos>")],
    "normalizer": None,
    "pre_tokenizer": {"type": "WhitespaceSplit"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<pad>"},
})
write("tokenizer_config.json", {
    "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<pad>",
    "clean_up_tokenization_spaces": False, "model_max_length": 2048,
})
write("config.json", {
    "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": len(vocab), "hidden_size": 128,
    "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
    "max_position_embeddings": 2048, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": True,
    "attention_bias": False, "attention_dropout": 0.0, "hidden_act": "silu", "initializer_range": 0.02,
    "use_sliding_window": False, "sliding_window": None, "max_window_layers": 4, "use_cache": True,
    "eos_token_id": vocab["<eos>"], "pad_token_id": vocab["<pad>"], "bos_token_id": None, "torch_dtype": "float32",
})
write("generation_config.json", {"eos_token_id": vocab["<eos>"], "pad_token_id": vocab["<pad>"]})
