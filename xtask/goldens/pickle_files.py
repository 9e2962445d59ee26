"""Checkpoints of PyTorch and what is in them, made by torch and safetensors.

    python3 -m venv venv && venv/bin/pip install torch transformers safetensors tokenizers
    venv/bin/python xtask/goldens/pickle_files.py

Writes to crates/formats/tests/golden/pickle/: checkpoints by torch.save, for each the tensors in NAME.safetensors, a
sharded folder, and an adapter. Hostile pickles are made in the tests themselves, opcode by opcode.
"""

import json
import pathlib
import shutil

import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parents[2] / "crates/formats/tests/golden/pickle"
shutil.rmtree(ROOT, ignore_errors=True)
(ROOT / "sharded").mkdir(parents=True)
torch.manual_seed(0)

base = torch.randn(4, 6)
tied = torch.randn(3, 2)
tensors = {
    "plain": torch.randn(2, 3),
    "half": torch.randn(5).half(),
    "brain": torch.randn(2, 2).bfloat16(),
    "transposed": base.T,
    "part": base[1:3, ::2],
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
    "expanded": torch.randn(3, 1).expand(3, 4),
    "tied.a": tied,
    "tied.b": tied,
    "parameter": torch.nn.Parameter(torch.randn(3)),
}
others = {"positions": torch.arange(4), "mask": torch.tensor([True, False])}
expected = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
save_file(expected, ROOT / "expected.safetensors")

torch.save(tensors | others, ROOT / "zip.pt")
torch.save(tensors | others, ROOT / "protocol-4.pt", pickle_protocol=4)
torch.save(tensors | others, ROOT / "legacy.bin", _use_new_zipfile_serialization=False)
torch.save({"epoch": 3, "state_dict": tensors | others, "config": {"a": [1, 2.5, None]}}, ROOT / "wrapped.pt")
module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
torch.save(module.state_dict(), ROOT / "module.pt")
save_file(module.state_dict(), ROOT / "module.safetensors")
torch.save({"x": torch.randn(2).double()}, ROOT / "double.pt")
torch.save(module, ROOT / "code.pt")

shards = [["plain", "half"], ["brain", "part"]]
for number, names in enumerate(shards, 1):
    torch.save({name: tensors[name] for name in names}, ROOT / f"sharded/pytorch_model-{number:05}-of-00002.bin")
weight_map = {name: f"pytorch_model-{number:05}-of-00002.bin" for number, names in enumerate(shards, 1) for name in names}
(ROOT / "sharded/pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {"total_size": 0}, "weight_map": weight_map}))
# A whole model, for the command line: its tokenizer is bytes alone.
config = transformers.LlamaConfig(
    vocab_size=257, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2,
    max_position_embeddings=64, tie_word_embeddings=True, bos_token_id=None, eos_token_id=256, initializer_range=0.2)
(ROOT / "model").mkdir()
config.save_pretrained(ROOT / "model")
model = transformers.LlamaForCausalLM(config).half()
torch.save({name: tensor for name, tensor in model.state_dict().items()}, ROOT / "model/pytorch_model.bin")
tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(
    vocab={token: id for id, token in enumerate(sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = tokenizers.decoders.ByteLevel()
tokenizer.add_special_tokens(["<|end|>"])
tokenizer.save(str(ROOT / "model/tokenizer.json"))
(ROOT / "model/tokenizer_config.json").write_text(json.dumps({"eos_token": "<|end|>"}))
shutil.copy(ROOT.parents[4] / "LICENSE-MIT", ROOT / "model/LICENSE")
# An adapter as PEFT wrote it before safetensors: the one of adapters.py in the other form.
peft = ROOT.parents[3] / "model/tests/golden/adapters/lora"
(ROOT / "adapter").mkdir()
shutil.copy(peft / "adapter_config.json", ROOT / "adapter")
torch.save(load_file(peft / "adapter_model.safetensors"), ROOT / "adapter/adapter_model.bin")
print(torch.__version__, sorted(path.name for path in ROOT.iterdir()))
