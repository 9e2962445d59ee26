#!/bin/sh
# Runs the official compatibility kit of A2A against an agent.
#   a2a_tck.sh FOLDER_OF_THE_KIT PYTHON URL [LEVEL [TRANSPORTS]]
# The kit: https://github.com/a2aproject/a2a-tck, branch 1.0-dev. PYTHON has: pytest pytest-asyncio pytest-html httpx
# grpcio protobuf googleapis-common-protos jsonschema gherkin-official Jinja2.
set -eu
kit=$1 python=$2 url=$3 level=${4:-must} transports=${5:-jsonrpc,http_json}
cd "$kit"
export TCK_STREAMING_TIMEOUT="${TCK_STREAMING_TIMEOUT:-2}"
if [ "$level" = all ]; then
    exec "$python" run_tck.py --sut-host "$url" --transport "$transports"
fi
exec "$python" run_tck.py --sut-host "$url" --transport "$transports" --level "$level"
