"""A text classifier fine-tuned by narthex beside the same fine-tuning in PyTorch and transformers, and beside TF-IDF.

    cargo build --release
    python bench/classify/compare.py MODEL_FOLDER [--rounds 3]

Needs torch (on the CPU), transformers, scikit-learn and pyarrow. MODEL_FOLDER holds an encoder such as
all-MiniLM-L6-v2. The messages are those of examples/spam, divided by narthex, in each round with another seed: all read its rows. Same learning rate
and its course, batch size, steps, weight decay, clipping, and batches of texts of like length; PyTorch fills them up to
the longest, as it must. With --plain also PyTorch with batches as they come, as transformers' Trainer has them unless it is
told otherwise. Each round runs every contender once, in turns; nobody looks at the messages that are held back
until the end. Times are those of the training loop, and of the whole process with reading, the last look and writing. Then transformers reads what narthex wrote, and its logits are
compared with the server's probabilities. Nothing else should run meanwhile.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS, ROWS, LR, LR_END, WARMUP, DECAY, CLIP, CONTEXT = 420, 32, 5e-5, 0.1, 40, 0.01, 1.0, 128
TOGETHER = 16
PORT = 8397


def narthex(options, folder, *arguments):
    return subprocess.run([options.narthex, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def project(options, folder):
    text = (ROOT / "examples/spam/narthex.toml").read_text()
    shutil.copy(ROOT / "examples/open-science/sms-spam.tsv", folder / "sms-spam.tsv")
    (folder / "narthex.toml").write_text(text.replace("../open-science/", ""))
    narthex(options, folder, "import", options.model, "--name", "minilm", "--license", "Apache-2.0")


def rows(options, folder):
    import pyarrow.parquet

    narthex(options, folder, "data")
    shutil.rmtree(folder / "messages", ignore_errors=True)
    narthex(options, folder, "export", "messages", "messages")
    parts = []
    for part in ("train", "validation"):
        table = pyarrow.parquet.read_table(folder / "messages" / f"{part}.parquet")
        records = [json.loads(record) for record in table.column("record").to_pylist()]
        parts.append([(record["text"], int(record["label"] == "spam")) for record in records])
    return parts


def set_seed(folder, seed):
    """Another seed is another division of the messages, other weights of the head, and another order."""
    text = (folder / "narthex.toml").read_text().splitlines()
    text = [f"seed = {seed}" if line.startswith("seed =") else line for line in text]
    (folder / "narthex.toml").write_text("\n".join(text) + "\n")


def fit_with_narthex(options, folder, precision):
    start = time.time()
    narthex(options, folder, "fit", "--set", f"spam.precision={precision}", "--set", "spam.eval_every=0")
    whole = time.time() - start
    shown = json.loads(narthex(options, folder, "show", "spam", "--json"))
    figures, measured = shown["manifest"]["figures"], shown["run"]["measured"]
    return {
        "seconds": measured["training_seconds"], "whole": whole, "f1": figures["validation_f1"],
        "accuracy": figures["validation_accuracy"], "pr_auc": figures["validation_pr_auc"],
        "loss": figures["validation_nats_per_text"],
    }


def fit_with_torch(options, folder, precision, seed, together=TOGETHER):
    """In a process of its own: what it prints last is its result."""
    command = [sys.executable, __file__, options.model, "--torch", str(folder / "rows.json"), "--precision", precision,
               "--seed", str(seed), "--threads", str(options.threads), "--together", str(together)]
    start = time.time()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(out.splitlines()[-1]) | {"whole": time.time() - start}


def torch_process(options):
    import torch
    from sklearn.metrics import average_precision_score, f1_score
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train, validation = json.loads(pathlib.Path(options.torch).read_text())
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    ids = lambda part: tokenizer([text for text, _ in part], truncation=True, max_length=CONTEXT)["input_ids"]
    train_ids, validation_ids = ids(train), ids(validation)
    model = AutoModelForSequenceClassification.from_pretrained(options.model, num_labels=2, dtype=torch.float32)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    others = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=LR)

    def rate(step):
        if step < WARMUP:
            return (step + 1) / WARMUP
        part = (step - WARMUP) / max(1, STEPS - WARMUP)
        return LR_END + (1 - LR_END) * 0.5 * (1 + math.cos(math.pi * part))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    draw = random.Random(options.seed)

    def batches():
        while True:
            order = list(range(len(train)))
            draw.shuffle(order)
            for pool in range(0, len(order), ROWS * options.together):
                part = sorted(order[pool:pool + ROWS * options.together], key=lambda at: len(train_ids[at]))
                parts = [part[at:at + ROWS] for at in range(0, len(part), ROWS)]
                draw.shuffle(parts)
                yield from parts

    def logits(sequences):
        longest = max(map(len, sequences))
        inputs = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros_like(inputs)
        for row, sequence in enumerate(sequences):
            inputs[row, :len(sequence)] = torch.tensor(sequence)
            mask[row, :len(sequence)] = 1
        with torch.autocast("cpu", torch.bfloat16, enabled=options.precision == "bf16"):
            return model(input_ids=inputs, attention_mask=mask).logits.float()

    model.train()
    start, made = time.time(), batches()
    for _ in range(STEPS):
        batch = next(made)
        loss = torch.nn.functional.cross_entropy(logits([train_ids[at] for at in batch]),
                                                 torch.tensor([train[at][1] for at in batch]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        schedule.step()
    seconds = time.time() - start
    model.eval()
    order = sorted(range(len(validation)), key=lambda at: len(validation_ids[at]))
    scores = torch.zeros(len(validation), 2)
    with torch.no_grad():
        for at in range(0, len(order), ROWS):
            part = order[at:at + ROWS]
            scores[part] = logits([validation_ids[one] for one in part])
    labels = [label for _, label in validation]
    chances = scores.softmax(1)
    print(json.dumps({
        "seconds": seconds, "f1": f1_score(labels, scores.argmax(1)),
        "accuracy": float((scores.argmax(1) == torch.tensor(labels)).float().mean()),
        "pr_auc": average_precision_score(labels, chances[:, 1]),
        "loss": float(torch.nn.functional.cross_entropy(scores, torch.tensor(labels))),
    }))


def tf_idf(train, validation):
    """Words and characters with a logistic regression."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import average_precision_score, f1_score, log_loss
    from sklearn.pipeline import make_pipeline, make_union

    start = time.time()
    features = make_union(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2),
                          TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2))
    model = make_pipeline(features, LogisticRegression(C=20, max_iter=1000))
    model.fit([text for text, _ in train], [label for _, label in train])
    seconds = time.time() - start
    labels = [label for _, label in validation]
    chances = model.predict_proba([text for text, _ in validation])
    found = chances.argmax(1)
    return {"seconds": seconds, "whole": seconds, "f1": f1_score(labels, found),
            "accuracy": sum(found == labels) / len(labels),
            "pr_auc": average_precision_score(labels, chances[:, 1]), "loss": log_loss(labels, chances)}


def exported(options, folder, validation):
    """What transformers reads of the export beside what the server answers: the largest difference of logits."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    shutil.rmtree(folder / "exported", ignore_errors=True)
    narthex(options, folder, "export", "spam", "exported")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "exported").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "exported")
    texts = [text for text, _ in validation[:200]]
    server = subprocess.Popen([options.narthex, "serve", "spam", "--port", str(PORT), "--dtype", "float32"], cwd=folder,
                              stderr=subprocess.DEVNULL)
    try:
        for _ in range(500):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health").read()
                break
            except OSError:
                time.sleep(0.02)
        body = json.dumps({"model": "spam", "input": texts, "truncate_prompt_tokens": -1}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}/classify", body, {"content-type": "application/json"})
        answered = json.load(urllib.request.urlopen(request))["data"]
    finally:
        server.kill()
    names, worst = [model.config.id2label[i] for i in range(2)], 0.0
    with torch.no_grad():
        for text, answer in zip(texts, answered):
            logits = model(**tokenizer(text, truncation=True, max_length=256, return_tensors="pt")).logits[0]
            # Of two labels the difference of logits is the logarithm of the odds.
            ours = math.log(answer["probs"][1]) - math.log(answer["probs"][0])
            worst = max(worst, abs(ours - float(logits[1] - logits[0])))
            if abs(ours) > 0.01 and answer["label"] != names[int(logits.argmax())]:
                raise SystemExit(f"another label for {text!r}")
    return worst


def processor():
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--narthex", default=str(ROOT / "target/release/narthex"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--precisions", default="f32")
    parser.add_argument("--plain", action="store_true", help="also PyTorch with batches as they come")
    parser.add_argument("--together", type=int, default=TOGETHER, help=argparse.SUPPRESS)
    parser.add_argument("--torch", help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.torch:
        return torch_process(options)
    options.model, options.narthex = os.path.abspath(options.model), os.path.abspath(options.narthex)
    with tempfile.TemporaryDirectory() as home:
        folder = pathlib.Path(home)
        project(options, folder)
        found = {}
        for seed in range(1337, 1337 + options.rounds):
            set_seed(folder, seed)
            train, validation = rows(options, folder)
            folded = lambda text: " ".join(text.lower().split())
            held = {folded(text) for text, _ in validation}
            only = [row for row in train if folded(row[0]) not in held]
            print(f"seed {seed}: {len(train)} messages to learn from, {len(validation)} held back; {len(train) - len(only)} "
                  "of the former stand in both and are learnt from by nobody")
            (folder / "rows.json").write_text(json.dumps([only, validation]))
            found.setdefault("TF-IDF and logistic regression", []).append(tf_idf(only, validation))
            for precision in options.precisions.split(","):
                found.setdefault(f"narthex {precision}", []).append(fit_with_narthex(options, folder, precision))
                found.setdefault(f"PyTorch {precision}", []).append(fit_with_torch(options, folder, precision, seed))
                if options.plain:
                    found.setdefault(f"PyTorch {precision}, batches as they come", []).append(
                        fit_with_torch(options, folder, precision, seed, 1))
        print(f"\n{processor()}, {options.threads} threads, medians of {options.rounds}\n")
        print("| | training s | whole process s | F1 of spam | accuracy | PR-AUC | log-loss |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        median = lambda results, key: statistics.median(result[key] for result in results)
        for name, results in found.items():
            times = f"{median(results, 'seconds'):.1f} | {median(results, 'whole'):.1f}"
            values = " | ".join(f"{median(results, key):.4f}" for key in ("f1", "accuracy", "pr_auc", "loss"))
            print(f"| {name} | {times} | {values} |")
        for precision in options.precisions.split(","):
            ratio = median(found[f"PyTorch {precision}"], "seconds") / median(found[f"narthex {precision}"], "seconds")
            print(f"\n{precision}: narthex trains {ratio:.2f} times as fast")
        print(f"\nexport read by transformers: logits differ by {exported(options, folder, validation):.1e} at most")


if __name__ == "__main__":
    main()
