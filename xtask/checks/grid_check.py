"""Tiny random checkpoints over a grid of configurations, ours and transformers' logits side by side: same, refused by name, or
different.

    venv/bin/pip install torch transformers peft
    cargo build --release -p narthex-model --example logits
    venv/bin/python xtask/checks/grid_check.py [--only PART]

The grid: families x types x tied or not x ways to write a rotary embedding; each key of config.json taken out, one at a time; adapters
of PEFT's kinds. A difference is the largest one of a token's log-probability; up to 1e-4 of the largest logit counts as same.
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import warnings
from collections import Counter

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

warnings.filterwarnings("ignore")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
parser = argparse.ArgumentParser()
parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release")
parser.add_argument("--only", default="")
options = parser.parse_args()
ours = subprocess.Popen([f"{options.target}/examples/logits"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
counts, listed = Counter(), []
TOKENS = torch.randint(0, 64, (2, 24), generator=torch.Generator().manual_seed(1)).tolist()

USUAL = dict(vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
             max_position_embeddings=64, pad_token_id=None, bos_token_id=1, eos_token_id=2)
OWN = {
    "llama": {}, "mistral": dict(sliding_window=8), "qwen2": {}, "qwen3": dict(head_dim=8), "olmo2": {}, "granite": dict(
        embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    "qwen3_moe": dict(head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, norm_topk_prob=True),
    "mixtral": dict(num_local_experts=4, num_experts_per_tok=2), "phi3": dict(original_max_position_embeddings=64),
    "gemma2": dict(head_dim=8, sliding_window=8, query_pre_attn_scalar=8), "gemma3_text": dict(head_dim=8, sliding_window=8,
        query_pre_attn_scalar=8), "smollm3": dict(use_sliding_window=True, sliding_window=8, num_hidden_layers=4),
    "starcoder2": dict(sliding_window=8), "gpt_neox": {},
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=64),
}
ROPES = {
    "plain": {},
    "theta beside": {"rope_theta": 500.0},
    "theta within": {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}},
    "theta in both": {"rope_theta": 100.0, "rope_parameters": {"rope_type": "default", "rope_theta": 5000.0}},
    "linear": {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "linear, theta within": {"rope_theta": 10.0, "rope_scaling": {"rope_type": "linear", "factor": 4.0, "rope_theta": 900.0}},
    "dynamic": {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "llama3": {"rope_parameters": {"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                                   "high_freq_factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn": {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}},
    "yarn, truncate": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 100.0, "factor": 4.0, "beta_fast": 16.0, "truncate": False,
                                           "original_max_position_embeddings": 16}},
    "partial": {"partial_rotary_factor": 0.5},
}


def ask(folder, adapter=None, tokens=TOKENS):
    ours.stdin.write(json.dumps({"folder": str(folder), "tokens": tokens, "adapter": adapter and str(adapter)}) + "\n")
    ours.stdin.flush()
    return json.loads(ours.stdout.readline())


def compare(name, folder, adapter=None, tokens=TOKENS):
    try:
        with torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
            if adapter:
                import peft
                model = peft.PeftModel.from_pretrained(model, adapter).eval()
            logits = model(torch.tensor(tokens)).logits
    except Exception as error:  # noqa: BLE001: whatever the reference refuses
        found = ask(folder, adapter, tokens)
        counts["the reference fails, " + ("ours refuses" if "error" in found else "ours answers")] += 1
        if "error" not in found:
            listed.append(f"answered {name}, where transformers says: {str(error).splitlines()[0][:120]}")
        return
    found = ask(folder, adapter, tokens)
    if "error" in found:
        counts["refused by name"] += 1
        listed.append(f"refused  {name}: {found['error'].splitlines()[0]}")
        return
    mine = torch.tensor(found["logits"]).reshape(logits.shape).log_softmax(-1)
    difference = (mine - logits.float().log_softmax(-1)).abs().max().item()
    same = difference <= 1e-4 * max(1.0, logits.abs().max().item())
    counts["same" if same else "different"] += 1
    if not same:
        listed.append(f"DIFFERENT {name}: {difference:.2e}")


def make(folder, family, dtype=torch.float32, **own):
    config = CONFIG_MAPPING[family](**{**({} if family == "gpt2" else USUAL), **dict(vocab_size=64), **OWN[family], **own})
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.2)
    model.to(dtype).save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


def write(folder, config):
    (folder / "config.json").write_text(json.dumps(config))


def part(name):
    return options.only in name


home = pathlib.Path(tempfile.mkdtemp())
folder = home / "m"
for family in OWN:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for tied in (False, True):
            for rope, keys in ROPES.items() if family != "gpt2" else [("plain", {})]:
                if not part("grid") or (dtype != torch.float32 and rope not in ("plain", "linear")):
                    continue
                shutil.rmtree(folder, ignore_errors=True)
                config = make(folder, family, dtype, tie_word_embeddings=tied)
                nested = "full_attention" in (config.get("rope_parameters") or {})
                if keys and not nested:
                    config.pop("rope_parameters", None)
                write(folder, {**config, **({} if nested and "rope_parameters" in keys else keys)})
                compare(f"{family} {dtype} tied={tied} {rope}", folder)
    if part("keys"):
        for tied in (False, True):
            shutil.rmtree(folder, ignore_errors=True)
            config = make(folder, family, tie_word_embeddings=tied)
            for key in config:
                write(folder, {name: value for name, value in config.items() if name != key})
                compare(f"{family} tied={tied} without {key}", folder)
                if not tied:
                    write(folder, {**config, key: None})
                    compare(f"{family} {key}=null", folder)
    if part("files"):
        from safetensors.torch import load_file, save_file

        shutil.rmtree(folder, ignore_errors=True)
        config = make(folder, family, tie_word_embeddings=False)
        write(folder, {**config, "tie_word_embeddings": True})
        compare(f"{family} said to be tied, with a head of its own", folder)
        write(folder, {**config, "brand_new_key": 3})
        compare(f"{family} with a key that nobody knows", folder)
        write(folder, config)
        tensors = load_file(folder / "model.safetensors")
        prefix = "transformer." if family == "gpt2" else "gpt_neox." if family == "gpt_neox" else "model."
        save_file({name.removeprefix(prefix): value for name, value in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
        compare(f"{family} without the prefix", folder)
        make(folder, family, tie_word_embeddings=False)
        model = AutoModelForCausalLM.from_pretrained(folder)
        shutil.rmtree(folder)
        model.save_pretrained(folder, max_shard_size="20KB")
        compare(f"{family} in shards", folder)
    if part("adapters"):
        import peft

        names = {"gpt2": ["c_attn", "c_proj", "c_fc"], "gpt_neox": ["query_key_value", "dense"], "phi3": ["qkv_proj", "o_proj", "down_proj"],
                 "starcoder2": ["q_proj", "v_proj", "c_fc"]}.get(family, ["q_proj", "k_proj", "v_proj", "o_proj"])
        first, layer = names[0], "h" if family == "gpt2" else "layers"
        kinds = {
            "plain": {}, "rslora": dict(use_rslora=True), "dora": dict(use_dora=True), "one": dict(target_modules=[first]),
            "regex": dict(target_modules=rf".*\.{first}"), "alpha": dict(alpha_pattern={first: 64}),
            "alpha regex": dict(alpha_pattern={rf".*{first}": 64}), "alpha anchored": dict(alpha_pattern={f"^{first}": 64}),
            "alpha layer": dict(alpha_pattern={rf"{layer}\.0\..*": 64}), "alpha either": dict(alpha_pattern={"|".join(names[:2]): 64}),
            "rank regex": dict(rank_pattern={rf".*{first}": 2}), "both": dict(rank_pattern={first: 2}, alpha_pattern={rf".*\.{first}": 5}),
            "pissa": dict(init_lora_weights="pissa"), "olora": dict(init_lora_weights="olora"), "gaussian": dict(init_lora_weights="gaussian"),
            "orthogonal": dict(init_lora_weights="orthogonal", r=4), "all": dict(target_modules="all-linear"), "bias": dict(bias="lora_only"),
            "saved": dict(modules_to_save=["lm_head"]), "dora, ranks": dict(use_dora=True, rank_pattern={rf".*{first}": 2}),
            "lora bias": dict(lora_bias=True), "embedding": dict(target_modules=names + ["wte" if family == "gpt2" else
                "embed_in" if family == "gpt_neox" else "embed_tokens"]), "tokens": dict(trainable_token_indices=[1, 2]),
        }
        shutil.rmtree(folder, ignore_errors=True)
        make(folder, family, tie_word_embeddings=False)
        for kind, own in kinds.items():
            adapter = home / "a"
            shutil.rmtree(adapter, ignore_errors=True)
            torch.manual_seed(3)
            try:
                config = peft.LoraConfig(**{**dict(r=4, lora_alpha=8, target_modules=names, task_type="CAUSAL_LM"), **own})
                model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(folder), config)
                for name, parameter in model.named_parameters():
                    if "lora_" in name and "magnitude" not in name:
                        parameter.data += torch.randn_like(parameter) * 0.2
                model.save_pretrained(adapter)
            except Exception as error:  # noqa: BLE001
                counts["PEFT cannot make it"] += 1
                continue
            compare(f"{family} adapter {kind}", folder, adapter)

print("\n".join(listed))
print(f"torch {torch.__version__}, transformers {transformers.__version__}:", dict(counts), "of", sum(counts.values()))
raise SystemExit(bool(counts["different"]))
