"""All clients of this folder against one running `narthex serve`: a line for each flow, then the totals.

    python -m venv venv && venv/bin/pip install -r xtask/checks/clients/requirements.txt
    (cd xtask/checks/clients && npm install)  # or CLIENTS_JS=FOLDER, which holds node_modules
    narthex serve SmolLM2-135M-Instruct --project hub --port 8000 &
    venv/bin/python xtask/checks/clients/run.py http://127.0.0.1:8000 SmolLM2-135M-Instruct

Each file runs alone as well, with the same two arguments. The flows ask for nothing that needs sense: a model with
random weights will do. `--only ollama,anthropic` runs the files whose name has one of these words.
"""

import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).parent
FILES = [
    "openai_chat.py",
    "openai_tools.py",
    "openai_responses.py",
    "openai_files_batches.py",
    "langchain_check.py",
    "langgraph_check.py",
    "llama_index_check.py",
    "litellm_check.py",
    "instructor_check.py",
    "pydantic_ai_check.py",
    "ollama_check.py",
    "anthropic_check.py",
    "clients.mjs",
]
TOTALS = re.compile(r"^(.+): (\d+) ok, (\d+) failed$")

parser = argparse.ArgumentParser()
parser.add_argument("base_url")
parser.add_argument("model")
parser.add_argument("--api-key", default="none")
parser.add_argument("--only", default="", help="words of the files' names, separated by commas")
parser.add_argument("--limit-s", type=int, default=1200, help="seconds that one file may take")
options = parser.parse_args()
words = [word for word in options.only.split(",") if word]
totals = []

for file in FILES:
    if words and not any(word in file for word in words):
        continue
    program = ["node"] if file.endswith(".mjs") else [sys.executable]
    command = [*program, str(HERE / file), options.base_url, options.model, "--api-key", options.api_key]
    began, good, bad, closed = time.monotonic(), 0, 0, False
    environment = os.environ | {"NODE_NO_WARNINGS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile("w+", errors="replace") as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, errors="replace"
        )
        clock = threading.Timer(options.limit_s, process.kill)
        clock.start()
        for line in process.stdout:
            found = TOTALS.match(line)
            if found:
                good, bad, closed = int(found[2]), int(found[3]), True
            elif re.search(r" (ok \(|FAILED )", line):
                print(line, end="", flush=True)
        process.wait()
        clock.cancel()
        said.seek(0)
        noise = said.read().strip()
    if not closed:
        told = [line for line in noise.splitlines() if "Error" in line] or noise.splitlines()
        last = told[-1].strip()[:300] if told else f"ended with {process.returncode}, without a word"
        print(f"{file:<18} {'runs to its end':<58} FAILED {last}", flush=True)
        bad += 1
    totals.append((file, good, bad, time.monotonic() - began))

print()
for file, good, bad, seconds in totals:
    print(f"{file:<26} {good:>4} ok {bad:>4} failed {seconds:>7.1f} s")
failed = sum(total[2] for total in totals)
print(f"{sum(total[1] for total in totals)} passed, {failed} failed")
sys.exit(failed > 0)
