"""Generators, an encoder and adapters in one server under mixed load: answers are those of each served alone, and memory
stays flat. Linux only; nothing but Python's own library.

    cargo build --release
    python xtask/checks/several_models.py target/release/narthex --minutes 10 \\
        --generator NAME=REF --generator NAME=REF --encoder NAME=REF [--project DIR]

Each generator is asked alone in a server of its own, and so are three adapters with random weights that are made over
the first of them and the second, and the encoder. Then one server has them all; so many clients at once ask it for
minutes, whole and streamed. In the end a server whose memory holds one generator only is asked for a while.
"""

import argparse
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("--generator", action="append", required=True, help="NAME=REF; twice")
parser.add_argument("--encoder", required=True, help="NAME=REF")
parser.add_argument("--project", default=".")
parser.add_argument("--minutes", type=float, default=10)
parser.add_argument("--clients", type=int, default=16)
parser.add_argument("--port", type=int, default=8398)
options = parser.parse_args()
url = f"http://127.0.0.1:{options.port}"
generators = dict(one.split("=", 1) for one in options.generator)
encoder, encoder_ref = options.encoder.split("=", 1)
failures = 0
RANK = 4
PROMPTS = ["Once upon a time", "The sea", "What is a fennel stalk?", "1, 2, 3,", "To be, or not to be"]


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail, flush=True)


def post(path, body):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"{error.code} {error.read().decode()[:300]}") from None


def ask(name, case):
    """What `name` answers to a case, in a form that can be compared."""
    kind, number = case
    if kind == "vector":
        answer = json.loads(post("/v1/embeddings", {"model": name, "input": PROMPTS[number]}))
        return json.dumps(answer["data"][0]["embedding"])
    body = {"model": name, "prompt": PROMPTS[number], "max_tokens": 24, "seed": 7 + number}
    body["temperature"] = 0 if kind != "drawn" else 1
    if kind != "streamed":
        return json.loads(post("/v1/completions", body))["choices"][0]["text"]
    text = ""
    for line in post("/v1/completions", body | {"stream": True}).split("\n\n"):
        if line.startswith("data: {"):
            text += "".join(choice["text"] for choice in json.loads(line[6:])["choices"])
    return text


def cases(name):
    kinds = ["vector"] if name == encoder else ["whole", "streamed", "drawn"]
    return [(kind, number) for kind in kinds for number in range(len(PROMPTS))]


class Server:
    def __init__(self, *arguments):
        command = [options.binary, "serve", "--project", options.project, "--port", str(options.port), *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.said = []
        threading.Thread(target=lambda: self.said.extend(self.process.stderr), daemon=True).start()
        for _ in range(1200):
            try:
                urllib.request.urlopen(url + "/health", timeout=1).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit("".join(self.said))
                time.sleep(0.1)
        sys.exit("the server does not answer")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def resident(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) * 1024


def make_adapter(folder, width, layers, seed):
    """A PEFT adapter over the output of attention with random weights, wide enough to change every answer."""
    draw = random.Random(seed)
    folder.mkdir()
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 2 * RANK, "target_modules": ["o_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    header, body = {}, b""
    for layer in range(layers):
        for part, shape in [("A", [RANK, width]), ("B", [width, RANK])]:
            values = struct.pack(f"<{RANK * width}f", *(draw.gauss(0, 0.05) for _ in range(RANK * width)))
            name = f"base_model.model.model.layers.{layer}.self_attn.o_proj.lora_{part}.weight"
            header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(body), len(body) + len(values)]}
            body += values
    text = json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + body)


def sizes(reference):
    """Width and layers of a generator, as its server says them to Ollama's clients."""
    shown = json.loads(post("/api/show", {"model": reference}))
    info = shown["model_info"]
    width = next(value for key, value in info.items() if key.endswith("embedding_length"))
    return width


with tempfile.TemporaryDirectory() as made:
    made = pathlib.Path(made)
    alone, over = {}, {name: [] for name in generators}
    # A layer that is not there is refused by its name, so the first layer is changed alone.
    for index, name in enumerate([*generators, next(iter(generators))]):
        with Server(generators[name], "--served-model-name", name):
            width = sizes(name)
        adapter = f"adapter-{index}"
        make_adapter(made / adapter, width, 1, index)
        over[name].append(adapter)
    for name, reference in generators.items():
        modules = [part for adapter in over[name] for part in ("--lora-modules", f"{adapter}={made / adapter}")]
        with Server(reference, "--served-model-name", name, *modules):
            for each in [name, *over[name]]:
                alone[each] = {case: ask(each, case) for case in cases(each)}
    with Server(encoder_ref, "--served-model-name", encoder):
        alone[encoder] = {case: ask(encoder, case) for case in cases(encoder)}
    for adapter in [adapter for all in over.values() for adapter in all]:
        base = next(name for name, all in over.items() if adapter in all)
        check(f"{adapter} changes what {base} says", alone[adapter] != alone[base])

    lines = []
    for name, reference in generators.items():
        lines += [f"[models.{name}]", f"model = {json.dumps(reference)}", 'kv_cache_memory_bytes = "64M"']
        lines += [f"[models.{name}.adapters]"] + [f"{adapter} = {json.dumps(str(made / adapter))}" for adapter in over[name]]
    lines += [f"[models.{encoder}]", f"model = {json.dumps(encoder_ref)}"]
    (made / "models.toml").write_text("\n".join(lines) + "\n")

    def load(seconds, clients):
        """Random questions for so long: how many were answered, and what was wrong."""
        wrong, answered, until = [], [0] * clients, time.monotonic() + seconds

        def client(number):
            draw = random.Random(number)
            while time.monotonic() < until:
                name = draw.choice(list(alone))
                case = draw.choice(cases(name))
                try:
                    said = ask(name, case)
                    if said != alone[name][case]:
                        wrong.append(f"{name} {case}: {said[:60]!r} is not {alone[name][case][:60]!r}")
                except Exception as error:
                    wrong.append(f"{name} {case}: {error}")
                answered[number] += 1

        threads = [threading.Thread(target=client, args=[number]) for number in range(clients)]
        [thread.start() for thread in threads]
        return threads, answered, wrong

    with Server("--models", str(made / "models.toml")) as server:
        listed = [model["id"] for model in json.loads(urllib.request.urlopen(url + "/v1/models").read())["data"]]
        check("all are listed", sorted(listed) == sorted(alone), listed)
        threads, answered, wrong = load(60 * options.minutes, options.clients)
        samples = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(2)
            samples.append(server.resident())
        quarter = len(samples) // 4
        early, late = max(samples[quarter : 2 * quarter]), max(samples[-quarter:])
        check(f"{sum(answered)} answers as each alone", not wrong, wrong[:5])
        detail = f"{early / 2**20:.0f} MB in the second quarter, {late / 2**20:.0f} MB in the last"
        check("memory stays flat", late < 1.03 * early, detail)
        metrics = urllib.request.urlopen(url + "/metrics").read().decode()
        idle = [line for line in metrics.splitlines() if line.startswith("vllm:num_requests_") and not line.endswith(" 0")]
        check("nothing is left under way", not idle, idle)
        bytes_of = [model["size"] for model in json.loads(urllib.request.urlopen(url + "/api/ps").read())["models"]]

    # Room for the larger one and the encoder, so that the generators take turns.
    room = max(bytes_of) + (64 << 20) + min(bytes_of) + (32 << 20)
    with Server("--models", str(made / "models.toml"), "--models-memory-bytes", str(room)) as server:
        threads, answered, wrong = load(min(60, 60 * options.minutes), 4)
        [thread.join() for thread in threads]
        loads = sum("is loaded again" in line for line in server.said)
        check(f"{sum(answered)} answers by turns as each alone", not wrong and loads > 0, f"{loads} loads {wrong[:5]}")
sys.exit(failures > 0)
