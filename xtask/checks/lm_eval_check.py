"""Multiple choice beside lm-evaluation-harness: the same rows through `narthex eval` and through its HFLM, and the three accuracies of both.

    python3 -m venv venv && venv/bin/pip install torch transformers lm_eval
    venv/bin/python xtask/checks/lm_eval_check.py NARTHEX MODEL_FOLDER TEXT [--rows 200]

Rows are made of the lines of TEXT: the first words of a line are the prompt, the rest and the rests of three other lines the choices. In every
third row the space between both belongs to the prompt.
"""

import argparse
import json
import pathlib
import random
import subprocess
import tempfile

import lm_eval
import numpy
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

parser = argparse.ArgumentParser()
parser.add_argument("narthex", type=pathlib.Path)
parser.add_argument("model", type=pathlib.Path)
parser.add_argument("text", type=pathlib.Path)
parser.add_argument("--rows", type=int, default=200)
options = parser.parse_args()

lines = [line.strip().split(" ") for line in options.text.read_text().splitlines()]
lines = [words for words in lines if len(words) > 6]
random.seed(0)
rows = []
for number in range(options.rows):
    chosen = random.sample(lines, 4)
    at = random.randrange(2, 5)
    answer = random.randrange(4)
    rests = [" ".join(words[at:]) for words in chosen]
    rests.insert(answer, rests.pop(0))
    prompt, gap = " ".join(chosen[0][:at]), " "
    if number % 3 == 0:
        prompt, gap = prompt + " ", ""
    rows.append({"prompt": prompt, "choices": [gap + rest for rest in rests], "answer": answer})

with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    (folder / "task.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "narthex.toml").write_text(f"""[project]
name = "check"
license = "CC0-1.0"
[sources.model]
path = "{options.model.resolve()}"
format = "huggingface"
license = "Apache-2.0"
[sources.rows]
path = "task.jsonl"
license = "CC0-1.0"
[steps.quiz]
kind = "eval"
model = "model"
task = "rows"
max_rows = {options.rows}
""")
    subprocess.run([options.narthex, "run", folder], check=True)
    shown = subprocess.run([options.narthex, "show", "quiz", "--project", folder, "--json"], check=True, capture_output=True, text=True).stdout
    ours = json.loads(shown)["manifest"]["figures"]

model = HFLM(pretrained=str(options.model), dtype="float32", device="cpu", batch_size=4)
requests = [Instance(request_type="loglikelihood", doc=row, arguments=(row["prompt"], choice), idx=i)
            for row in rows for i, choice in enumerate(row["choices"])]
sums = [total for total, _ in model.loglikelihood(requests)]
theirs = {"acc": [], "acc_norm": [], "acc_bytes": []}
for number, row in enumerate(rows):
    found = numpy.array(sums[4 * number:4 * number + 4])
    # As `ConfigurableTask.process_results` counts.
    theirs["acc"].append(numpy.argmax(found) == row["answer"])
    theirs["acc_norm"].append(numpy.argmax(found / numpy.array([float(len(choice)) for choice in row["choices"]])) == row["answer"])
    theirs["acc_bytes"].append(numpy.argmax(found / numpy.array([float(len(choice.encode())) for choice in row["choices"]])) == row["answer"])
print("lm_eval", lm_eval.__version__)
for name, right in theirs.items():
    mean, error = numpy.mean(right), numpy.std(right, ddof=1) / numpy.sqrt(len(right))
    print(f"{name:10} theirs {mean:.4f} +- {error:.4f}   ours {ours[name]:.4f} +- {ours[name + '_stderr']:.4f}")
