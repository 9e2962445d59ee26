#!/usr/bin/env bash
# Decoding speed of the shape of Qwen3-0.6B with weights in bf16, int8 and int4, by turns with llama.cpp on the same shape.
#
#   LLAMA=.../build/bin MODEL=.../qwen3-0.6b-shape bench/decode.sh
#
# MODEL-BF16.gguf, MODEL-Q8_0.gguf and MODEL-Q4_0.gguf are what `bench/serve/models.py qwen3-0.6b-shape` writes and what
# `llama-quantize` makes of it. Nothing else should run meanwhile. From the environment: ROUNDS (3), STEPS (32), THREADS (all).
set -euo pipefail
cd "$(dirname "$0")/.."
threads=${THREADS:-$(nproc)}
ours=${CARGO_TARGET_DIR:-target}/release/examples/decode
[[ -x $ours ]] || cargo build --release -p narthex-kernels --example decode
for ((round = 0; round < ${ROUNDS:-3}; round++)); do
    "$ours" 1 "${STEPS:-32}"
    for kind in BF16 Q8_0 Q4_0; do
        "$LLAMA/llama-bench" -m "$MODEL-$kind.gguf" -t "$threads" -p 256 -n "${STEPS:-32}" -r 2 -o json |
            python3 -c 'import json, sys
for run in json.load(sys.stdin):
    what = "prompt of 256" if run["n_prompt"] else "1 sequence"
    print("llama.cpp", sys.argv[1], what, round(run["avg_ts"], 1), "tokens/s")' "$kind"
    done
done
