"""Holds the server's JSON schemas against JSON-Schema-Test-Suite: what is refused names its keyword, what is accepted
gives valid answers only, nothing hangs.

usage: schema_check.py BASE_URL FOLDER [ANSWERS]

FOLDER: `tests/draft2020-12` of the suite (the source package of PyPI's jsonschema 4.26.0 has it under `json/`).
ANSWERS: answers drawn in all at temperature 1 (default 1000). Needs httpx and jsonschema.
"""

import collections
import concurrent.futures
import json
import pathlib
import re
import sys
import time

import httpx
import jsonschema

base, folder = sys.argv[1].rstrip("/"), pathlib.Path(sys.argv[2])
answers = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
client = httpx.Client(timeout=120)


def ask(schema, seed=0, tokens=1):
    body = {
        "messages": [{"role": "user", "content": "Answer in JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": tokens,
        "temperature": 1,
        "seed": seed,
    }
    begun = time.monotonic()
    reply = client.post(f"{base}/v1/chat/completions", json=body)
    return reply, time.monotonic() - begun


groups = []
for path in sorted(folder.glob("*.json")):
    groups += [(f"{path.stem}: {group['description']}", group["schema"]) for group in json.loads(path.read_text())]

accepted, refused, unnamed, slow = [], collections.Counter(), [], []
for name, schema in groups:
    reply, seconds = ask(schema)
    if seconds > 1.0:
        slow.append((name, round(seconds, 2)))
    if reply.status_code == 200:
        accepted.append((name, schema))
        continue
    message = reply.json()["error"]["message"]
    named = re.search(r"keyword `([^`]+)`", message)
    refused[named.group(1) if named else "?"] += 1
    if reply.status_code != 400:
        unnamed.append((name, reply.status_code, message))
    elif not named:
        unnamed.append((name, 400, message))
print(f"{len(groups)} schemas: {len(accepted)} accepted, {sum(refused.values())} refused: {dict(refused)}")
for name, status, message in unnamed:
    print(f"  without a keyword: {name}: {status} {message[:150]}")
for name, seconds in slow:
    print(f"  slow: {name}: {seconds} s")

bombs = {
    "1 MB of properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(40_000)}},
    "deep": json.loads('{"items":' * 100 + "{}" + "}" * 100),
    "references that double": {
        "$defs": {f"d{i}": {"properties": {"a": {"$ref": f"#/$defs/d{i+1}"}, "b": {"$ref": f"#/$defs/d{i+1}"}}} for i in range(60)}
        | {"d60": {"type": "integer"}},
        "$ref": "#/$defs/d0",
    },
    "counts": {"type": "array", "items": {"type": "array", "items": {"type": "string", "maxLength": 100000}, "minItems": 10000}, "minItems": 10000},
    "pattern": {"type": "string", "pattern": "^(((a|b){1,100}){1,100}){1,100}$"},
    "loops": {"$ref": "#"},
}
for name, schema in bombs.items():
    reply, seconds = ask(schema)
    print(f"  bomb {name}: {reply.status_code} after {seconds * 1000:.0f} ms")


def valid(numbered):
    number, (name, schema) = numbered
    reply, _ = ask(schema, number, 200)
    if reply.status_code != 200:
        return f"{name}: {reply.status_code} {reply.text[:200]}"
    choice = reply.json()["choices"][0]
    if choice["finish_reason"] == "length":
        return "cut"
    text = choice["message"]["content"]
    try:
        jsonschema.validate(json.loads(text), schema, cls=jsonschema.Draft202012Validator)
    except jsonschema.ValidationError as error:
        return f"{name}: INVALID {text[:120]}: {error.message[:120]}"
    except Exception as error:  # noqa: BLE001
        return f"{name}: {type(error).__name__} {text[:120]}: {str(error)[:120]}"
    return "valid"


wanted = [(i, accepted[i % len(accepted)]) for i in range(answers)]
with concurrent.futures.ThreadPoolExecutor(16) as pool:
    found = list(pool.map(valid, wanted))
counts = collections.Counter(outcome if outcome in ("valid", "cut") else "wrong" for outcome in found)
print(f"{answers} answers: {dict(counts)}")
for outcome in sorted({outcome for outcome in found if outcome not in ("valid", "cut")}):
    print(f"  {outcome}")
sys.exit(1 if counts["wrong"] else 0)
