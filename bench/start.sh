#!/usr/bin/env bash
# Size, and time from process start to the first token, beside PyTorch + transformers on the same model.
#
#   python3 -m venv venv && venv/bin/pip install torch transformers
#   cargo run --release -- run examples/bard
#   PYTHON=venv/bin/python bench/start.sh
#
# Runs both in turn (A B A B …) and prints medians. The model must have been made before.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:?name a Python with torch and transformers: PYTHON=venv/bin/python}
narthex=${CARGO_TARGET_DIR:-target}/release/narthex
runs=${RUNS:-5}
port=${PORT:-8399}
home=$(mktemp -d)
trap 'rm -rf "$home"' EXIT
"$narthex" export bard "$home/bard" --project examples/bard >/dev/null 2>&1

cat >"$home/client.py" <<'CLIENT'
# The clock starts with the server process and stops at the first token that a client receives.
import json, subprocess, sys, time, urllib.request
binary, folder, port = sys.argv[1:]
start = time.monotonic()
server = subprocess.Popen([binary, "serve", folder, "--port", port], stderr=subprocess.DEVNULL)
body = json.dumps({"model": "bard", "prompt": "ROMEO:\n", "max_tokens": 8, "stream": True, "temperature": 0}).encode()
try:
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body, {"content-type": "application/json"})
            with urllib.request.urlopen(request) as response:
                response.readline()
                print(f"{time.monotonic() - start:.3f}")
                break
        except OSError:
            time.sleep(0.002)
finally:
    server.terminate()
    server.wait()
CLIENT
cat >"$home/reference.py" <<'REFERENCE'
# What a PyTorch user runs: load the same folder, generate; no HTTP in between.
import sys
from transformers import AutoModelForCausalLM, AutoTokenizer
model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
model.generate(**tokenizer("ROMEO:\n", return_tensors="pt", return_token_type_ids=False), max_new_tokens=1, do_sample=False)
REFERENCE

ours=() theirs=()
for _ in $(seq "$runs"); do
    ours+=("$("$python" "$home/client.py" "$narthex" "$home/bard" "$port")")
    begin=$(date +%s.%N)
    "$python" "$home/reference.py" "$home/bard" >/dev/null 2>&1
    theirs+=("$(awk "BEGIN { printf \"%.3f\", $(date +%s.%N) - $begin }")")
done
median() { printf '%s\n' "$@" | sort -g | sed -n "$((($# + 1) / 2))p"; }
packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
lscpu | sed -n 's/^Model name: */CPU: /p'
"$python" -c 'import torch, transformers; print(f"torch {torch.__version__}, transformers {transformers.__version__}")'
printf '%-28s %12s %s\n' "" "size" "start to first token (median of $runs)"
printf '%-28s %12s %s s (over HTTP)\n' "narthex" "$(du -h --apparent-size "$narthex" | cut -f1)" "$(median "${ours[@]}")"
printf '%-28s %12s %s s (in process)\n' "PyTorch + transformers" "$(du -sh "$packages" | cut -f1)" "$(median "${theirs[@]}")"
