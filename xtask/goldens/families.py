"""Reference values for every decoder family but Llama, made by transformers.

    python3 -m venv venv && venv/bin/pip install torch transformers
    venv/bin/python xtask/goldens/families.py [NAME ...]

Writes tiny random checkpoints to crates/model/tests/golden/. Each folder holds a checkpoint as transformers saves it
(in bf16, to be small) and `golden.json`: token ids and their logits in f32, 64 tokens of greedy continuation, versions.
"""

import json
import pathlib
import shutil
import sys

import torch
import transformers
from transformers import AutoModelForCausalLM
from transformers import (
    Gemma2Config, Gemma3TextConfig, GPT2Config, GPTNeoXConfig, GraniteConfig, LlamaConfig, MistralConfig, MixtralConfig,
    Olmo2Config, Phi3Config, Qwen2Config, Qwen3Config, Qwen3MoeConfig, SmolLM3Config, Starcoder2Config,
)

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
CONTINUED = 64

SMALL = dict(
    vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    initializer_range=0.2,
)


def small(**changes):
    return {**SMALL, **changes}


def rope(kind, **more):
    return dict(rope_parameters=dict(rope_type=kind, rope_theta=10000.0, **more))


CASES = {
    "llama3-scaled": LlamaConfig(**small(attention_bias=True, mlp_bias=True), **rope(
        "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)),
    "llama-linear": LlamaConfig(**small(), **rope("linear", factor=4.0)),
    "llama-dynamic": LlamaConfig(**small(), **rope("dynamic", factor=2.0)),
    "llama-yarn": LlamaConfig(**small(), **rope("yarn", factor=4.0, original_max_position_embeddings=32)),
    "mistral": MistralConfig(**small(sliding_window=9, head_dim=12)),
    "qwen2": Qwen2Config(**small(use_sliding_window=True, sliding_window=7, max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": Qwen3Config(**small(head_dim=16, tie_word_embeddings=True)),
    "qwen3-moe": Qwen3MoeConfig(**small(
        head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24, norm_topk_prob=True,
        num_hidden_layers=3, mlp_only_layers=[1])),
    "mixtral": MixtralConfig(**small(num_local_experts=4, num_experts_per_tok=2)),
    "gemma2": Gemma2Config(**small(
        head_dim=16, query_pre_attn_scalar=24, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=5.0)),
    "gemma3": Gemma3TextConfig(**small(
        head_dim=16, query_pre_attn_scalar=24, sliding_window=8, num_hidden_layers=3,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters=dict(
            full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1000000.0),
            sliding_attention=dict(rope_type="default", rope_theta=10000.0)))),
    "phi3": Phi3Config(**small(sliding_window=11)),
    "phi4-partial": Phi3Config(**small(
        head_dim=16, tie_word_embeddings=True, original_max_position_embeddings=128,
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75))),
    "smollm3": SmolLM3Config(**small(num_hidden_layers=4, no_rope_layers=[1, 1, 1, 0])),
    "olmo2": Olmo2Config(**small()),
    "granite": GraniteConfig(**small(
        embedding_multiplier=3.0, attention_multiplier=0.2, residual_multiplier=0.5, logits_scaling=0.5)),
    "gpt2": GPT2Config(
        vocab_size=96, n_embd=32, n_layer=2, n_head=4, n_inner=48, n_positions=128, bos_token_id=1, eos_token_id=2,
        initializer_range=0.2),
    "gpt-neox": GPTNeoXConfig(**{k: v for k, v in small(rotary_pct=0.25).items() if k != "num_key_value_heads"}),
    "gpt-neox-serial": GPTNeoXConfig(**{
        k: v for k, v in small(rotary_pct=1.0, use_parallel_residual=False).items() if k != "num_key_value_heads"}),
    "starcoder2": Starcoder2Config(**small(sliding_window=10, use_bias=True)),
}

wanted = sys.argv[1:] or list(CASES)
for name in wanted:
    config = CASES[name]
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms that are not all ones, biases that are not all zeros
                low, high = (-0.5, 0.5) if key.endswith("bias") or "gemma" in name else (0.5, 1.5)
                parameter.uniform_(low, high)
    model = model.to(torch.bfloat16)
    folder = ROOT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, safe_serialization=True)
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = torch.randint(3, config.vocab_size, (2, 17))
    # Loaded again in f32: a model cast to bf16 in place has its rotary frequencies rounded too.
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(tokens).logits
        greedy = tokens[:1]
        for _ in range(CONTINUED):
            row = model(greedy, use_cache=False).logits[:, -1]
            best, second = row.topk(2).values[0].tolist()
            assert best - second > 1e-4, f"{name}: two tokens are as good as each other, take another seed"
            greedy = torch.cat([greedy, row.argmax(-1, keepdim=True)], 1)
    (folder / "golden.json").write_text(json.dumps({
        "torch": torch.__version__, "transformers": transformers.__version__,
        "tokens": tokens.tolist(), "logits": [[round(x, 6) for x in row] for row in logits.reshape(-1, config.vocab_size).tolist()],
        "greedy": greedy[0, tokens.shape[1]:].tolist(),
    }))
    size = sum(p.stat().st_size for p in folder.iterdir())
    print(name, sorted(p.name for p in folder.iterdir()), size)
