"""Tokenizers and chat templates against transformers, on multilingual text: Qwen3, Llama 3.1, SmolLM2."""
import pathlib

import transformers
from harness import DEPS, check, e3, smollm2

TEXTS = [
    "Hello, world!", "  leading and trailing  ", "Zürich — naïve café, São Paulo", "東京タワーは高い。", "Привет, как дела?", "مرحبا بالعالم",
    "नमस्ते दुनिया", "🙂👩‍👩‍👧 emoji ﷽ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "x² + y² = z²; \\frac{1}{2} \\boxed{42}", "def f(x):\n\treturn x ** 2\n\n\n", "1234567890 3.14159 1,000,000",
    "<think>\nWait, let me check.\n</think>\n", "a" * 200, "<|im_start|>user\nhi<|im_end|>", "\r\n\t mixed \u00a0 space\u3000s", "",
]
CHATS = [
    ([{"role": "user", "content": "Wie geht's? 元気？"}], {}),
    ([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}], {}),
    ([{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "<think>\neasy\n</think>\n\n4"}, {"role": "user", "content": "and 3+3?"}], {}),
    ([{"role": "user", "content": "2+2?"}], {"add_generation_prompt": False}),
]
EXTRA = {
    "qwen3": [([{"role": "user", "content": "2+2?"}], {"enable_thinking": False}), ([{"role": "user", "content": "2+2?"}], {"enable_thinking": True}),
              ([{"role": "user", "content": "weather?"}], {"tools": [{"type": "function", "function": {"name": "get", "description": "é", "parameters": {"type": "object", "properties": {}}}}]})],
    "llama3.1": [([{"role": "user", "content": "2+2?"}], {"date_string": "01 Feb 2025"})],
}

for name in ("qwen3", "llama3.1", "smollm2"):
    folder = pathlib.Path(smollm2() if name == "smollm2" else DEPS / "tokenizers" / name)
    if not (folder / "tokenizer.json").exists():
        print(f"skipped {name}: its package could not be fetched")
        continue
    reference = transformers.AutoTokenizer.from_pretrained(folder)
    got = [line["token_ids"] for line in e3(["encode"], [{"prompt": t} for t in TEXTS], "--model", folder)]
    for text, ids in zip(TEXTS, got):
        if ids != reference(text)["input_ids"]:
            check(False, f"{name}: {text!r}: {ids} is not {reference(text)['input_ids']}")
    check(True, f"{name}: {len(TEXTS)} texts")
    back = [line["text"] for line in e3(["decode"], [{"token_ids": ids} for ids in got], "--model", folder)]
    for ids, text in zip(got, back):
        expected = reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if text != expected:
            check(False, f"{name}: decoding {ids}: {text!r} is not {expected!r}")
    check(True, f"{name}: {len(TEXTS)} decodings")
    if reference.chat_template is None:
        print(f"skipped {name}'s chat template: the package carries none")
        continue
    chats = CHATS + EXTRA.get(name, [])
    if name == "llama3.1":  # its default date is today's
        chats = [(m, {"date_string": "26 Jul 2024", **a}) for m, a in chats]
    lines = [{"messages": m, "chat_template_arguments": a} for m, a in chats]
    for (messages, arguments), line in zip(chats, e3(["encode"], lines, "--model", folder)):
        arguments = {"add_generation_prompt": True, **arguments}
        expected = reference.apply_chat_template(messages, tokenize=True, return_dict=False, **arguments)
        if line["token_ids"] != list(expected):
            check(False, f"{name}: {messages} {arguments}: {reference.decode(line['token_ids'])!r} is not {reference.decode(expected)!r}")
    check(True, f"{name}: {len(chats)} chats")
