"""Tokenizers as people have them, with what stands beside them, through ours and transformers': ids must be the same, or the folder refused.

    python3 -m venv venv && venv/bin/pip install torch transformers tokenizers
    cargo build --release --workspace --examples
    venv/bin/python xtask/checks/tokenizer_check.py [--show KIND]

Every kind of `tokenizer.json` is written with each class that uses it and each setting in `tokenizer_config.json`, `special_tokens_map.json`
and `added_tokens.json`. Where a class of transformers 5 builds its tokenizer anew and passes over what `tokenizer.json` says, the ids of
`tokenizer.json` are the right ones here: those are listed apart.
"""

import argparse
import json
import os
import pathlib
import subprocess
import tempfile
from collections import Counter

import tokenizers
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

parser = argparse.ArgumentParser()
parser.add_argument("--target", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release")
parser.add_argument("--show", default="")
options = parser.parse_args()
ours = subprocess.Popen([f"{options.target}/examples/ids"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

CORPUS = ["the cat sat on the mat and the dog sat on the log", "Grüße und Küsse, 日本 123 45", "It's the end's, isn't it? A Cat and a DOG."] * 30
TEXTS = ["the cat sat", "The DOG's 123 Küsse", " two  spaces ", "日本 is far", "a<new>b <new> c", "<s>the</s> cat", "", "x\n\ny\tz", "[SEP] the <pad>"]


def wordpiece(lowercase):
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", [("[CLS]", 2), ("[SEP]", 3)])
    made.decoder = decoders.WordPiece()
    return made


def byte_level(surrounded, prefix_space=False):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    made.decoder = decoders.ByteLevel()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<|endoftext|>"]
    made.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=330, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    made.post_processor = processors.ByteLevel(trim_offsets=False)
    if surrounded:
        made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=prefix_space)
    return made


def sentencepiece(kind, before):
    made = tokenizers.Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>") if kind == "bpe" else models.Unigram())
    if kind == "bpe":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        trainer = trainers.BpeTrainer(vocab_size=330, special_tokens=["<unk>", "<s>", "</s>", "<pad>"] + [f"<0x{b:02X}>" for b in range(256)],
                                      show_progress=False)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    if before:
        made.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A $B:1", [("<s>", made.token_to_id("<s>"))])
    return made


KINDS = {
    "wordpiece uncased": (wordpiece(True), ["BertTokenizer", "BertTokenizerFast", "DistilBertTokenizer", "PreTrainedTokenizerFast"],
                          {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}),
    "wordpiece cased": (wordpiece(False), ["BertTokenizer", "PreTrainedTokenizerFast"],
                        {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}),
    "byte-level": (byte_level(False), ["GPT2Tokenizer", "GPT2TokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend"],
                   {"eos_token": "<|endoftext|>"}),
    "byte-level, surrounded": (byte_level(True), ["RobertaTokenizer", "PreTrainedTokenizerFast"],
                               {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}),
    "byte-level, space": (byte_level(False, True), ["PreTrainedTokenizerFast", "GPT2Tokenizer"], {"eos_token": "<|endoftext|>"}),
    "sentencepiece bpe": (sentencepiece("bpe", True), ["PreTrainedTokenizerFast", "TokenizersBackend"],
                          {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "sentencepiece bpe, bare": (sentencepiece("bpe", False), ["PreTrainedTokenizerFast"], {"eos_token": "</s>"}),
    "unigram": (sentencepiece("unigram", True), ["PreTrainedTokenizerFast"], {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
}
NEW = {"content": "<new>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False, "special": True}


def settings(size):
    """Name, keys of tokenizer_config.json, other files."""
    yield "nothing", {}, {}
    for key in ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "add_bos_token", "add_eos_token", "legacy",
                "clean_up_tokenization_spaces", "split_special_tokens", "use_default_system_prompt", "trim_offsets"):
        for value in (True, False):
            yield f"{key} {value}", {key: value}, {}
    yield "brand_new", {"brand_new": 7}, {}
    yield "padding_side", {"padding_side": "left", "truncation_side": "left", "model_max_length": 8}, {}
    for name, changes in {"plain": {}, "strips": {"lstrip": True, "rstrip": True}, "word": {"single_word": True},
                          "ordinary": {"special": False, "normalized": True}}.items():
        yield f"decoder {name}", {"added_tokens_decoder": {str(size): NEW | changes}}, {}
    yield "additional", {"additional_special_tokens": ["<new>"]}, {}
    yield "extra list", {"extra_special_tokens": ["<new>"]}, {}
    yield "extra named", {"extra_special_tokens": {"image_token": "<new>"}}, {}
    yield "map", {}, {"special_tokens_map.json": {"additional_special_tokens": ["<new>"]}}
    yield "map and added", {}, {"special_tokens_map.json": {"additional_special_tokens": ["<new>"]}, "added_tokens.json": {"<new>": size}}
    yield "added", {}, {"added_tokens.json": {"<new>": size}}
    yield "pad as text", {"pad_token": "<new>"}, {}
    yield "pad as object", {"pad_token": NEW}, {}


def encoded(tokenizer, texts):
    return [tokenizer(text)["input_ids"] for text in texts]


def main():
    print(f"transformers {transformers.__version__}, tokenizers {tokenizers.__version__}")
    counts, different, apart = Counter(), [], []
    for kind, (made, classes, tokens) in KINDS.items():
        for name in classes:
            for setting, keys, files in settings(made.get_vocab_size()):
                label = f"{kind} / {name} / {setting}"
                with tempfile.TemporaryDirectory() as folder:
                    folder = pathlib.Path(folder)
                    made.save(str(folder / "tokenizer.json"))
                    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name, **tokens, **keys}))
                    for file, content in files.items():
                        (folder / file).write_text(json.dumps(content))
                    ours.stdin.write(json.dumps({"folder": str(folder), "texts": TEXTS}) + "\n")
                    ours.stdin.flush()
                    found = json.loads(ours.stdout.readline())
                    if "error" in found:
                        counts["refused"] += 1
                        if options.show and options.show in label:
                            print("refused:", label, found["error"])
                        continue
                    try:
                        theirs = transformers.AutoTokenizer.from_pretrained(folder)
                        expected = encoded(theirs, TEXTS)
                    except Exception as error:
                        counts["transformers cannot"] += 1
                        if options.show and options.show in label:
                            print("transformers:", label, type(error).__name__, str(error)[:100])
                        continue
                    if found["ids"] == expected:
                        counts["same"] += 1
                        continue
                    # What tokenizer.json itself says, with the tokens that transformers has added.
                    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
                    added = [token for token in theirs.added_tokens_decoder.values() if backend.token_to_id(token.content) is None]
                    backend.add_special_tokens([token for token in added if token.special])
                    backend.add_tokens([token for token in added if not token.special])
                    if name.startswith("GPT2"):
                        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=keys.get("add_prefix_space", False))
                    if found["ids"] == [backend.encode(text).ids for text in TEXTS]:
                        counts["as tokenizer.json says, where transformers builds another"] += 1
                        apart.append(label)
                        continue
                    counts["different"] += 1
                    at = next(i for i in range(len(TEXTS)) if found["ids"][i] != expected[i])
                    different.append((label, TEXTS[at], theirs.convert_ids_to_tokens(expected[at]), theirs.convert_ids_to_tokens(found["ids"][at])))
    print(sum(counts.values()), "combinations:", dict(counts))
    if options.show:
        for label in apart:
            if options.show in label:
                print("apart:", label)
    for label, text, theirs, found in different:
        print(f"DIFFERENT {label}: {text!r}\n  theirs {theirs}\n  ours   {found}")


main()
