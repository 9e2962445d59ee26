#!/usr/bin/env bash
# Training speed and memory beside PyTorch (eager and compiled) and candle on two Llama shapes, as a Markdown table.
#
#   bench/train.sh                                           # everything; PyTorch comes from PyPI into a venv
#   PYTHON=venv/bin/python SHAPES=llama-10m bench/train.sh   # with a Python that has torch
#
# Needs Linux, Rust, Python 3.10 or newer, and a C++ compiler for torch.compile. Nothing else should run meanwhile.
# From the environment: ROUNDS (3), STEPS (5 a round), THREADS (all), ENGINES (narthex pytorch-eager pytorch-compiled
# candle), SHAPES (llama-10m llama-100m), PRECISIONS (f32 bf16), OUT (a JSON file), BENCH_DIR (target/bench),
# CARGO_TARGET_DIR (narthex), CANDLE_TARGET_DIR ($BENCH_DIR/candle), CANDLE_FEATURES (mkl, avx512).
set -euo pipefail
cd "$(dirname "$0")/.."
bench=${BENCH_DIR:-target/bench}
engines=${ENGINES:-narthex pytorch-eager pytorch-compiled candle}
narthex=${CARGO_TARGET_DIR:-target}/release/narthex
candle=$(realpath -m "${CANDLE_TARGET_DIR:-$bench/candle}")
mkdir -p "$bench"
options=()

# Runs a build; an engine that can't be built is named in the table with the reason.
build() {
    local name=$1 log=$bench/$1.log
    shift
    echo "$name: build" >&2
    "$@" >"$log" 2>&1 && return
    options+=(--failed "$name=$(grep -m1 -E '^(error|ERROR)' "$log" || tail -n1 "$log") (see $log)")
}

make_venv() {
    python3 -m venv "$bench/venv"
    # The CPU wheels are a tenth of the size; where only a mirror of PyPI can be reached, its wheels do as well.
    "$bench/venv/bin/pip" install --timeout 20 --retries 1 torch --index-url https://download.pytorch.org/whl/cpu ||
        "$bench/venv/bin/pip" install torch
}

build_candle() (
    # For this machine, as candle's own repository does; its element-wise loops profit.
    cd bench/train/candle
    RUSTFLAGS="-C target-cpu=native" CARGO_TARGET_DIR=$candle \
        cargo build --release --locked ${CANDLE_FEATURES:+--features "$CANDLE_FEATURES"}
)

if [[ $engines == *narthex* ]]; then build narthex cargo build --release; fi
if [[ $engines == *candle* ]]; then build candle build_candle; fi
python=${PYTHON:-$bench/venv/bin/python}
if [[ $engines == *pytorch* && -z ${PYTHON:-} ]] && ! "$python" -c 'import torch' 2>/dev/null; then
    build pytorch make_venv
fi
python3 bench/train/compare.py --narthex "$narthex" --candle "$candle/release/candle-train" --python "$python" \
    --engines "$engines" --shapes "${SHAPES:-llama-10m llama-100m}" --precisions "${PRECISIONS:-f32 bf16}" \
    --rounds "${ROUNDS:-3}" --steps "${STEPS:-5}" ${THREADS:+--threads "$THREADS"} ${OUT:+--out "$OUT"} "${options[@]}"
