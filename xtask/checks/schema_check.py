"""Holds the server's JSON schemas against JSON-Schema-Test-Suite or JSONSchemaBench: what is refused names its keyword,
what is accepted gives valid answers only, bombs are refused soon, nothing hangs.

usage: schema_check.py BASE_URL FOLDER [--every N] [--answers N] [--tokens N] [--at-once N] [--seed N] [--model NAME]
                       [--report FILE] [--no-bombs]

FOLDER: `tests/draft2020-12` of the suite (the source package of PyPI's jsonschema 4.26.0 has it under `json/`), or
`maskbench/data` of guidance-ai/jsonschemabench, of which every Nth schema in the order of names is taken.
--answers: answers drawn in all at temperature 1 (default 1000), of --tokens tokens at most (200), --at-once at a time (16);
the schemas take turns, each answer has a seed of its own.
--report: a JSON line for each schema and each answer.

An answer is judged if it ended by itself: by the validator of the draft that the schema names (2020-12 if none), with the
formats that the server promises to keep. Needs httpx and jsonschema[format-nongpl]. Works with any server that takes
`response_format`.
"""

import argparse
import collections
import concurrent.futures
import json
import pathlib
import re
import statistics
import sys
import time

import httpx
import jsonschema
from jsonschema.validators import validator_for

parser = argparse.ArgumentParser(usage=__doc__)
parser.add_argument("base")
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("old_answers", nargs="?", type=int)
parser.add_argument("--answers", type=int, default=1000)
parser.add_argument("--every", type=int, default=1)
parser.add_argument("--tokens", type=int, default=200)
parser.add_argument("--at-once", type=int, default=16)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--model")
parser.add_argument("--report", type=pathlib.Path)
parser.add_argument("--no-bombs", action="store_true")
options = parser.parse_args()
base, answers = options.base.rstrip("/"), options.old_answers if options.old_answers is not None else options.answers
client = httpx.Client(timeout=300, limits=httpx.Limits(max_connections=options.at_once + 1))
report = options.report.open("w") if options.report else None

# Refused sooner than this, bombs and all others; one that is compiled may take longer.
REFUSED_MS = 100
KEPT_FORMATS = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
# 2020-12's own: by name alone, `time` would be draft 3's, which knows no zone.
known_formats = jsonschema.Draft202012Validator.FORMAT_CHECKER.checkers
formats = jsonschema.FormatChecker([])
formats.checkers = {name: known_formats[name] for name in KEPT_FORMATS}


def note(**fields):
    if report:
        report.write(json.dumps(fields) + "\n")


def ask(schema, seed=0, tokens=1):
    body = {
        "messages": [{"role": "user", "content": "Answer in JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}},
        "max_tokens": tokens,
        "temperature": 1,
        "seed": seed,
    } | ({"model": options.model} if options.model else {})
    encoded = json.dumps(body).encode()
    begun = time.monotonic()
    reply = client.post(f"{base}/v1/chat/completions", content=encoded, headers={"content-type": "application/json"})
    return reply, time.monotonic() - begun


def groups():
    for path in sorted(options.folder.glob("*.json"))[:: options.every]:
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            yield path.stem, found["schema"]
        else:
            yield from ((f"{path.stem}: {group['description']}", group["schema"]) for group in found)


def kept_message(reply):
    """The server's words, whatever shape its errors have."""
    try:
        error = reply.json().get("error", reply.json())
        return str(error.get("message", error) if isinstance(error, dict) else error)
    except ValueError:
        return reply.text


accepted, refused, unnamed, times = [], collections.Counter(), [], {200: [], 400: []}
every = list(groups())
for name, schema in every:
    reply, seconds = ask(schema)
    times.setdefault(reply.status_code, []).append((seconds * 1000, name))
    if reply.status_code == 200:
        accepted.append((name, schema))
        note(schema=name, accepted=True, ms=round(seconds * 1000, 1))
        continue
    message = kept_message(reply)
    named = re.search(r"keyword `([^`]+)`", message)
    refused[named.group(1) if named else "?"] += 1
    if reply.status_code != 400 or not named:
        unnamed.append((name, reply.status_code, message))
    note(schema=name, accepted=False, ms=round(seconds * 1000, 1), status=reply.status_code,
         keyword=named.group(1) if named else None, message=message[:500])
total = len(every)
print(f"{total} schemas: {len(accepted)} accepted ({len(accepted) / total:.1%}), {sum(refused.values())} refused:"
      f" {dict(refused.most_common())}")
for status, found in sorted(times.items()):
    if found:
        ms = sorted(found)
        slowest = ", ".join(f"{name} {took:.0f}" for took, name in ms[:-4:-1])
        print(f"  {status}: {len(ms)}, median {statistics.median(took for took, _ in ms):.1f} ms,"
              f" p99 {ms[int(len(ms) * 0.99)][0]:.0f}, slowest {slowest}")
for name, status, message in unnamed:
    print(f"  without a keyword: {name}: {status} {message[:150]}")


def nested(depth, inner, wrap):
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def doubling(levels):
    rules = {f"d{i}": {"properties": {key: {"$ref": f"#/$defs/d{i + 1}"} for key in "ab"}} for i in range(levels)}
    return {"$defs": rules | {f"d{levels}": {"type": "integer"}}, "$ref": "#/$defs/d0"}


bombs = {
    "1 MB of properties": {"type": "object", "properties": {f"p{i}": {"type": "string"} for i in range(40_000)}},
    "1 MB of one text": {"const": "x" * 1_000_000},
    "1 MB of an enum": {"enum": [f"value {i}" for i in range(70_000)]},
    "1 MB of a description": {"description": "x" * 1_000_000},
    "deep": nested(100, {}, lambda inner: {"items": inner}),
    "deep choices": nested(60, {"type": "string"}, lambda inner: {"anyOf": [inner, {"type": "null"}]}),
    "choices that double": nested(14, {"type": "string"}, lambda inner: {"anyOf": [inner, {"type": "array", "items": inner}]}),
    "references that double": doubling(60),
    "references that double, all at once": {
        "$defs": {f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"$ref": f"#/$defs/d{i + 1}"}]} for i in range(40)}
        | {"d40": {"type": "object", "properties": {"a": {"type": "string"}}}},
        "$ref": "#/$defs/d0",
    },
    "choices of choices": {
        "allOf": [{"anyOf": [{"properties": {f"k{i}": {"const": j}}, "required": [f"k{i}"]} for j in range(6)]} for i in range(8)]
    },
    "counts": {"type": "array", "minItems": 10000,
               "items": {"type": "array", "minItems": 10000, "items": {"type": "string", "maxLength": 100000}}},
    "a large count": {"type": "string", "minLength": 100_000_000},
    "large bounds": {"type": "integer", "minimum": -(10**300), "maximum": 10**300},
    "multiples": {"type": "integer", "multipleOf": 999_983},
    "pattern": {"type": "string", "pattern": "^(((a|b){1,100}){1,100}){1,100}$"},
    "pattern that looks back": {"type": "string", "pattern": "^(.*a.{30})+$"},
    "patterns at once": {"allOf": [{"type": "string", "pattern": f"a.{{{i}}}b"} for i in range(1, 40)]},
    "many patterns": {"type": "object", "patternProperties": {f"^.*{i}.*{i}.*$": {"type": "integer"} for i in range(100)}},
    "many that may be left out": {"type": "object", "properties": {f"{i:x}": {} for i in range(20_000)}, "additionalProperties": False},
    "many that are required": {"type": "object", "properties": {f"{i:x}": {} for i in range(12_000)}, "required": [f"{i:x}" for i in range(12_000)]},
    "a large object as a value": {"const": {f"{i:x}": i for i in range(15_000)}},
    "many patterns of names": {"type": "object", "patternProperties": {f"^{i:x}x$": {"type": "integer"} for i in range(2000)}},
    "a long pattern": {"type": "string", "pattern": "^" + "a?" * 40_000 + "$"},
    "a long way of references": {"$defs": {f"{i:x}": {"$ref": f"#/$defs/{i + 1:x}"} for i in range(7000)} | {"1b58": {}}, "$ref": "#/$defs/0"},
    "choices that may all be": {"oneOf": [{"type": "object", "properties": {"k": {}, f"n{i}": {}}, "required": ["k"]} for i in range(500)]},
    "wide choices": {"anyOf": [{"type": "object", "properties": {f"p{i}": {"type": "integer"}}, "required": [f"p{i}"]} for i in range(2000)]},
    "loops": {"$ref": "#"},
    "loops of all": {"$defs": {"a": {"allOf": [{"$ref": "#/$defs/b"}]}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"},
}
hung = 0
for name, schema in {} if options.no_bombs else bombs.items():
    reply, seconds = ask(schema)
    late = reply.status_code != 200 and seconds * 1000 > REFUSED_MS
    hung += late
    note(bomb=name, status=reply.status_code, ms=round(seconds * 1000, 1))
    print(f"  bomb {name}: {reply.status_code} after {seconds * 1000:.0f} ms{' TOO LATE' if late else ''}"
          f" {'' if reply.status_code == 200 else kept_message(reply)[:110]}")


def once(pairs):
    """An object; one that names a property twice is no object to whoever reads the first."""
    names = [name for name, _ in pairs]
    if len(names) != len(set(names)):
        raise ValueError("a property stands there twice")
    return dict(pairs)


def outcome(numbered):
    number, (name, schema) = numbered
    reply, _ = ask(schema, options.seed + number, options.tokens)
    if reply.status_code != 200:
        return f"{name}: {reply.status_code} {reply.text[:200]}", ""
    choice = reply.json()["choices"][0]
    text = choice["message"]["content"]
    if choice["finish_reason"] == "length":
        return "cut", text
    try:
        value = json.loads(text, object_pairs_hook=once)
        cls = validator_for(schema, default=jsonschema.Draft202012Validator)
        cls(schema, format_checker=formats).validate(value)
    except jsonschema.ValidationError as error:
        return f"{name}: INVALID {text[:120]}: {error.message[:120]}", text
    except Exception as error:  # noqa: BLE001
        return f"{name}: {type(error).__name__} {text[:120]}: {str(error)[:120]}", text
    return "valid", text


wanted = [(i, accepted[i % len(accepted)]) for i in range(answers)]
begun = time.monotonic()
found = []
with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
    for (number, (name, _)), (what, text) in zip(wanted, pool.map(outcome, wanted)):
        found.append(what)
        note(answer=name, seed=options.seed + number, outcome=what, text=text)
counts = collections.Counter(what if what in ("valid", "cut") else "wrong" for what in found)
print(f"{answers} answers in {time.monotonic() - begun:.0f} s: {dict(counts)}")
for what in sorted({what for what in found if what not in ("valid", "cut")}):
    print(f"  {what}")
sys.exit(1 if counts["wrong"] or hung else 0)
