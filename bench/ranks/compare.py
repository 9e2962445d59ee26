#!/usr/bin/env python3
"""Training by two processes beside one, and beside PyTorch's DDP and FSDP2, as a Markdown table.

Needs a Python with torch for the peers; ../ranks.sh builds the binary and calls this. A group of engines is started and
warmed up, then they take turns, round by round; each group has one Narthex process on all threads, which the others are
laid beside. What a process has alone is ZeRO's stage 0 (none, DDP), 1 and 2 (optimizer) or 3 (parameters, FSDP2).
The groups deepspeed-1 and deepspeed-3 need DeepSpeed, its `ninja` on the path, and a C++ compiler.
Stage 3 of Narthex computes blocks again on the way back, FSDP2 as it is here does not.
"""
import argparse
import json
import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "train"))
import compare as train  # noqa: E402

GROUPS = {
    "none": ["one process", "none"],
    "optimizer": ["one process", "optimizer", "DDP"],
    "parameters": ["one process", "one process, recomputing", "parameters", "FSDP2"],
    "deepspeed-1": ["optimizer", "DeepSpeed 1"],
    "deepspeed-3": ["parameters", "DeepSpeed 3"],
}
PEERS = ["DDP", "FSDP2", "DeepSpeed 1", "DeepSpeed 3"]


def command(name, arguments, shape, precision):
    common = ["--shape", shape, "--precision", precision, "--steps", str(arguments.steps), "--repeat"]
    common += ["--micro-batches", str(arguments.micro_batches)]
    cores = len(os.sched_getaffinity(0))
    ranks = ["--ranks", str(arguments.ranks)]
    ours = [arguments.narthex, "bench", "train", *common]
    torch = [arguments.python, str(HERE.parent / "train/pytorch.py"), "--mode", "eager", *common, *ranks]
    return {
        "one process": [*ours, "--threads", str(cores)],
        "one process, recomputing": [*ours, "--threads", str(cores), "--activation-checkpointing"],
        "none": [*ours, *ranks, "--shard", "none"],
        "optimizer": [*ours, *ranks, "--shard", "optimizer"],
        "parameters": [*ours, *ranks, "--shard", "parameters"],
        "DDP": [*torch, "--parallel", "ddp"],
        "FSDP2": [*torch, "--parallel", "fsdp2"],
        "DeepSpeed 1": [*torch, "--parallel", "deepspeed1"],
        "DeepSpeed 3": [*torch, "--parallel", "deepspeed3"],
    }[name]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narthex", default="narthex", help="the binary")
    parser.add_argument("--python", default=sys.executable, help="a Python with torch")
    parser.add_argument("--groups", default="none,optimizer,parameters")
    parser.add_argument("--shapes", default="llama-100m")
    parser.add_argument("--precisions", default="f32,bf16")
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--micro-batches", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--wait", type=int, default=1800, help="seconds after which an engine counts as stuck")
    parser.add_argument("--out", help="write all rounds as JSON, too")
    arguments = parser.parse_args()
    split = lambda text: [word for word in re.split(r"[,\s]+", text) if word]
    if unknown := set(split(arguments.groups)) - set(GROUPS):
        parser.error(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")

    rows, results, strangers, everyone, failures = [], [], [], [], []
    for shape in split(arguments.shapes):
        for precision in split(arguments.precisions):
            for group in split(arguments.groups):
                engines = [
                    train.Engine(name, shape, precision, command(name, arguments, shape, precision))
                    for name in GROUPS[group]
                ]
                strangers.append(train.measure(engines, arguments.rounds, arguments.wait))
                everyone += engines
                speed = {engine.name: engine.median("tokens_per_second") for engine in engines}
                peer = next((speed[name] for name in PEERS if name in speed), None)
                for engine in engines:
                    results.append({"engine": engine.name, "shape": shape, "precision": precision,
                                    "error": engine.error, "rounds": engine.rounds})
                    if engine.error:
                        failures.append(f"- {engine}: {engine.error}")
                        continue
                    own, resident = speed[engine.name], engine.median("peak_rss_mb")
                    ratio = lambda other: f"{own / other:.2f}" if other else "—"
                    rows.append([
                        shape, precision, engine.name, f"{own:,.0f} ±{100 * engine.spread():.0f} %",
                        ratio(speed.get("one process")), ratio(peer), f"{resident:,.0f}",
                    ])
    arguments.threads = None
    machine = train.describe(arguments, everyone)
    torch = {one["version"] for engine in everyone for one in engine.rounds if one.get("engine") == "pytorch"}
    versions = ", ".join([machine["versions"], *(f"PyTorch {version}" for version in torch)])
    print(f"{machine['processor']}, {machine['cores']} cores. {versions}. {arguments.ranks} processes share "
          f"the cores; {arguments.micro_batches} micro-batches a step. {arguments.rounds} rounds of {arguments.steps} "
          "steps in turn.\n")
    print(train.table(
        ["shape", "precision", "state", "tokens/s", "/ one process", "/ PyTorch of its group", "MB a process"], rows
    ))
    if failures:
        print("\nFailed:\n\n" + "\n".join(failures))
    print(f"\nShare of the machine that other programs took meanwhile, at most: {100 * max(strangers):.0f} %.")
    if arguments.out:
        with open(arguments.out, "w") as file:
            json.dump({**machine, "results": results}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main()
