"""Makes a model with random weights in Hugging Face layout (bfloat16), and the same as GGUF for llama.cpp.

    python bench/serve/models.py llama-100m FOLDER [--gguf FILE]

Needs numpy, tokenizers and safetensors, and gguf for --gguf. The tokenizer is a byte-level BPE of exactly the vocabulary's
size, trained on words made up from a seed: any sequence of its tokens has a text, and the text as many tokens again.
"""

import argparse
import json
import pathlib
import random

import numpy as np

SHAPES = {
    # vocabulary, width, feed-forward, layers, heads, key/value heads, head width, context
    "llama-100m": (32000, 768, 2048, 12, 12, 4, 64, 2048),
    # The shape of Qwen3-0.6B, as a Llama.
    "qwen3-0.6b-shape": (151936, 1024, 3072, 28, 16, 8, 128, 4096),
}


def tensors(shape):
    vocabulary, c, f, layers, heads, kv_heads, d, _ = shape
    yield "model.embed_tokens.weight", (vocabulary, c)
    for i in range(layers):
        block = f"model.layers.{i}"
        yield f"{block}.input_layernorm.weight", (c,)
        yield f"{block}.self_attn.q_proj.weight", (heads * d, c)
        yield f"{block}.self_attn.k_proj.weight", (kv_heads * d, c)
        yield f"{block}.self_attn.v_proj.weight", (kv_heads * d, c)
        yield f"{block}.self_attn.o_proj.weight", (c, heads * d)
        yield f"{block}.post_attention_layernorm.weight", (c,)
        yield f"{block}.mlp.gate_proj.weight", (f, c)
        yield f"{block}.mlp.up_proj.weight", (f, c)
        yield f"{block}.mlp.down_proj.weight", (c, f)
    yield "model.norm.weight", (c,)


def bf16(values):
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def weights(shape):
    generator = np.random.default_rng(1)
    for name, size in tensors(shape):
        if len(size) == 1:
            yield name, size, bf16(np.ones(size))
        else:
            yield name, size, bf16(generator.standard_normal(size, dtype=np.float32) * 0.02)


def write_safetensors(path, shape):
    header, offset = {}, 0
    for name, size in tensors(shape):
        count = int(np.prod(size)) * 2
        header[name] = {"dtype": "BF16", "shape": list(size), "data_offsets": [offset, offset + count]}
        offset += count
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    with open(path, "wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        for _, _, values in weights(shape):
            file.write(values.tobytes())


def tokenizer(vocabulary):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    generator = random.Random(1)
    syllables = [a + b for a in "bcdfghjklmnprstvwz" for b in ("a", "e", "i", "o", "u", "an", "en", "on", "ar", "is")]
    words = ["".join(generator.choices(syllables, k=generator.randint(1, 4))) for _ in range(3 * vocabulary)]
    result = Tokenizer(models.BPE())
    result.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    result.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=1,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    result.train_from_iterator((" ".join(words[i : i + 100]) for i in range(0, len(words), 100)), trainer)
    assert result.get_vocab_size() == vocabulary, result.get_vocab_size()
    return result


def write_gguf(path, shape, folder):
    import gguf

    vocabulary, c, f, layers, heads, kv_heads, d, context = shape
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(context)
    writer.add_embedding_length(c)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(f)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(d)
    writer.add_value_length(d)
    writer.add_rope_dimension_count(d)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_vocab_size(vocabulary)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if token == "<|end|>" else normal for token in tokens])
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    names = {
        "input_layernorm": "attn_norm",
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
    }
    for name, size, values in weights(shape):
        if name == "model.embed_tokens.weight":
            name = "token_embd.weight"
        elif name == "model.norm.weight":
            name = "output_norm.weight"
        else:
            _, _, layer, part = name.split(".", 3)
            name = f"blk.{layer}.{names[part.removesuffix('.weight')]}.weight"
        if len(size) == 1:
            writer.add_tensor(name, np.ones(size, dtype=np.float32))
            continue
        # GGUF's rotary embedding of Llama pairs neighbours; the weights are random, so their order does not matter.
        writer.add_tensor(name, values.view(np.uint8), raw_dtype=gguf.GGMLQuantizationType.BF16)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--gguf", type=pathlib.Path)
    arguments = parser.parse_args()
    shape = SHAPES[arguments.shape]
    vocabulary, c, f, layers, heads, kv_heads, d, context = shape
    arguments.folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": vocabulary,
        "hidden_size": c,
        "intermediate_size": f,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": d,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "max_position_embeddings": context,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2))
    tokenizer(vocabulary).save(str(arguments.folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|end|>", "model_max_length": context}
    (arguments.folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))
    write_safetensors(arguments.folder / "model.safetensors", shape)
    if arguments.gguf:
        write_gguf(arguments.gguf, shape, arguments.folder)


main()
