"""The losses of 100 training steps, made by PyTorch and transformers: writes crates/train/tests/golden/training.json.

    venv/bin/python xtask/goldens/training.py

Weights and tokens follow formulas that the test repeats: weight i of tensor number t (in the model's order) is
0.08 sin(0.37 (i + 1)^2 + t), norms are 1; token i of row r in micro-batch b is below. (The square matters: matrices of
sin(i) have rank 2, and training on them blows rounding up until PyTorch's own losses in f32 and in f64 are 4e-3 apart.)

`losses` are those of one process, with one micro-batch a step; `fsdp_losses` those of two processes under FSDP2
(`fully_shard` of each layer and of the model, gloo), with one micro-batch of each a step.
"""

import json
import math
import os
import pathlib

import torch
import torch.distributed as dist
import transformers
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

VOCABULARY, ROWS, LENGTH, STEPS, RATE, RANKS = 97, 3, 48, 100, 1e-3, 2


def make_model():
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=172,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        rms_norm_eps=1e-6,
        rope_theta=10000.0,
        tie_word_embeddings=False,
    )
    model = transformers.LlamaForCausalLM(config).float()
    names = []
    with torch.no_grad():
        for number, (name, parameter) in enumerate(model.named_parameters()):
            names.append(name)
            if parameter.dim() == 1:
                parameter.fill_(1.0)
                continue
            values = [0.08 * math.sin(0.37 * (i + 1) ** 2 + number) for i in range(parameter.numel())]
            parameter.copy_(torch.tensor(values, dtype=torch.float64).float().reshape(parameter.shape))
    return model, names


def token(batch, row, i):
    return (batch * 7 + row * 31 + i * 3 + i // 7) % VOCABULARY


def train(model, batch_of):
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.99), eps=1e-8)
    losses = []
    for step in range(STEPS):
        batch = batch_of(step)
        rows = torch.tensor([[token(batch, row, i) for i in range(LENGTH + 1)] for row in range(ROWS)])
        logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, VOCABULARY), rows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    return losses


def rank_of_fsdp(rank, queue):
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29517", RANK=str(rank), WORLD_SIZE=str(RANKS))
    dist.init_process_group("gloo")
    model, _ = make_model()
    mesh = init_device_mesh("cpu", (RANKS,))
    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    losses = torch.tensor(train(model, lambda step: step * RANKS + rank), dtype=torch.float64)
    dist.all_reduce(losses)
    if rank == 0:
        queue.put((losses / RANKS).tolist())
    dist.destroy_process_group()


def main():
    model, names = make_model()
    losses = train(model, lambda step: step)
    spawn = torch.multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    ranks = [spawn.Process(target=rank_of_fsdp, args=(rank, queue)) for rank in range(RANKS)]
    for process in ranks:
        process.start()
    fsdp_losses = queue.get()
    for process in ranks:
        process.join()
    golden = {
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "names": names,
        "losses": losses,
        "fsdp_losses": fsdp_losses,
    }
    path = pathlib.Path(__file__).resolve().parents[2] / "crates/train/tests/golden/training.json"
    path.write_text(json.dumps(golden, indent=1) + "\n")


if __name__ == "__main__":
    main()
