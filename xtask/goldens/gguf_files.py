"""Reference values for GGUF, made by ggml's Python package, transformers and sentencepiece.

    python3 -m venv venv && venv/bin/pip install torch transformers gguf sentencepiece tokenizers
    venv/bin/python xtask/goldens/gguf_files.py

Writes to crates/formats/tests/golden/gguf/:
- quants.gguf: random blocks of every type that is read; quants.safetensors: their values by gguf.quants.dequantize;
- NAME.gguf: tiny models, whose weights follow the formula in `values`, written with gguf's own table of names and the
  changes that llama.cpp's converter makes. transformers reads each one back, and must find the weights again;
- golden.json: texts and their ids, by sentencepiece and by tokenizers; quantized values; versions.

With `check FILE.gguf FOLDER` it compares a file written by Narthex with the folder it was made from.
"""

import json
import pathlib
import shutil
import sys
import tempfile

import gguf
import numpy as np
import sentencepiece
import tokenizers
import torch
import transformers
from gguf import GGMLQuantizationType as Q
from safetensors import safe_open
from safetensors.numpy import save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/formats/tests/golden/gguf"
TEXTS = ["the cat sat on the mat", " two  spaces", "Grüße, 日本 — 1234567 x's\n\n\tend ", "", "a<|end|>b the"]
CORPUS = ["the cat sat on the mat and the dog sat on the log", "a cat and a dog that sat", "numbers 123 4567 and the end's"] * 20


def values(name, shape):
    """The weights of all models here: exact in 16 bits, and different everywhere."""
    start = sum(name.encode())
    count = int(np.prod(shape))
    return (((np.arange(count) * 7 + start) % 251 - 125) / 64).astype(np.float32).reshape(shape)


def check(file, folder):
    """Narthex wrote `file` from `folder`: names and values must be those of llama.cpp's converter."""
    reader = gguf.GGUFReader(file)
    config = json.loads((pathlib.Path(folder) / "config.json").read_text())
    arch = str(reader.get_field("general.architecture").contents())
    names = gguf.get_tensor_name_map(next(a for a, n in gguf.MODEL_ARCH_NAMES.items() if n == arch), config["num_hidden_layers"])
    found = {tensor.name: tensor for tensor in reader.tensors}
    with safe_open(pathlib.Path(folder) / "model.safetensors", "pt") as stored:
        for name in stored.keys():
            if name == "lm_head.weight" and config["tie_word_embeddings"]:
                continue
            expected = stored.get_tensor(name).float().numpy()
            if arch == "llama" and ("q_proj" in name or "k_proj" in name):
                heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
                expected = permute(expected, heads)
            tensor = found.pop(names.get_name(name, try_suffixes=(".weight", ".bias")))
            kind = Q(tensor.tensor_type)
            wanted = gguf.quants.dequantize(gguf.quants.quantize(expected, kind), kind) if kind != Q.F32 else expected
            got = gguf.quants.dequantize(tensor.data, kind).reshape(expected.shape)
            assert np.array_equal(got, wanted), (name, kind)
    assert set(found) <= {"rope_freqs.weight"}, set(found)
    print("equal:", len(reader.tensors), "tensors,", len(reader.fields), "fields")


def permute(weights, heads):
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


if len(sys.argv) == 4:
    check(*sys.argv[2:])
    sys.exit()

shutil.rmtree(ROOT, ignore_errors=True)
ROOT.mkdir(parents=True)
golden = {"gguf": "0.19.0", "transformers": transformers.__version__, "sentencepiece": sentencepiece.__version__,
          "tokenizers": tokenizers.__version__, "texts": TEXTS, "ids": {}}

# Every type, two rows of 256 random values.
random = np.random.default_rng(0)
writer, expected = gguf.GGUFWriter(ROOT / "quants.gguf", "llama"), {}
for kind in [Q.F32, Q.F16, Q.BF16, Q.Q4_0, Q.Q4_1, Q.Q5_0, Q.Q5_1, Q.Q8_0, Q.Q4_K, Q.Q5_K, Q.Q6_K]:
    block, size = gguf.GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (2, 256 // block, size), dtype=np.uint8)
    halves = {Q.Q4_1: [0, 2], Q.Q5_1: [0, 2], Q.Q4_K: [0, 2], Q.Q5_K: [0, 2], Q.Q6_K: [208]}.get(kind, [0])
    if block > 1:
        for at in halves:
            scales = (random.standard_normal((2, 256 // block)) / 8).astype(np.float16)
            blocks[..., at:at + 2] = scales[..., None].view(np.uint8)
    else:
        plain = random.standard_normal((2, 256)).astype(np.float32)
        blocks = gguf.quants.quantize(plain, kind).view(np.uint8)
    data = blocks.reshape(2, -1)
    expected[kind.name] = gguf.quants.dequantize(data.view({Q.F32: np.float32, Q.F16: np.float16}.get(kind, np.uint8)), kind)
    writer.add_tensor(kind.name, data, raw_shape=data.shape, raw_dtype=kind)
writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
save_file({name: np.ascontiguousarray(found, np.float32) for name, found in expected.items()}, ROOT / "quants.safetensors")
row = (random.standard_normal(64) * 3).astype(np.float32)
golden["q8_0"] = {"values": row.tolist(), "bytes": gguf.quants.quantize(row.reshape(1, 64), Q.Q8_0).flatten().tolist()}


def byte_level(pre_tokenizer, ignore_merges=False):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return tokenizer


pre = tokenizers.pre_tokenizers
split = lambda digits: pre.Sequence([pre.Split(tokenizers.Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)])
gpt2 = pre.ByteLevel(add_prefix_space=False)
BPE = {
    "gpt-2": byte_level(gpt2),
    "qwen2": byte_level(split(r"\p{N}")),
    "llama-bpe": byte_level(split(r"\p{N}{1,3}"), True),
    "smollm": byte_level(pre.Sequence([pre.Digits(individual_digits=True), gpt2])),
}
for name, tokenizer in BPE.items():
    golden["ids"][name] = [tokenizer.encode(text).ids for text in TEXTS]

# How the tokenizer.json of each family cuts text, which llama.cpp's names stand for: pieces in the spelling of bytes.
isolated = lambda expression: pre.Split(tokenizers.Regex(expression), "isolated")
to_bytes, digits = pre.ByteLevel(add_prefix_space=False, use_regex=False), pre.Digits(individual_digits=True)
LETTERS = "\\s?[" + "".join("-".join(end if len(end) < 2 and end.isalpha() else chr(int(end, 16)) for end in part.split("-")) for part in (
    "A-Z a-z b5 c0-d6 d8-f6 f8-1ba 1bc-1bf 1c4-293 295-2af 370-373 376 377 37b-37d 37f 386 388-38a 38c 38e-3a1 3a3-3f5 "
    "3f7-481 48a-52f 531-556 10a0-10c5 13a0-13f5 13f8-13fd 1c90-1cba 1cbd-1cbf 1d00-1d2b 1d6b-1d77 1d79-1d9a 1e00-1f15 "
    "1f18-1f1d 1f20-1f45 1f48-1f4d 1f50-1f57 1f59 1f5b 1f5d 1f5f-1f7d 1f80-1fb4 1fb6-1fbc 1fbe 1fc2-1fc4 1fc6-1fcc 1fd0-1fd3 "
    "1fd6-1fdb 1fe0-1fec 1ff2-1ff4 1ff6-1ffc 2102 2107 210a-2113 2115 2119-211d 2124 2126 2128 212a-212d 212f-2134 2139 "
    "213c-213f 2145-2149 214e 2183 2184 2c00-2c7b 2c7e-2ce4 2ceb-2cee 2cf2 2cf3 a640-a66d a680-a69b a722-a76f a771-a787 "
    "a78b-a78e ab70-abbf fb00-fb06 fb13-fb17 ff21-ff3a ff41-ff5a 10400-1044f 104b0-104d3 104d8-104fb 10c80-10cb2 10cc0-10cf2 "
    "118a0-118df 1e900-1e943 "
    ).split()) + "]+"
EAST = "[一-龥ࠀ-一가-\ud7ff]+"
CUTS = {
    "deepseek-llm": [isolated("[\r\n]"), isolated(LETTERS), isolated("\\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"), isolated("\\s+$"),
                     isolated(EAST), digits, to_bytes],
    "deepseek-coder": [isolated("[\r\n]"), isolated("\\s?\\p{L}+"), isolated("\\s?\\p{P}+"), isolated(EAST), digits, to_bytes],
    "deepseek-v3": [isolated("\\p{N}{1,3}"), isolated("[一-龥\u3040-ゟ゠-ヿ]+"), isolated(
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"),
        to_bytes],
    "falcon": [pre.Punctuation("contiguous"), gpt2, pre.Digits(individual_digits=False), isolated("[0-9][0-9][0-9]")],
    "bloom": [isolated(" ?[^(\\s|[.,!?…。，、।۔،])]+"), to_bytes],
}
CUT_TEXTS = ["The cat's $5 mat, x+y=12345.67!", " two  spaces\n\n\tend ", "Grüße, 日本の — 1234567 x's", "if (a_b){return `c`;}\r\n", "Ωmega кот ١٢٣"]
golden["cuts"] = {name: [[piece for piece, _ in pre.Sequence(steps).pre_tokenize_str(text)] for text in CUT_TEXTS] for name, steps in CUTS.items()}
golden["cut_texts"] = CUT_TEXTS

with tempfile.TemporaryDirectory() as folder:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=f"{folder}/spm", model_type="bpe", vocab_size=330, byte_fallback=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, hard_vocab_limit=False, minloglevel=2)
    SPM = sentencepiece.SentencePieceProcessor(model_file=f"{folder}/spm.model")
golden["ids"]["spm"] = [[1] + SPM.encode(text) for text in TEXTS]


def add_spm(writer):
    kinds = [2 if SPM.is_unknown(i) else 3 if SPM.is_control(i) else 6 if SPM.is_byte(i) else 1 for i in range(SPM.vocab_size())]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([SPM.id_to_piece(i) for i in range(SPM.vocab_size())])
    writer.add_token_scores([SPM.get_score(i) for i in range(SPM.vocab_size())])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(1), writer.add_eos_token_id(2), writer.add_unk_token_id(0)
    return SPM.vocab_size()


def add_bpe(writer, name):
    tokenizer = BPE[name]
    model = json.loads(tokenizer.to_str())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].get)
    tokens += [f"[PAD{i}]" for i in range(len(tokens), len(tokens) + 2)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 3) + [5, 5])
    writer.add_token_merges([" ".join(pair) for pair in model["merges"]])
    writer.add_eos_token_id(0)
    writer.add_add_bos_token(False)
    return len(tokens)


# BERT's vocabulary as llama.cpp's converter writes it: `▁` before what begins a word, no `##` before what goes on.
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "on", "mat", "gru", "##e", "##ss", "##s", "two", "space", "日", "本",
         "—", ",", "'", "x", "a", "b", "<", "|", ">", "end", "123", "##45", "##67", "[unused1]"]
with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    WORDPIECE = transformers.BertTokenizerFast.from_pretrained(folder)
golden["ids"]["wordpiece"] = [WORDPIECE.encode(text) for text in TEXTS]


def write_bert():
    path = ROOT / "bert.gguf"
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_name("tiny bert"), writer.add_license("apache-2.0")
    writer.add_tokenizer_model("bert")
    special = lambda word: word in WORDS[:5]
    writer.add_token_list([word if special(word) else word[2:] if word.startswith("##") else "\u2581" + word for word in WORDS])
    writer.add_token_types([3 if special(word) else 1 for word in WORDS])
    writer.add_unk_token_id(1), writer.add_pad_token_id(0), writer.add_bos_token_id(2), writer.add_sep_token_id(3), writer.add_mask_token_id(4)
    config = transformers.BertConfig(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
                                     max_position_embeddings=64, vocab_size=len(WORDS))
    writer.add_context_length(64), writer.add_embedding_length(16), writer.add_block_count(2), writer.add_head_count(4)
    writer.add_feed_forward_length(24), writer.add_layer_norm_eps(1e-12), writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.CLS)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.BERT, 2)
    golden["tensors"]["bert"] = {}
    for key, tensor in transformers.BertModel(config, add_pooling_layer=False).state_dict().items():
        if key.endswith(("position_ids", "token_type_ids")):
            continue
        golden["tensors"]["bert"][key] = list(tensor.shape)
        found = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert found, key
        value = values(key, tensor.shape)
        writer.add_tensor(found, np.ascontiguousarray(value, np.float16 if value.ndim > 1 else np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()


BASE = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
            max_position_embeddings=64, initializer_range=0.02, pad_token_id=None, bos_token_id=None, eos_token_id=0)
LLAMA3 = dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
MODELS = {
    # name: (architecture in gguf, transformers' config, tokenizer)
    "llama": (gguf.MODEL_ARCH.LLAMA, transformers.LlamaConfig(**BASE, rms_norm_eps=1e-5), "spm"),
    "llama3": (gguf.MODEL_ARCH.LLAMA, transformers.LlamaConfig(
        **BASE | dict(max_position_embeddings=131072), tie_word_embeddings=True, rope_theta=500000.0,
        rope_scaling=LLAMA3 | dict(rope_theta=500000.0), head_dim=8), "llama-bpe"),
    "qwen2": (gguf.MODEL_ARCH.QWEN2, transformers.Qwen2Config(**BASE), "qwen2"),
    "qwen3": (gguf.MODEL_ARCH.QWEN3, transformers.Qwen3Config(**BASE, head_dim=8), "qwen2"),
    "gemma2": (gguf.MODEL_ARCH.GEMMA2, transformers.Gemma2Config(**BASE, head_dim=8, query_pre_attn_scalar=8, sliding_window=32), "spm"),
    "gemma3": (gguf.MODEL_ARCH.GEMMA3, transformers.Gemma3TextConfig(**BASE, head_dim=8, query_pre_attn_scalar=8, sliding_window=32), "spm"),
    "phi3": (gguf.MODEL_ARCH.PHI3, transformers.Phi3Config(**BASE), "gpt-2"),
    "gpt2": (gguf.MODEL_ARCH.GPT2, transformers.GPT2Config(n_embd=16, n_layer=2, n_head=4, n_positions=64, n_inner=64), "gpt-2"),
    "starcoder2": (gguf.MODEL_ARCH.STARCODER2, transformers.Starcoder2Config(**BASE), "smollm"),
}

for name, (arch, config, tokenizer) in MODELS.items():
    path = ROOT / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    config.vocab_size = add_spm(writer) if tokenizer == "spm" else add_bpe(writer, tokenizer)
    writer.add_name(f"tiny {name}")
    writer.add_license("apache-2.0")
    writer.add_base_model_count(1)
    writer.add_base_model_name(0, "Larger")
    writer.add_base_model_organization(0, "Somebody")
    writer.add_base_model_repo_url(0, "https://example.org/larger")
    writer.add_chat_template("{{ messages[0].content }}")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    heads = config.num_attention_heads
    writer.add_feed_forward_length(getattr(config, "intermediate_size", getattr(config, "n_inner", 0)))
    if name not in ("gpt2", "starcoder2"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(1e-5)
    if name != "gpt2":
        kv_heads = config.num_key_value_heads
        writer.add_head_count_kv(kv_heads)
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        writer.add_key_length(width), writer.add_value_length(width), writer.add_rope_dimension_count(width)
        rope = config.rope_parameters
        rope = rope.get("full_attention", rope)
        writer.add_rope_freq_base(rope["rope_theta"])
        writer.add_vocab_size(config.vocab_size)
    if name in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if name == "gemma2":
        writer.add_attn_logit_softcapping(50.0), writer.add_final_logit_softcapping(30.0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    state = model.state_dict()
    names = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    golden.setdefault("tensors", {})[name] = {}
    for key, tensor in state.items():
        if key != "lm_head.weight" or not config.tie_word_embeddings:
            tensor.copy_(torch.from_numpy(values(key, tensor.shape)))
    for key, tensor in state.items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        golden["tensors"][name][key] = list(tensor.shape)
        value = values(key, tensor.shape)
        if arch == gguf.MODEL_ARCH.LLAMA and ("q_proj" in key or "k_proj" in key):
            value = permute(value, heads if "q_proj" in key else kv_heads)
        if name.startswith("gemma") and "norm" in key:
            value = value + 1
        if name == "gpt2" and key.endswith((".c_attn.weight", ".c_proj.weight", ".c_fc.weight")):
            value = value.T
        found = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert found, key
        writer.add_tensor(found, np.ascontiguousarray(value, np.float16 if value.ndim > 1 else np.float32))
    if name == "llama3":
        # As llama.cpp's converter computes them.
        low, high = 8192 / LLAMA3["low_freq_factor"], 8192 / LLAMA3["high_freq_factor"]
        factors = []
        for frequency in 1.0 / (500000.0 ** (torch.arange(0, 8, 2).float() / 8)):
            length = 2 * np.pi / frequency
            smooth = (8192 / length - 1) / (4 - 1)
            factors.append(1 if length < high else 8 if length > low else 1 / ((1 - smooth) / 8 + smooth))
        writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    writer.write_header_to_file(), writer.write_kv_data_to_file(), writer.write_tensors_to_file(), writer.close()
    if name != "llama3":  # transformers does not read the rotary factors
        try:
            again = transformers.AutoModelForCausalLM.from_pretrained(ROOT, gguf_file=path.name, config=config, dtype=torch.float32).state_dict()
            wrong = [key for key in state if key in again and not torch.equal(state[key], again[key])]
            print(name, path.stat().st_size, "transformers reads it back" if not wrong else f"DIFFERENT: {wrong}")
        except Exception as error:
            print(name, path.stat().st_size, "not checked:", type(error).__name__, str(error)[:200])

write_bert()
(ROOT / "golden.json").write_text(json.dumps(golden))
