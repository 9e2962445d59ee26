#!/usr/bin/env python3
"""Training speed of PyTorch on the benchmark's Llama shapes. Needs torch 2.5 or newer; nothing else.

    python pytorch.py --shape llama-10m --precision f32 --mode compiled --steps 5
    python pytorch.py --shape llama-100m --ranks 2 --threads 1 --micro-batches 2 --parallel fsdp2

A step is forward, mean cross-entropy, backward, clipping of the global gradient norm to 1, AdamW, zero grad. Three
steps warm up, then N are timed; one JSON line says the medians. With --repeat the script prints "ready" after the
warm-up and runs N steps more for each line on stdin, so that a driver can alternate engines and pay for compilation
once. With --ranks several processes of this machine train together over gloo; micro-batches go to them in turn.
"""
import argparse
import contextlib
import ctypes
import json
import math
import os
import resource
import socket
import statistics
import subprocess
import sys
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

NAMES = ["vocab", "width", "ffn", "layers", "heads", "kv_heads", "tied", "batch", "length"]
SHAPES = {
    "llama-10m": dict(zip(NAMES, [256, 384, 1024, 6, 6, 6, False, 8, 256])),
    "llama-100m": dict(zip(NAMES, [32000, 768, 2048, 12, 12, 4, True, 4, 512])),
}
HEAD_WIDTH, EPSILON, THETA, WARM_UP = 64, 1e-6, 10000.0, 3


class Block(nn.Module):
    def __init__(self, width, ffn, heads, kv_heads):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self.attention_norm = nn.RMSNorm(width, eps=EPSILON)
        self.query = nn.Linear(width, heads * HEAD_WIDTH, bias=False)
        self.key = nn.Linear(width, kv_heads * HEAD_WIDTH, bias=False)
        self.value = nn.Linear(width, kv_heads * HEAD_WIDTH, bias=False)
        self.output = nn.Linear(heads * HEAD_WIDTH, width, bias=False)
        self.ffn_norm = nn.RMSNorm(width, eps=EPSILON)
        self.gate = nn.Linear(width, ffn, bias=False)
        self.up = nn.Linear(width, ffn, bias=False)
        self.down = nn.Linear(ffn, width, bias=False)

    def forward(self, x, cosine, sine):
        batch, length, _ = x.shape
        normed = self.attention_norm(x)
        query, key, value = (
            projection(normed).view(batch, length, -1, HEAD_WIDTH).transpose(1, 2)
            for projection in (self.query, self.key, self.value)
        )
        query, key = rotate(query, cosine, sine), rotate(key, cosine, sine)
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=self.heads != self.kv_heads
        )
        x = x + self.output(mixed.transpose(1, 2).reshape(batch, length, -1))
        normed = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(normed)) * self.up(normed))


def rotate(x, cosine, sine):
    first, second = x.chunk(2, dim=-1)
    cosine, sine = cosine.to(x.dtype), sine.to(x.dtype)
    return torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)


class Llama(nn.Module):
    def __init__(self, vocab, width, ffn, layers, heads, kv_heads, tied, length, **_):
        super().__init__()
        self.embedding = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList(Block(width, ffn, heads, kv_heads) for _ in range(layers))
        self.norm = nn.RMSNorm(width, eps=EPSILON)
        self.unembedding = nn.Linear(width, vocab, bias=False)
        if tied:
            self.unembedding.weight = self.embedding.weight
        frequencies = THETA ** (-torch.arange(0, HEAD_WIDTH, 2, dtype=torch.float32) / HEAD_WIDTH)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cosine, self.sine)
        logits = self.unembedding(self.norm(x))
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def initialise(model, kind):
    """`sine` gives every engine the same weights, so that their first losses can be compared."""
    for parameter in model.parameters():
        if parameter.dim() == 1:
            nn.init.ones_(parameter)
        elif kind == "sine":
            index = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
            parameter.data.copy_((0.02 * index.sin()).view_as(parameter))
        else:
            nn.init.normal_(parameter, std=0.02)


def batches(vocab, batch, length, **_):
    """Random ids by a small generator that every engine repeats bit for bit (Knuth's MMIX constants)."""
    state = 42
    while True:
        ids = []
        for _ in range(batch * (length + 1)):
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            ids.append((state >> 33) % vocab)
        rows = torch.tensor(ids).view(batch, length + 1)
        yield rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def launch(ranks):
    """Starts this script as every rank, rank 0 with our stdin and stdout; ends with the first that fails."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    common = {**os.environ, "WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    running = [
        subprocess.Popen(
            [sys.executable, *sys.argv],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            **({} if rank == 0 else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}),
        )
        for rank in range(ranks)
    ]
    try:
        while all(process.poll() is None for process in running):
            time.sleep(0.1)
        failed = next((process.returncode for process in running if process.poll()), 0)
        if not failed:
            failed = max(process.wait() for process in running)
        sys.exit(1 if failed else 0)
    finally:
        for process in running:
            process.kill()


def parallel(model, how):
    """The model for several processes, and what makes the gradients of a micro-batch stay where they are."""
    if how == "fsdp2":
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        for block in model.blocks:
            fully_shard(block, mesh=mesh)
        fully_shard(model, mesh=mesh)

        @contextlib.contextmanager
        def alone():
            model.set_requires_gradient_sync(False)
            yield
            model.set_requires_gradient_sync(True)

        return model, alone
    model = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
    return model, model.no_sync


def deepspeed_step(model, stage, optimizer, shape, passes):
    """A micro-batch under DeepSpeed's ZeRO, which accumulates, clips and steps by itself; gives its loss."""
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": shape["batch"],
        "gradient_accumulation_steps": passes,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config, dist_init_required=False)

    def micro_batch(ids, targets, autocast):
        with autocast:
            loss = engine(ids, targets)
        engine.backward(loss)
        engine.step()
        return loss

    return micro_batch


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="llama-10m")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--mode", choices=["eager", "compiled"], default="eager")
    parser.add_argument("--init", choices=["normal", "sine"], default="normal")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--threads", type=int, help="of each process; its share of all by default")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--parallel", choices=["ddp", "fsdp2", "deepspeed1", "deepspeed3"], default="ddp")
    parser.add_argument("--micro-batches", type=int, default=1)
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--losses", action="store_true", help="print each step's loss and gradient norm on stderr")
    arguments = parser.parse_args()
    if arguments.ranks > 1 and "RANK" not in os.environ:
        launch(arguments.ranks)
    if arguments.micro_batches % arguments.ranks:
        parser.error("--micro-batches must be a multiple of --ranks")
    # What libraries print goes to stderr: stdout is for who reads our answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    threads = arguments.threads or max(1, len(os.sched_getaffinity(0)) // arguments.ranks)
    torch.set_num_threads(threads)
    torch.manual_seed(42)
    if arguments.ranks > 1:
        dist.init_process_group("gloo")
    rank = dist.get_rank() if arguments.ranks > 1 else 0
    own = range(rank, arguments.micro_batches, arguments.ranks)

    shape = SHAPES[arguments.shape]
    model = Llama(**shape)
    initialise(model, arguments.init)
    alone = contextlib.nullcontext
    by_deepspeed = arguments.ranks > 1 and arguments.parallel.startswith("deepspeed")
    if arguments.ranks > 1 and not by_deepspeed:
        model, alone = parallel(model, arguments.parallel)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=3e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01, fused=True
    )
    if by_deepspeed:
        micro_batch = deepspeed_step(model, int(arguments.parallel[-1]), optimizer, shape, len(own))
    forward = torch.compile(model) if arguments.mode == "compiled" else model
    stream = batches(**shape)

    def step():
        batches_of_step = [next(stream) for _ in range(arguments.micro_batches)]
        begin = time.perf_counter()
        total = 0.0
        for number in own:
            ids, targets = batches_of_step[number]
            if by_deepspeed:
                autocast = torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16")
                total += micro_batch(ids, targets, autocast).detach() / len(own)
                continue
            with contextlib.nullcontext() if number == own[-1] else alone():
                with torch.autocast("cpu", torch.bfloat16, enabled=arguments.precision == "bf16"):
                    loss = forward(ids, targets)
                # Ranks are averaged by who shares the gradients.
                (loss / len(own)).backward()
            total += loss.detach() / len(own)
        if by_deepspeed:
            norm = float("nan")
        else:
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
        if arguments.ranks > 1:
            dist.all_reduce(total)
            total /= arguments.ranks
        seconds, loss = time.perf_counter() - begin, total.item()
        if not math.isfinite(loss):
            sys.exit(f"the loss is {loss}")
        if arguments.losses:
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
            print(f"loss {loss:.6f}, gradient norm {norm:.6f}", file=sys.stderr)
        return seconds, loss

    def rest():
        """Gives free memory back, as other engines run next: of 3.9 GB that llama-100m kept, 1.9 are left."""
        if hasattr(library := ctypes.CDLL(None), "malloc_trim"):
            library.malloc_trim(0)

    def report():
        times, losses = zip(*(step() for _ in range(arguments.steps)))
        median = statistics.median(times)
        rest()
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
        if arguments.ranks > 1:
            most = torch.tensor([resident])
            dist.all_reduce(most, dist.ReduceOp.MAX)
            resident = most.item()
        if rank > 0:
            return
        print(json.dumps({
            "engine": "pytorch",
            "version": torch.__version__,
            "mode": arguments.mode,
            "precision": arguments.precision,
            "shape": arguments.shape,
            "threads": threads,
            "ranks": arguments.ranks,
            "tokens_per_second": round(arguments.micro_batches * shape["batch"] * shape["length"] / median, 1),
            "step_ms": round(median * 1000, 2),
            "peak_rss_mb": round(resident, 1),
            "loss": round(losses[-1], 6),
        }), file=answers, flush=True)

    for _ in range(WARM_UP):
        step()
    if not arguments.repeat:
        return report()
    rest()
    if rank == 0:
        print("ready", file=answers, flush=True)
    while True:
        line = sys.stdin.readline() if rank == 0 else ""
        goes_on = torch.tensor([bool(line)])
        if arguments.ranks > 1:
            dist.broadcast(goes_on, 0)
        if not goes_on:
            break
        report()
    if arguments.ranks > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
