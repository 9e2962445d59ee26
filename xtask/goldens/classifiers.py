"""Tiny random classifiers with the logits that transformers gives for them, and the loss and gradients that torch does.

Run in a virtual environment with transformers and torch (CPU):
    python xtask/goldens/classifiers.py
Writes crates/model/tests/golden/classifier-*/{config.json, model.safetensors, golden.json}.
"""
import json
import pathlib
import shutil

import torch
import transformers
from transformers import (
    BertConfig, BertForSequenceClassification, GPT2Config, GPT2ForSequenceClassification, LlamaConfig,
    LlamaForSequenceClassification, ModernBertConfig, ModernBertForSequenceClassification, RobertaConfig,
    RobertaForSequenceClassification,
)

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/model/tests/golden"
SIZES = dict(vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2)
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
MODERN = SIZES | dict(num_hidden_layers=4, local_attention=6, global_attn_every_n_layers=3, pad_token_id=0,
                      cls_token_id=1, sep_token_id=2, bos_token_id=1, eos_token_id=2, max_position_embeddings=64)
LABELS = ["ham", "maybe", "spam"]
NAMED = dict(id2label=dict(enumerate(LABELS)), label2id={label: i for i, label in enumerate(LABELS)}, num_labels=3)
MODELS = {
    "classifier-bert": (BertForSequenceClassification,
                        BertConfig(**SIZES, **NO_DROPOUT, **NAMED, max_position_embeddings=40)),
    "classifier-roberta": (RobertaForSequenceClassification,
                           RobertaConfig(**SIZES, **NO_DROPOUT, **NAMED, max_position_embeddings=42,
                                         type_vocab_size=1)),
    "classifier-modernbert": (ModernBertForSequenceClassification,
                              ModernBertConfig(**MODERN, **NAMED, classifier_pooling="mean")),
    "classifier-llama": (LlamaForSequenceClassification,
                         LlamaConfig(**SIZES, **NAMED, num_key_value_heads=1, max_position_embeddings=64,
                                     pad_token_id=0)),
    "classifier-gpt2": (GPT2ForSequenceClassification,
                        GPT2Config(**NAMED, vocab_size=48, n_embd=16, n_layer=2, n_head=2, n_positions=40, n_inner=24,
                                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0)),
}
LENGTHS = [1, 5, 33, 17]
TARGETS = [2, 0, 1, 2]

generator = torch.Generator().manual_seed(5)
IDS = [torch.randint(4, 48, (length,), generator=generator).tolist() for length in LENGTHS]

for name, (kind, config) in MODELS.items():
    torch.manual_seed(21)
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
    logits = torch.stack([model(input_ids=torch.tensor([ids])).logits[0] for ids in IDS])
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(TARGETS))
    loss.backward()
    norms = {key: float(parameter.grad.norm()) for key, parameter in model.named_parameters()
             if parameter.grad is not None}
    folder = ROOT / name
    if folder.exists():
        shutil.rmtree(folder)
    model.save_pretrained(folder)
    (folder / "golden.json").write_text(json.dumps({
        "transformers": transformers.__version__, "torch": torch.__version__, "ids": IDS, "labels": LABELS,
        "targets": TARGETS, "logits": [[float(f"{x:.7g}") for x in row] for row in logits.tolist()],
        "loss": loss.item(), "gradient_norms": norms,
    }))
