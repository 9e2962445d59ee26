"""Tiny random encoders with the outputs that transformers and sentence-transformers give for them.

Run in a virtual environment with transformers, torch and sentence-transformers (CPU):
    python xtask/goldens/encoders.py
Writes crates/model/tests/golden/encoder-*/{config.json, model.safetensors, golden.json, ...}.
"""
import json
import pathlib
import shutil

import sentence_transformers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig, BertForSequenceClassification, BertModel, ModernBertConfig, ModernBertForSequenceClassification,
    ModernBertModel, RobertaConfig, RobertaForSequenceClassification, RobertaModel, XLMRobertaConfig,
    XLMRobertaModel,
)

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
SIZES = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
MODERN = SIZES | dict(num_hidden_layers=4, local_attention=6, global_attn_every_n_layers=3, pad_token_id=0,
                      cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=64)
MODELS = {
    "encoder-bert": (BertModel, BertConfig(**SIZES, max_position_embeddings=40, layer_norm_eps=1e-12)),
    "encoder-bert-score": (BertForSequenceClassification,
                           BertConfig(**SIZES, max_position_embeddings=40, hidden_act="gelu_new", num_labels=1)),
    "encoder-roberta": (RobertaModel, RobertaConfig(**SIZES, max_position_embeddings=42, type_vocab_size=1)),
    "encoder-roberta-score": (RobertaForSequenceClassification,
                              RobertaConfig(**SIZES, max_position_embeddings=42, type_vocab_size=1, num_labels=3)),
    "encoder-xlm-roberta": (XLMRobertaModel,
                            XLMRobertaConfig(**SIZES, max_position_embeddings=42, type_vocab_size=1, pad_token_id=3)),
    "encoder-modernbert": (ModernBertModel, ModernBertConfig(**MODERN)),
    "encoder-modernbert-score": (ModernBertForSequenceClassification,
                                 ModernBertConfig(**MODERN, num_labels=1, classifier_pooling="mean")),
}
LENGTHS = [1, 5, 33, 17]


def sequences(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(4, 48, (length,), generator=generator).tolist() for length in LENGTHS]


def write(name, model, extra):
    folder = ROOT / name
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder)
    (folder / "golden.json").write_text(json.dumps(extra))
    return folder


for name, (kind, config) in MODELS.items():
    torch.manual_seed(11)
    config.initializer_range = 0.2
    config._attn_implementation = "eager"
    model = kind(config).eval()
    with torch.no_grad():
        # Biases and norms are born 0 and 1, which would hide that they are left out.
        for key, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "ModernBert" in kind.__name__:
                parameter.mul_(4.0)
    pairs = name.startswith("encoder-bert")
    ids = sequences(5)
    types = [[0] * (len(s) // 2) + [1] * (len(s) - len(s) // 2) for s in ids] if pairs else None
    outputs = []
    with torch.no_grad():
        for at, sequence in enumerate(ids):
            given = {"input_ids": torch.tensor([sequence])}
            if types:
                given["token_type_ids"] = torch.tensor([types[at]])
            out = model(**given)
            found = out.logits[0] if hasattr(out, "logits") else out.last_hidden_state[0].flatten()
            outputs.append([float(f"{x:.7g}") for x in found.tolist()])
    write(name, model, {
        "transformers": transformers.__version__, "torch": torch.__version__, "ids": ids, "types": types,
        "outputs": outputs,
    })

# A prefix as checkpoints with a head have it, and shapes in 16 bits.
plain = ROOT / "encoder-bert"
tensors = {f"bert.{key}": value for key, value in load_file(plain / "model.safetensors").items()}
tensors["bert.embeddings.position_ids"] = torch.arange(40).unsqueeze(0)
tensors["cls.predictions.bias"] = torch.zeros(48)
prefixed = ROOT / "encoder-bert-prefix"
prefixed.mkdir(exist_ok=True)
save_file(tensors, prefixed / "model.safetensors", metadata={"format": "pt"})
for file in ("config.json", "golden.json"):
    shutil.copy(plain / file, prefixed / file)

# Pooling, a dense layer and normalization by sentence-transformers.
import warnings

warnings.filterwarnings("ignore")
from sentence_transformers.base.modules import Dense, Normalize
from sentence_transformers.sentence_transformer.modules import Pooling

torch.manual_seed(12)
hidden = [torch.randn(length, 6) for length in (1, 4, 9)]
pooled = {}
for modes in ("mean", "cls", "max", "lasttoken", "mean_sqrt_len_tokens", "weightedmean", ["cls", "mean"]):
    module = Pooling(6, modes)
    outputs = [
        module({"token_embeddings": h.unsqueeze(0), "attention_mask": torch.ones(1, len(h))})["sentence_embedding"][0]
        for h in hidden
    ]
    pooled["+".join(modes) if isinstance(modes, list) else modes] = [o.tolist() for o in outputs]
dense = Dense(16, 4)
rows = json.loads((plain / "golden.json").read_text())["outputs"]
given = torch.stack([torch.tensor(row).view(-1, 16).mean(0) for row in rows])
with torch.no_grad():
    after = Normalize()(dense({"sentence_embedding": given}))["sentence_embedding"]
folder = ROOT / "encoder-pooling"
folder.mkdir(exist_ok=True)
dense_folder = folder / "2_Dense"
dense_folder.mkdir(exist_ok=True)
dense.save(str(dense_folder))
(folder / "golden.json").write_text(json.dumps({
    "sentence_transformers": sentence_transformers.__version__, "hidden": [h.tolist() for h in hidden],
    "pooled": pooled, "dense": after.tolist(),
}))
