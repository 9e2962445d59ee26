"""Tokens a second of 32 requests at once, with a form and without, in turn.

usage: constraint_cost.py BASE_URL [ROUNDS]

The form is a list of objects with free strings, which never ends by itself, so that each answer has as many tokens as are
asked for. Needs httpx.
"""

import concurrent.futures
import statistics
import sys
import time

import httpx

base, rounds = sys.argv[1].rstrip("/"), int(sys.argv[2]) if len(sys.argv) > 2 else 4
client = httpx.Client(timeout=600, limits=httpx.Limits(max_connections=40))
item = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 20}, "note": {"type": "string", "minLength": 60}},
    "required": ["name", "note"],
}
FORMS = {
    "none": {},
    "schema": {"structured_outputs": {"json": {"type": "array", "items": item, "minItems": 100}}},
    "regex": {"structured_outputs": {"regex": "[A-Za-z ,.]+"}},
    "counted": {"structured_outputs": {"regex": "[A-Za-z ,.]{2000,}"}},
}


def one(seed, form):
    body = {
        "messages": [{"role": "user", "content": f"Write a long story, number {seed}."}],
        "max_tokens": 128, "temperature": 1, "seed": seed, "ignore_eos": True,
    }
    reply = client.post(f"{base}/v1/chat/completions", json=body | FORMS[form]).json()
    return reply["usage"]["completion_tokens"]


def rate(form):
    begun = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        tokens = sum(pool.map(lambda seed: one(seed, form), range(32)))
    return tokens / (time.monotonic() - begun)


for form in FORMS:
    rate(form)
found = {form: [] for form in FORMS}
for _ in range(rounds):
    for form in FORMS:
        found[form].append(rate(form))
plain = statistics.median(found["none"])
for form, rates in found.items():
    median = statistics.median(rates)
    print(f"{form:8} {median:8.0f} tokens/s  {median / plain:.2f} of none   ({', '.join(f'{r:.0f}' for r in rates)})")
