"""EleutherAI's lm-eval scores a served model as it scores the same folder by transformers.

    pip install torch transformers "lm-eval[api]"
    cargo build --release
    python xtask/checks/lm_eval_check.py --project examples/bard --model bard-chat
    python xtask/checks/lm_eval_check.py --folder FOLDER    # any Llama in Hugging Face layout

Exports the model, serves it in float32 and asks lm-eval's `local-completions` and `hf` for the same
log-likelihoods: they agree within 1e-3, and on which continuations are the greedy ones. Some
continuations end where the model would stop, some contexts are empty, some are longer than the model's.
"""

import argparse
import json
import logging
import os
import pathlib
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from importlib.metadata import version

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
import transformers
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

parser = argparse.ArgumentParser()
parser.add_argument("--narthex", default=os.environ.get("CARGO_TARGET_DIR", "target") + "/release/narthex")
parser.add_argument("--project", default="examples/bard")
parser.add_argument("--model", default="bard-chat")
parser.add_argument("--folder", help="a folder to serve, instead of exporting a project's model")
parser.add_argument("--text", default="examples/bard/tinyshakespeare.txt")
parser.add_argument("--port", type=int, default=8393)
parser.add_argument("--tolerance", type=float, default=1e-3)
options = parser.parse_args()
url = f"http://127.0.0.1:{options.port}"
CONTEXT_MAX = 512
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail, flush=True)


def instances(kind, arguments):
    return [Instance(kind, {}, argument, index) for index, argument in enumerate(arguments)]


def greedy(lm, text, tokens):
    """What transformers would answer, and whether the model then ends."""
    ids = lm.tok_encode(text)
    with torch.no_grad():
        whole = lm.model.generate(torch.tensor([ids]), max_new_tokens=tokens, do_sample=False, temperature=None, top_p=None)[0].tolist()
    ends = lm.model.generation_config.eos_token_id
    ended = whole[-1] in (ends if isinstance(ends, list) else [ends])
    answer = whole[len(ids):-1] if ended else whole[len(ids):]
    continued = lm.tokenizer.decode(answer)
    # Only if the text goes back to the same tokens.
    same = bool(answer) and lm.tok_encode(text + continued) == ids + answer
    return continued if same else None, ended


def make_requests(lm, text, context):
    """Pairs of context and continuation, by what they try."""
    draw = random.Random(11)
    words = text.split(" ")

    def piece(count):
        start = draw.randrange(len(words) - count)
        return " ".join(words[start : start + count]).strip()

    kinds = {
        "one word": [(piece(size), " " + piece(1)) for size in (1, 2, 5, 12, 30, 60)],
        "several words": [(piece(size), " " + piece(9)) for size in (1, 3, 8, 20, 50, 70)],
        "many words": [(piece(size), " " + piece(40)) for size in (1, 20, 40)],
        "space before": [(piece(6) + " ", piece(2)), (piece(6) + "\n", piece(2)), (piece(6) + "\n\n", piece(1))],
        "no context": [("", piece(1)), ("", piece(5)), ("", piece(50))],
        "no ASCII": [("caffè 中文", " naïve 🎭 é"), ("🎭🎭", "\u00a0ok"), (piece(3), " 中文中文")],
        "too long": [(piece(context), " " + piece(3)), (piece(2 * context), " " + piece(1)), (piece(context), " " + piece(context // 8))],
        "greedy": [],
        "greedy, then the end": [],
    }
    shared = piece(40)
    kinds["choices of one context"] = [(shared, " " + piece(size)) for size in (1, 1, 2, 3)]
    for size in range(4, 40, 4):
        start = piece(size)
        continued, ended = greedy(lm, start, 6)
        if continued and not ended:
            kinds["greedy"].append((start, continued))
    if lm.tokenizer.chat_template:
        for size in range(3, 40):
            start = lm.tokenizer.apply_chat_template([{"role": "user", "content": piece(size)}], add_generation_prompt=True, tokenize=False)
            if len(lm.tok_encode(start)) < context - 90 and len(kinds["greedy, then the end"]) < 6:
                continued, ended = greedy(lm, start, 80)
                if continued and ended:
                    kinds["greedy, then the end"].append((start, continued))
    return kinds


def read_back(lm, pair):
    ids = sum(lm._encode_pair(*pair), []) if pair[0] else [lm.prefix_token_id, *lm.tok_encode(pair[1])]
    return lm.tok_encode(lm.tokenizer.decode(ids)) == ids


class Server:
    def __init__(self, folder, context):
        command = [options.narthex, "serve", folder, "--served-model-name", "m", "--dtype", "float32", "--max-model-len", context, "--port", options.port]
        self.process = subprocess.Popen(list(map(str, command)), stderr=subprocess.DEVNULL)

    def __enter__(self):
        for _ in range(600):
            try:
                return urllib.request.urlopen(url + "/health", timeout=5)
            except OSError:
                assert self.process.poll() is None, "the server ended"
                time.sleep(0.1)
        raise TimeoutError("the server does not start")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)


def compare(name, kinds, ours, theirs):
    """Both lists have the pairs in the order of `kinds`."""
    start = 0
    for kind, pairs in kinds.items():
        rows = list(zip(pairs, ours[start:], theirs[start:]))
        start += len(pairs)
        if not rows:
            print(f"--   {name}: {kind}: this model has none")
            continue
        largest = max(abs(our[0] - their[0]) for _, our, their in rows)
        flags = sum(our[1] != their[1] for _, our, their in rows)
        good = largest <= options.tolerance and not flags
        check(f"{name}: {kind}", good, f"{len(rows)} pairs, {sum(their[1] for _, _, their in rows)} greedy, largest difference {largest:.1e}" + f", {flags} greedy flags differ" * bool(flags))
        if not good:
            for (before, after), our, their in rows:
                if our[1] != their[1] or abs(our[0] - their[0]) > options.tolerance:
                    print(f"       {before[-30:]!r} {after[:30]!r}: {our[0]:.4f} {our[1]}, transformers {their[0]:.4f} {their[1]}")


def evaluate(folder):
    config = json.loads((folder / "config.json").read_text())
    context = min(config["max_position_embeddings"], CONTEXT_MAX)
    # Of `max_length` tokens, local-completions keeps one for the token it asks for and takes the last of the
    # others as the one that is only predicted.
    common = {"add_bos_token": False}
    hf = HFLM(pretrained=str(folder), dtype="float32", device="cpu", batch_size=8, max_length=context - 2, **common)
    text = pathlib.Path(options.text).read_text()
    kinds = make_requests(hf, text, context)
    pairs = [pair for group in kinds.values() for pair in group]
    rolled = [(text[start : start + size].strip(),) for start, size in ((0, 3), (500, 60), (9000, 400), (40000, 6 * context))]
    prompts = [(pair[0], {"until": ["\n\n"], "max_gen_toks": 24, "do_sample": False}) for pair in kinds["several words"]]
    theirs = hf.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True)
    theirs_rolling = hf.loglikelihood_rolling(instances("loglikelihood_rolling", rolled), disable_tqdm=True)
    theirs_written = hf.generate_until(instances("generate_until", prompts), disable_tqdm=True)
    # As text go only those that are read back as the same tokens; a server adds the tokenizer's own beginning.
    plain = {}
    if hf.tokenizer("a").input_ids == hf.tok_encode("a", add_special_tokens=False):
        plain = {kind: [pair for pair in group if read_back(hf, pair)] for kind, group in kinds.items() if kind != "too long"}
    plain_theirs = [theirs[pairs.index(pair)] for group in plain.values() for pair in group]
    with Server(folder, context):
        for concurrent, batch, tokens in [(1, 1, True), (1, 8, True), (4, 1, True), (4, 8, True), (4, 8, False)]:
            name = f"{concurrent} at once, {batch} in a request, {'tokens' if tokens else 'text'}"
            api = LocalCompletionsAPI(
                base_url=f"{url}/v1/completions", model="m", tokenizer=str(folder), tokenizer_backend="huggingface",
                tokenized_requests=tokens, num_concurrent=concurrent, batch_size=batch, max_length=context, max_retries=1, **common,
            )
            if not tokens:
                group = [pair for group in plain.values() for pair in group]
                compare(name, plain, api.loglikelihood(instances("loglikelihood", group), disable_tqdm=True), plain_theirs)
                continue
            compare(name, kinds, api.loglikelihood(instances("loglikelihood", pairs), disable_tqdm=True), theirs)
            rolling = api.loglikelihood_rolling(instances("loglikelihood_rolling", rolled), disable_tqdm=True)
            largest = max(abs(our - their) for our, their in zip(rolling, theirs_rolling))
            check(f"{name}: rolling", largest <= options.tolerance, f"{len(rolled)} texts, the longest scores {theirs_rolling[-1]:.1f}, largest difference {largest:.1e}")
            written = api.generate_until(instances("generate_until", prompts), disable_tqdm=True)
            check(f"{name}: generate_until", written == theirs_written, f"{len(prompts)} prompts, {written[0][:30]!r}")


logging.disable(logging.WARNING)
print(f"lm-eval {version('lm-eval')}, transformers {transformers.__version__}, torch {torch.__version__}")
with tempfile.TemporaryDirectory() as home:
    folder = pathlib.Path(options.folder or f"{home}/{options.model}")
    if not options.folder:
        subprocess.run([options.narthex, "export", options.model, folder, "--project", options.project], check=True, capture_output=True)
    evaluate(folder)
print(f"{failures} failed")
sys.exit(failures > 0)
