"""Reference values for adapters, made by PEFT over the tiny checkpoints of llama.py and families.py.

    python3 -m venv venv && venv/bin/pip install torch transformers peft
    venv/bin/python xtask/goldens/adapters.py

Writes PEFT adapters to crates/model/tests/golden/adapters/, each with `golden.json`: the base's folder, token ids, logits of the
base with the adapter in f32, versions.
"""

import json
import pathlib
import shutil

import peft
import torch
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]

CASES = {
    "lora": ("llama-untied", dict(r=4, lora_alpha=8, target_modules=ALL)),
    "rslora": ("llama3-scaled", dict(
        r=4, lora_alpha=4, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"],
        rank_pattern={"layers.1.self_attn.q_proj": 2}, alpha_pattern={"down_proj": 9})),
    "dora": ("qwen2", dict(r=3, lora_alpha=6, use_dora=True, target_modules=ALL)),
    "fused": ("phi4-partial", dict(r=4, lora_alpha=8, target_modules=["qkv_proj", "gate_up_proj", "o_proj"])),
    "by-head": ("gpt-neox", dict(r=4, lora_alpha=8, use_dora=True, target_modules=["query_key_value", "dense_4h_to_h"])),
    "transposed": ("gpt2", dict(r=4, lora_alpha=8, target_modules=["c_attn", "c_fc"], fan_in_fan_out=True)),
}

for name, (base, changes) in CASES.items():
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(ROOT / base, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.randint(3, model.config.vocab_size, (2, 17))
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, **changes)).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_magnitude" in key:
                parameter.mul_(torch.empty_like(parameter).uniform_(0.7, 1.4))
            elif "lora_" in key:
                parameter.normal_(0, 0.2)
        logits = model(tokens).logits
    folder = ROOT / "adapters" / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = base
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2))
    (folder / "golden.json").write_text(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__, "peft": peft.__version__, "base": base,
        "tokens": tokens.tolist(), "logits": [[round(x, 6) for x in row] for row in logits.reshape(-1, logits.shape[-1]).tolist()],
    }))
    print(name, [(p.name, p.stat().st_size) for p in folder.iterdir()])
