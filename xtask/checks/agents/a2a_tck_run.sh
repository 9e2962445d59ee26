#!/bin/sh
# Starts the system under test and runs the kit against it: a2a_tck_run.sh target/release/examples/tck-sut KIT PYTHON [LEVEL] [once]
set -eu
binary=$1 kit=$2 python=$3 level=${4:-must} once=${5:-}
store=$(mktemp -d)
export A2A_ALLOWED="${A2A_ALLOWED:-127.0.0.1,localhost}"
"$binary" 9999 "$store/a2a.db" "$once" >"$store/log" 2>&1 &
sut=$!
trap 'kill $sut; rm -rf "$store"' EXIT
for _ in 1 2 3 4 5 6 7 8 9 10; do
    curl -sf http://127.0.0.1:9999/.well-known/agent-card.json >/dev/null && break
    sleep 0.5
done
"$(dirname "$0")/a2a_tck.sh" "$kit" "$python" http://127.0.0.1:9999 "$level" || true
cat "$store/log"
