#!/usr/bin/env bash
# Training by several processes of this machine beside one process, and beside PyTorch's DDP and FSDP2, as a table.
#
#   PYTHON=venv/bin/python bench/ranks.sh                              # a Python that has torch
#   PYTHON=venv/bin/python STAGES=parameters PRECISIONS=bf16 bench/ranks.sh
#
# From the environment: RANKS (2), MICRO_BATCHES (2), ROUNDS (3), STEPS (1 a round), SHAPES (llama-100m), PRECISIONS
# (f32 bf16), STAGES (none optimizer parameters; also deepspeed-1 deepspeed-3), OUT (a JSON file), CARGO_TARGET_DIR.
# Nothing else should run meanwhile.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release
python3 bench/ranks/compare.py --narthex "${CARGO_TARGET_DIR:-target}/release/narthex" --python "${PYTHON:-python3}" \
    --groups "${STAGES:-none optimizer parameters}" --shapes "${SHAPES:-llama-100m}" --precisions "${PRECISIONS:-f32 bf16}" \
    --ranks "${RANKS:-2}" --micro-batches "${MICRO_BATCHES:-2}" --rounds "${ROUNDS:-3}" --steps "${STEPS:-1}" \
    ${OUT:+--out "$OUT"}
