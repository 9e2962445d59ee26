"""Starts each server in turn, drives it with `vllm bench serve`, and prints ratios as a Markdown table. See bench/serve.sh."""

import argparse
import json
import os
import pathlib
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request

PORT = 8397

# The name under which a server answers; what it computes in where it has no bfloat16 on a CPU.
NAMES = {"mistral.rs": "default"}
DTYPES = {"mistral.rs": "float32"}


def command(engine, options):
    threads = str(options.threads)
    if engine == "narthex":
        return [options.narthex, "serve", options.model, "--served-model-name", "m", "--port", str(PORT), "--threads", threads]
    if engine == "llama.cpp":
        return [options.llama, "-m", f"{options.model}.gguf", "-t", threads, "-np", "32", "-c", "16384", "-kvu", "-fa", "on",
                "--port", str(PORT), "--alias", "m"]
    if engine == "mistral.rs":
        return [options.mistral, "serve", "--cpu", "--dtype", "f32", "--max-seqs", "32", "-m", options.model,
                "--host", "127.0.0.1", "-p", str(PORT)]
    return [f"{options.venv}/bin/vllm", "serve", options.model, "--served-model-name", "m", "--dtype", "bfloat16",
            "--max-model-len", "2048", "--port", str(PORT)]


def environment(options):
    home = {"VLLM_TARGET_DEVICE": "cpu", "VLLM_CPU_KVCACHE_SPACE": "2", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    return {**os.environ, **home, "OMP_NUM_THREADS": str(options.threads), "VLLM_LOGGING_LEVEL": "WARNING"}


def first_token(engine, deadline_s):
    """Seconds until a token comes, asked for again and again."""
    start = time.monotonic()
    body = json.dumps({"model": NAMES.get(engine, "m"), "prompt": "bana", "max_tokens": 1}).encode()
    while time.monotonic() - start < deadline_s:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{PORT}/v1/completions", body, {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=deadline_s).read()
            return time.monotonic() - start
        except (OSError, urllib.error.HTTPError):
            time.sleep(0.002)
    raise TimeoutError(f"no token within {deadline_s} s")


def resident_mb(pid):
    """Of a process and its children: what they hold alone, and their share of what they hold together."""
    total = 0
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        try:
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) / 1000
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            pass
    return total


def drive(engine, options, concurrency, seed):
    result = pathlib.Path(options.work) / "serve-result.json"
    result.unlink(missing_ok=True)
    # A warm-up of the client's own is not needed: the first token has come.
    subprocess.run(
        [f"{options.venv}/bin/vllm", "bench", "serve", "--backend", "openai", "--base-url", f"http://127.0.0.1:{PORT}",
         "--endpoint", "/v1/completions", "--model", NAMES.get(engine, "m"), "--tokenizer", options.model, "--dataset-name", "random",
         "--random-input-len", str(options.input), "--random-output-len", str(options.output), "--seed", str(seed),
         "--num-prompts", str(options.prompts * concurrency), "--max-concurrency", str(concurrency), "--request-rate", "inf",
         "--ignore-eos", "--temperature", "0", "--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,99",
         "--disable-tqdm", "--save-result", "--result-dir", str(result.parent), "--result-filename", result.name],
        env=environment(options), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=900)
    found = json.loads(result.read_text())
    wanted = options.prompts * concurrency
    # A server may lose one now and then; what it did answer is counted, and the table says so.
    if found["completed"] < 0.9 * wanted:
        raise RuntimeError(f"{found['completed']} of {wanted} requests completed")
    return {**found, "lost": wanted - found["completed"]}


def measure(engine, options, seed):
    log = open(pathlib.Path(options.work) / f"{engine}-serve.log", "w")
    server = subprocess.Popen(command(engine, options), env=environment(options), stdout=log, stderr=log, start_new_session=True)
    try:
        rows = {"start_s": first_token(engine, 300)}
        for concurrency in options.concurrency:
            found = drive(engine, options, concurrency, seed)
            rows[concurrency] = {
                "tokens_per_s": found["output_throughput"],
                "ttft_ms": found["median_ttft_ms"],
                "ttft_ms_p99": found["p99_ttft_ms"],
                "tpot_ms": found["median_tpot_ms"],
                "itl_ms_p99": found["p99_itl_ms"],
                "lost": found["lost"],
            }
            print(f"{engine} at {concurrency}: {rows[concurrency]}", file=sys.stderr)
        rows["resident_mb"] = resident_mb(server.pid)
        return rows
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def version(engine, options):
    if engine == "narthex":
        return subprocess.run([options.narthex, "--version"], capture_output=True, text=True).stdout.split()[-1]
    if engine == "mistral.rs":
        return subprocess.run([options.mistral, "--version"], capture_output=True, text=True).stdout.split()[-1]
    if engine == "llama.cpp":
        text = subprocess.run([options.llama, "--version"], capture_output=True, text=True)
        return next((line for line in (text.stdout + text.stderr).splitlines() if line.startswith("version")), "?")
    code = "import importlib.metadata as m; print(m.version('vllm-cpu'))"
    return subprocess.run([f"{options.venv}/bin/python", "-c", code], capture_output=True, text=True).stdout.strip()


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def main():
    parser = argparse.ArgumentParser()
    for name in ("shape", "model", "narthex", "llama", "mistral", "venv", "engines", "concurrency", "work"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("rounds", "prompts", "input", "output"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--failed", action="append", default=[])
    options = parser.parse_args()
    options.concurrency = [int(number) for number in options.concurrency.split()]
    failed = dict(entry.split("=", 1) for entry in options.failed)
    engines = [engine for engine in options.engines.split() if engine not in failed]
    rounds = {engine: [] for engine in engines}
    for number in range(options.rounds):
        for engine in engines:
            if engine in failed:
                continue
            try:
                rounds[engine].append(measure(engine, options, number))
            except (TimeoutError, RuntimeError, subprocess.SubprocessError, OSError) as error:
                failed[engine] = str(error)
    medians = {}
    for engine, runs in rounds.items():
        if not runs:
            continue
        median = lambda pick: statistics.median(pick(run) for run in runs)
        medians[engine] = {"start_s": median(lambda run: run["start_s"]), "resident_mb": median(lambda run: run["resident_mb"])}
        for concurrency in options.concurrency:
            medians[engine][concurrency] = {
                name: median(lambda run: run[concurrency][name]) for name in runs[0][concurrency]
            }
    versions = ", ".join(f"{engine} {version(engine, options)}" for engine in medians)
    print(f"\n{options.shape}, bfloat16, {options.input} tokens in, {options.output} out, {options.threads} threads of {processor()}")
    print(f"({versions}; medians of {options.rounds} rounds in turn)\n")
    print("| at once | engine | tokens/s | first token ms, median | p99 | per token ms, median | between tokens ms, p99 | narthex / it |")
    print("|---|---|---|---|---|---|---|---|")
    for concurrency in options.concurrency:
        for engine in medians:
            row = medians[engine][concurrency]
            ours = medians.get("narthex", {}).get(concurrency)
            ratio = f"{ours['tokens_per_s'] / row['tokens_per_s']:.2f}" if ours and engine != "narthex" else ""
            lost = f" ({row['lost']:.0f} requests lost)" if row["lost"] else ""
            lost += f" (in {DTYPES[engine]})" if engine in DTYPES else ""
            print(f"| {concurrency} | {engine}{lost} | {row['tokens_per_s']:.0f} | {row['ttft_ms']:.0f} | {row['ttft_ms_p99']:.0f} "
                  f"| {row['tpot_ms']:.1f} | {row['itl_ms_p99']:.0f} | {ratio} |")
    print("\n| engine | process start to first token, s | resident MB after the load |")
    print("|---|---|---|")
    for engine, row in medians.items():
        print(f"| {engine} | {row['start_s']:.2f} | {row['resident_mb']:.0f} |")
    for engine, reason in failed.items():
        print(f"\n{engine}: not measured: {reason}")
    if options.out:
        options.out.write_text(json.dumps({"options": vars(options), "medians": medians, "rounds": rounds}, indent=1, default=str))


main()
