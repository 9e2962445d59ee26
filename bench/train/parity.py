#!/usr/bin/env python3
"""The same training steps in PyTorch, so that another engine's losses can be laid beside these.

    python parity.py MODEL_FOLDER steps.json losses.json

Needs torch, transformers and safetensors. MODEL_FOLDER holds a Hugging Face Llama model in f32 (config.json and
model.safetensors). steps.json is {"lr": 0.001, "steps": [[row, …], …]}: for each step, rows of T+1 token ids; every
row of a step has the same length. losses.json gets each step's mean loss over all targets, taken before its update.
"""
import json
import sys

import torch
import torch.nn.functional as F
import transformers


def main():
    folder, plan, out = sys.argv[1:]
    with open(plan) as file:
        plan = json.load(file)
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.train()
    # parameters() names a tied embedding once. The split is by rank, as Narthex does it: the embedding decays too.
    matrices = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=plan["lr"], betas=(0.9, 0.99), eps=1e-8)
    losses = []
    for rows in plan["steps"]:
        rows = torch.tensor(rows)
        # No mask and no labels: the rows are full, and the mean is to be over all targets and nothing else.
        logits = model(input_ids=rows[:, :-1], use_cache=False).logits
        loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    with open(out, "w") as file:
        json.dump({"torch": torch.__version__, "transformers": transformers.__version__, "losses": losses}, file)
        file.write("\n")


if __name__ == "__main__":
    main()
