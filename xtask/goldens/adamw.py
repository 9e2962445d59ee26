"""Reference steps of AdamW, made by PyTorch: writes crates/kernels/tests/golden/adamw.json.

    venv/bin/python xtask/goldens/adamw.py
"""

import json
import pathlib

import torch

torch.manual_seed(0)
weights = torch.nn.Parameter(torch.randn(2, 3))
optimizer = torch.optim.AdamW([weights], lr=0.01)
golden = {"torch": torch.__version__, "initial": weights.flatten().tolist(), "steps": []}
for scale in [0.1, 5.0, 1.0, 0.01, 2.0]:
    weights.grad = torch.randn(2, 3) * scale
    gradient = weights.grad.flatten().tolist()
    norm = torch.nn.utils.clip_grad_norm_([weights], 1.0).item()
    optimizer.step()
    golden["steps"].append({"gradient": gradient, "norm": norm, "weights": weights.flatten().tolist()})
path = pathlib.Path(__file__).resolve().parents[2] / "crates/kernels/tests/golden/adamw.json"
path.parent.mkdir(parents=True, exist_ok=True)
path.write_text(json.dumps(golden, indent=1) + "\n")
