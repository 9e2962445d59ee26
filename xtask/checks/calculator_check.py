"""A small model calls a calculator on 20 questions: whatever it thinks, its arguments are valid.

usage: calculator_check.py BASE_URL
"""

import json
import sys

import httpx
import jsonschema

SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "number"},
        "b": {"type": "number"},
        "operation": {"enum": ["add", "subtract", "multiply", "divide"]},
    },
    "required": ["a", "b", "operation"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "calculator", "description": "Computes.", "parameters": SCHEMA}}
WORDS = {"add": "plus", "subtract": "minus", "multiply": "times", "divide": "divided by"}

base = sys.argv[1].rstrip("/")
valid = right = 0
for number in range(20):
    operation = list(WORDS)[number % 4]
    a, b = 3 + number, 2 + number % 5
    body = {
        "messages": [{"role": "user", "content": f"What is {a} {WORDS[operation]} {b}?"}],
        "tools": [TOOL], "tool_choice": "required", "parallel_tool_calls": False, "temperature": 0, "max_tokens": 200,
    }
    choice = httpx.post(f"{base}/v1/chat/completions", json=body, timeout=120).json()["choices"][0]
    [call] = choice["message"]["tool_calls"]
    arguments = json.loads(call["function"]["arguments"])
    jsonschema.validate(arguments, SCHEMA)
    valid += call["function"]["name"] == "calculator" and choice["finish_reason"] == "tool_calls"
    right += arguments == {"a": a, "b": b, "operation": operation}
print(f"{valid} of 20 calls valid, {right} of 20 right")
sys.exit(valid != 20)
