"""What adapters cost: requests at once to the base alone, and the same to as many different adapters over it, by turns.

    python3 -m venv venv && venv/bin/pip install numpy safetensors
    venv/bin/python bench/adapters/compare.py MODEL_FOLDER [--adapters 32] [--rank 16] [--rounds 3]

MODEL_FOLDER is a Llama- or Qwen-like model in Hugging Face layout (bench/serve/models.py makes some). Random adapters on all seven
projections are written to a temporary folder. In the last round one more adapter is loaded over HTTP while all requests run;
none may fail. Prints tokens/s, the median of the rounds.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

import numpy
from safetensors.numpy import save_file

PORT = 8391
ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_adapter(folder, config, rank, seed):
    folder.mkdir()
    random = numpy.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    width = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * width, config["num_key_value_heads"] * width
    shapes = {
        "self_attn.q_proj": (q, hidden), "self_attn.k_proj": (kv, hidden), "self_attn.v_proj": (kv, hidden),
        "self_attn.o_proj": (hidden, q), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        for name, (outputs, inputs) in shapes.items():
            key = f"base_model.model.model.layers.{layer}.{name}"
            tensors[f"{key}.lora_A.weight"] = random.standard_normal((rank, inputs), numpy.float32) / inputs**0.5
            tensors[f"{key}.lora_B.weight"] = random.standard_normal((outputs, rank), numpy.float32) * 0.01
    save_file(tensors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base", "r": rank, "lora_alpha": rank,
        "target_modules": [name.split(".")[1] for name in shapes], "bias": "none",
    }))


def post(path, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}{path}", json.dumps(body).encode(), {"content-type": "application/json"})
    return urllib.request.urlopen(request, timeout=600).read()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("model")
    parser.add_argument("--narthex", default=str(target / "narthex"))
    parser.add_argument("--adapters", type=int, default=32)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=64)
    options = parser.parse_args()
    config = json.loads((pathlib.Path(options.model) / "config.json").read_text())
    random = numpy.random.default_rng(1)
    prompts = [random.integers(10, config["vocab_size"] - 10, 64).tolist() for _ in range(options.adapters)]

    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for number in range(options.adapters + 1):
            write_adapter(folder / f"a{number}", config, options.rank, number)
        modules = [f"a{number}={folder / f'a{number}'}" for number in range(options.adapters)]
        command = [options.narthex, "serve", options.model, "--served-model-name", "base", "--port", str(PORT),
                   "--no-enable-prefix-caching", "--max-num-seqs", str(options.adapters), "--lora-dir", str(folder),
                   "--max-loras", str(options.adapters + 1)]
        for module in modules:
            command += ["--lora-modules", module]
        server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            for _ in range(3000):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").read()
                    break
                except OSError:
                    time.sleep(0.05)

            def run(names):
                failed = []

                def ask(name, prompt):
                    try:
                        body = {"model": name, "prompt": prompt, "max_tokens": options.tokens, "temperature": 0,
                                "ignore_eos": True}
                        assert json.loads(post("/v1/completions", body))["usage"]["completion_tokens"] == options.tokens
                    except Exception as error:  # counted and shown
                        failed.append(f"{name}: {error}")

                threads = [threading.Thread(target=ask, args=pair) for pair in zip(names, prompts)]
                start = time.monotonic()
                [thread.start() for thread in threads]
                [thread.join() for thread in threads]
                assert not failed, failed
                return len(threads) * options.tokens / (time.monotonic() - start)

            base, each = ["base"] * options.adapters, [f"a{number}" for number in range(options.adapters)]
            run(base), run(each)
            speeds = {"the base alone": [], f"{options.adapters} adapters of rank {options.rank}": []}
            for _ in range(options.rounds):
                for name, names in zip(speeds, (base, each)):
                    speeds[name].append(run(names))
            medians = [statistics.median(values) for values in speeds.values()]
            print(f"{options.adapters} requests at once, 64 tokens in, {options.tokens} out\n")
            print("| | tokens/s |\n|---|---|")
            for name, values in speeds.items():
                print(f"| {name} | {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f}) |")
            print(f"\nadapters cost {100 * (1 - medians[1] / medians[0]):.1f} % of the throughput")

            loading = threading.Timer(1.0, lambda: print(post(
                "/v1/load_lora_adapter", {"lora_name": "late", "lora_path": f"a{options.adapters}"}).decode()))
            loading.start()
            speed = run(each)
            loading.join()
            print(f"with one more loaded meanwhile: {speed:.1f} tokens/s, none of {options.adapters} requests failed")
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
