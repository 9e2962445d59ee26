"""Embeddings by narthex beside sentence-transformers: the same vectors, and how many sentences a second, in turns.

    cargo build --release && cargo build --release -p narthex-shelf --example embed
    python bench/embed/compare.py MODEL_FOLDER

Needs sentence-transformers (torch on the CPU) and numpy. The sentences are messages and lines of plays that lie in this
repository, and with --jsonl FILE the `question` of each line; 1,000 of them, drawn by a fixed seed. Each round runs every
contender once; the table has medians. `HTTP` asks `narthex serve` for all sentences in one request, `in process` is
the example `embed` of the crate narthex-run. Both tokenize the text, as sentence-transformers does. Nothing else should run
meanwhile.
"""

import argparse
import base64
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
PORT = 8398


def sentences(options):
    spam = (ROOT / "examples/open-science/sms-spam.tsv").read_text().splitlines()
    lines = [line.split("\t", 1)[1] for line in spam if "\t" in line]
    lines += [line for line in (ROOT / "examples/bard/tinyshakespeare.txt").read_text().splitlines() if len(line) > 20]
    if options.jsonl:
        lines += [json.loads(line)["question"] for line in pathlib.Path(options.jsonl).read_text().splitlines()]
    lines = [" ".join(line.split()) for line in lines]
    lines = sorted({line for line in lines if line})
    random.Random(7).shuffle(lines)
    return lines[: options.count]


class Http:
    def __init__(self, options, dtype):
        command = [options.narthex, "serve", options.model, "--served-model-name", "m", "--port", str(PORT),
                   "--dtype", dtype, "--threads", str(options.threads)]
        self.server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        for _ in range(500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").read()
                return
            except OSError:
                time.sleep(0.02)
        raise TimeoutError("the server does not answer")

    def run(self, lines):
        import numpy

        body = {"model": "m", "input": lines, "encoding_format": "base64", "truncate_prompt_tokens": -1}
        url = f"http://127.0.0.1:{PORT}/v1/embeddings"
        request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
        start = time.monotonic()
        answer = json.load(urllib.request.urlopen(request))
        vectors = [numpy.frombuffer(base64.b64decode(one["embedding"]), "<f4") for one in answer["data"]]
        return time.monotonic() - start, numpy.stack(vectors)

    def close(self):
        self.server.terminate()
        self.server.wait()


class InProcess:
    def __init__(self, options, dtype, lines):
        self.process = None
        if not os.path.exists(options.example):
            return
        self.file = tempfile.NamedTemporaryFile("w", suffix=".txt")
        self.file.write("".join(f"{line}\n" for line in lines))
        self.file.flush()
        command = [options.example, options.model, self.file.name, dtype, str(options.threads)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline().strip() == "ready"

    def run(self, _):
        if not self.process:
            return None, None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline()), None

    def close(self):
        if self.process:
            self.process.stdin.close()
            self.process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"
    parser.add_argument("model", help="a folder in sentence-transformers' layout")
    parser.add_argument("--narthex", default=str(target / "narthex"))
    parser.add_argument("--example", default=str(target / "examples/embed"))
    parser.add_argument("--jsonl", help="a file of JSON lines whose `question` is embedded too")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    options = parser.parse_args()

    import numpy
    import sentence_transformers
    import torch

    torch.set_num_threads(options.threads)
    lines = sentences(options)
    peer = sentence_transformers.SentenceTransformer(options.model, device="cpu")

    def encode(batch_size):
        start = time.monotonic()
        vectors = peer.encode(lines, batch_size=batch_size, show_progress_bar=False)
        return time.monotonic() - start, vectors

    # The peer at its best: its default is 32.
    sizes = {size: min(encode(size)[0] for _ in range(2)) for size in (8, 16, 32, 64)}
    batch = min(sizes, key=sizes.get)
    _, expected = encode(batch)
    tokens = sum(len(ids) for ids in peer.tokenizer(lines, truncation=True)["input_ids"])

    def cosine_distance(found):
        a, b = found.astype(numpy.float64), expected.astype(numpy.float64)
        return float((1 - (a * b).sum(1) / numpy.linalg.norm(a, axis=1) / numpy.linalg.norm(b, axis=1)).max())

    times, worst = {}, {}
    for dtype in ("float32", "bfloat16"):
        http, inside = Http(options, dtype), InProcess(options, dtype, lines)
        http.run(lines), inside.run(lines)
        for _ in range(options.rounds):
            times.setdefault("sentence-transformers, float32", []).append(encode(batch)[0])
            seconds, vectors = http.run(lines)
            times.setdefault(f"narthex, {dtype}, HTTP", []).append(seconds)
            worst[f"narthex, {dtype}, HTTP"] = cosine_distance(vectors)
            seconds, _ = inside.run(lines)
            if seconds:
                times.setdefault(f"narthex, {dtype}, in process", []).append(seconds)
        http.close(), inside.close()

    print(f"{len(lines)} sentences, {tokens} tokens, {options.threads} threads; sentence-transformers "
          f"{sentence_transformers.__version__}, torch {torch.__version__}, batches of {batch} (the fastest of "
          + ", ".join(f"{size}: {seconds:.2f} s" for size, seconds in sizes.items()) + ")\n")
    base = statistics.median(times["sentence-transformers, float32"])
    print("| | sentences/s | ratio | largest cosine distance |\n|---|---|---|---|")
    for name, seconds in times.items():
        median = statistics.median(seconds)
        distance = f"{worst[name]:.1e}" if name in worst else ""
        print(f"| {name} | {len(lines) / median:.0f} | {base / median:.2f} | {distance} |")
    return 0 if worst["narthex, float32, HTTP"] < 1e-5 else 1


if __name__ == "__main__":
    sys.exit(main())
