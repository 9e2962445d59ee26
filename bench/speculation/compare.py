"""Serves one model several times, without and with guesses, drives the servers in turn, and prints tokens/s side by side.

    bench/speculation/compare.py --narthex target/release/narthex --model FOLDER_OR_REF [--project DIR]
        [--config '{"method":"ngram","num_speculative_tokens":5}'] [--config …]
        [--task loop|fresh|copy ...] [--concurrency 1 8 32] [--rounds 5] [--tokens 256] [--text FILE]

Tasks: `loop` is greedy from a few words, which small and random models soon answer with a loop; `copy` is greedy from a passage
of --text that stands there twice, the second time cut short; `fresh` is drawn at temperature 1, each request by a seed of its
own. The answers of all servers are compared: they must be the same text. Needs Python 3.10 or newer, nothing else.
"""

import argparse
import concurrent.futures
import json
import pathlib
import re
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

PORT = 8411


def post(port, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=600))


def counters(port):
    text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
    found = {name: float(value) for name, value in re.findall(r"^vllm:(\w+)\{[^}]*\} (\S+)$", text, re.M) if "per_pos" not in name}
    names = {"steps": "iteration_tokens_total_count", "guessed": "spec_decode_num_draft_tokens_total",
             "right": "spec_decode_num_accepted_tokens_total", "tokens": "generation_tokens_total"}
    return {short: found[name] for short, name in names.items()}


class Server:
    def __init__(self, options, index, config):
        self.port = PORT + index
        self.name = config or "without"
        command = [options.narthex, "serve", options.model, "--project", options.project, "--served-model-name", "m",
                   "--port", str(self.port)] + (["--speculative-config", config] if config else [])
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5)
                return
            except (OSError, urllib.error.HTTPError):
                if self.process.poll() is not None or time.monotonic() > deadline:
                    sys.exit(f"the server does not start: {' '.join(command)}")
                time.sleep(0.05)


def prompts(task, options, count):
    text = pathlib.Path(options.text).read_text()
    for i in range(count):
        passage = text[i * 2000: i * 2000 + options.passage]
        if task == "copy":
            yield {"prompt": f"{passage}\n\n{passage[:len(passage) // 4]}", "temperature": 0}
        elif task == "loop":
            yield {"prompt": passage[:options.passage // 4], "temperature": 0}
        else:
            yield {"prompt": passage[:options.passage // 4], "temperature": 1, "seed": i}


def run(server, bodies):
    before = counters(server.port)
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(len(bodies)) as pool:
        answers = list(pool.map(lambda body: post(server.port, body)["choices"][0]["text"], bodies))
    seconds = time.monotonic() - start
    after = counters(server.port)
    return answers, seconds, {name: after[name] - before[name] for name in after}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--narthex", default="target/release/narthex")
    parser.add_argument("--model", required=True)
    parser.add_argument("--project", default=".")
    parser.add_argument("--config", action="append")
    parser.add_argument("--task", nargs="+", default=["copy", "loop", "fresh"])
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--text", default=str(pathlib.Path(__file__).parents[2] / "examples/bard/tinyshakespeare.txt"))
    parser.add_argument("--passage", type=int, default=400, help="characters of a passage")
    options = parser.parse_args()
    configs = [None] + (options.config or ['{"method":"ngram","num_speculative_tokens":5}'])
    servers = [Server(options, index, config) for index, config in enumerate(configs)]
    try:
        print("| task | at once | guesses | tokens/s, median (lowest-highest) | beside without | guessed tokens that were right | tokens a step |")
        print("|---|---|---|---|---|---|---|")
        for task in options.task:
            for at_once in options.concurrency:
                bodies = [{"model": "m", "max_tokens": options.tokens, "ignore_eos": True, **body}
                          for body in prompts(task, options, at_once)]
                speeds, last, expected = {}, {}, None
                for number in range(options.rounds + 1):
                    # Each round in another order, the first to warm up only.
                    for server in servers[:: 1 if number % 2 else -1]:
                        answers, seconds, counted = run(server, bodies)
                        expected = expected or answers
                        if answers != expected:
                            sys.exit(f"{server.name} answers otherwise in {task}, {at_once} at once")
                        if number > 0:
                            speeds.setdefault(server.name, []).append(counted["tokens"] / seconds)
                            last[server.name] = counted
                for server in servers:
                    found, counted = speeds[server.name], last[server.name]
                    ratio = statistics.median(a / b for a, b in zip(found, speeds[servers[0].name]))
                    right = f"{counted['right']:.0f} of {counted['guessed']:.0f}" if counted["guessed"] else ""
                    print(f"| {task} | {at_once} | {server.name} | {statistics.median(found):.1f} ({min(found):.1f}-{max(found):.1f}) "
                          f"| {ratio:.2f} | {right} | {counted['tokens'] / counted['steps']:.2f} |", flush=True)
    finally:
        for server in servers:
            server.process.terminate()
        for server in servers:
            server.process.wait()


main()
