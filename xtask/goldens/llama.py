"""Reference values for the Llama architecture, made by transformers.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python xtask/goldens/llama.py

Writes tiny random checkpoints and their logits to crates/model/tests/golden/. Each folder holds a
checkpoint as transformers saves it and `golden.json`: token ids, logits in f32, versions.
"""

import json
import pathlib
import shutil

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"

CASES = {
    # name: (config changes, dtype, largest shard)
    "llama-tied": (dict(tie_word_embeddings=True, num_key_value_heads=2), torch.float32, "1GB"),
    "llama-untied": (dict(tie_word_embeddings=False, num_key_value_heads=4, rope_theta=500000.0), torch.float32, "1GB"),
    "llama-sharded-bf16": (dict(tie_word_embeddings=False, num_key_value_heads=1), torch.bfloat16, "20KB"),
}

for name, (changes, dtype, shard) in CASES.items():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
        # Ten times the usual deviation: logits far from uniform show mistakes better.
        initializer_range=0.2, **changes,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:  # norms that are not all ones
                parameter.uniform_(0.5, 1.5)
    model = model.to(dtype)
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, safe_serialization=True, max_shard_size=shard)
    tokens = torch.randint(0, config.vocab_size, (2, 17))
    with torch.no_grad():
        # Loaded again in f32: a model cast to bf16 in place has its rotary frequencies rounded too.
        logits = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()(tokens).logits
    (folder / "golden.json").write_text(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__,
        "tokens": tokens.tolist(), "logits": [[round(x, 6) for x in row] for row in logits.reshape(-1, config.vocab_size).tolist()],
    }))
    (folder / "generation_config.json").unlink(missing_ok=True)
    print(name, sorted(p.name for p in folder.iterdir()))
