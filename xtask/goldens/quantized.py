"""Makes crates/model/tests/golden/quantized/model.safetensors: the same kind of matrix in the layouts of GPTQ, AWQ and
compressed-tensors, each with the numbers that it stands for.

    python xtask/goldens/quantized.py

Written with torch 2.15.0, safetensors 0.8.0, compressed-tensors 0.20.0. The layouts of GPTQ and AWQ are packed here bit by
bit as AutoGPTQ 0.7 (`QuantLinear.pack`) and AutoAWQ 0.2 (`WQLinear_GEMM.from_linear`) define them.
"""

import pathlib

import torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import save_file

torch.manual_seed(7)
AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


def int32(words):
    """Words of 32 bits that a signed integer holds."""
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def pack(values, order):
    """Eight values of the last axis a word: value order[j] at bit 4j."""
    values = values.long().reshape(*values.shape[:-1], -1, 8)
    return int32(sum(values[..., order[j]] << (4 * j) for j in range(8)))


def random_matrix(outputs, inputs, group):
    groups = -(-inputs // group)
    codes = torch.randint(0, 16, (outputs, inputs))
    zeros = torch.randint(1, 16, (outputs, groups))
    scales = (torch.rand(outputs, groups) * 0.01 + 0.001).half()
    return codes, zeros, scales


def numbers(codes, zeros, scales, groups_of_inputs):
    return ((codes - zeros[:, groups_of_inputs]).float() * scales.float()[:, groups_of_inputs]).contiguous()


tensors = {}

# GPTQ: words of eight inputs, zeros less 1; inputs in the order of their importance have groups of their own.
for name, shuffled in [("gptq", False), ("gptq_order", True)]:
    codes, zeros, scales = random_matrix(16, 256, 128)
    g_idx = torch.arange(256) // 128
    if shuffled:
        g_idx = g_idx[torch.randperm(256)]
    straight = list(range(8))
    tensors |= {
        f"{name}.qweight": pack(codes, straight).t().contiguous(),
        f"{name}.qzeros": pack((zeros - 1).t().contiguous(), straight),
        f"{name}.scales": scales.t().contiguous(),
        f"{name}.g_idx": g_idx.to(torch.int32),
        f"{name}.numbers": numbers(codes, zeros, scales, g_idx),
    }

# AWQ: words of eight outputs, interleaved.
codes, zeros, scales = random_matrix(24, 128, 128)
tensors |= {
    "awq.qweight": pack(codes.t().contiguous(), AWQ_ORDER),
    "awq.qzeros": pack(zeros.t().contiguous(), AWQ_ORDER),
    "awq.scales": scales.t().contiguous(),
    "awq.numbers": numbers(codes, zeros, scales, torch.arange(128) // 128),
}

# compressed-tensors, by its own functions.
for name, asymmetric in [("packed", True), ("packed_symmetric", False)]:
    codes, zeros, scales = random_matrix(20, 96, 32)
    if not asymmetric:
        zeros = torch.full_like(zeros, 8)
    tensors |= {
        f"{name}.weight_packed": pack_to_int32((codes - 8).to(torch.int8), 4),
        f"{name}.weight_scale": scales,
        f"{name}.weight_shape": torch.tensor([20, 96]),
        f"{name}.numbers": numbers(codes, zeros, scales, torch.arange(96) // 32),
    }
    if asymmetric:
        tensors[f"{name}.weight_zero_point"] = pack_to_int32((zeros - 8).to(torch.int8), 4, packed_dim=0)

folder = pathlib.Path(__file__).parents[2] / "crates/model/tests/golden/quantized"
folder.mkdir(parents=True, exist_ok=True)
save_file(tensors, folder / "model.safetensors")
print(sum(tensor.nbytes for tensor in tensors.values()), "bytes")
