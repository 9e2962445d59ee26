"""What Jinja2 gives for expressions that chat templates use, with transformers' settings: writes
crates/text/tests/golden/expressions.json.

    python3 -m venv venv && venv/bin/pip install jinja2 transformers
    venv/bin/python xtask/goldens/templates.py
"""

import copy
import json
import pathlib

import jinja2
import transformers
from transformers.utils.chat_template_utils import _compile_jinja_template

MESSAGES = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "Hi <there>"}, {"type": "text", "text": "b"}]},
    {"role": "assistant", "tool_calls": [
        {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2.5, None, True]}}}]},
    {"role": "tool", "content": "3", "tool_call_id": "c1"},
    {"role": "assistant", "content": " <think>\nhm\n</think>\n\nthree ", "reasoning_content": "hm"},
]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds é", "parameters": {
    "type": "object", "properties": {"a": {"type": "number", "minimum": 0}}, "required": ["a"]}}}]

VALUES = ["none", "nothing", "true", "0", "7", "-3", "2.5", "1e20", "0.1 + 0.2", "1e-7", "''", "'ab c'", "'Straße'", "[]", "[3, 1, 2]",
          "{}", "{'b': 1, 'a': none}", "(1, 'x')", "tools", "messages[1].content", "messages[2].tool_calls"]
TESTS = ["defined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "true", "false"]
FILTERS = ["length", "tojson", "string", "list", "first", "last", "trim", "upper", "lower", "title", "capitalize", "int", "float",
           "default('d')", "default('d', true)", "join(',')", "reverse | list", "sort", "unique | list", "items | list",
           "dictsort", "map('string') | list", "select | list", "reject | list", "wordcount", "truncate(3)", "replace('a', 'x')",
           "indent", "indent(2, true)", "abs", "round", "sum", "min", "max", "batch(2) | list", "e", "safe", "count", "tojson(indent=2)"]
METHODS = ["strip()", "lstrip()", "rstrip()", "split()", "split('b')", "split(' ', 1)", "rsplit(' ', 1)", "rsplit('b')", "partition('b')",
           "rpartition('b')", "upper()", "lower()", "title()", "capitalize()", "swapcase()", "startswith('a')", "endswith('c')",
           "find('b')", "rfind('z')", "index('b')", "count('b')", "replace('b', '')", "removeprefix('a')", "removesuffix('c')",
           "zfill(8)", "ljust(8)", "rjust(8, '.')", "center(9, '*')", "isdigit()", "isalpha()", "isupper()", "splitlines()",
           "join(['x', 'y'])", "format(1)", "casefold()", "strip('ac')", "lstrip('a')", "expandtabs(2)", "startswith(('a', 'x'))"]
OTHERS = [
    "messages[0]['role'] ~ ':' ~ messages[-1].content[1:4]", "messages | map(attribute='role') | join(',')",
    "messages | selectattr('role', 'equalto', 'user') | list | length", "messages | rejectattr('content', 'none') | list | length",
    "messages | selectattr('tool_calls', 'defined') | list | length", "messages[2].tool_calls[0].function.arguments | tojson",
    "messages[2].tool_calls[0].function.arguments.items() | list", "tools | tojson", "tools | tojson(indent=4)",
    "tools[0].function.parameters.properties.keys() | list", "messages[4].content.split('</think>')[-1].lstrip('\\n')",
    "messages[4].content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n')", "messages[::-1][0].role",
    "messages[1:][:2] | length", "messages[1].content[0]['text']", "messages[1].content is string", "messages[9] is defined",
    "messages[0].nope is defined", "messages[0].get('nope', 'd')", "messages[0].get('role')", "'role' in messages[0]", "'x' not in 'xyz'",
    "1 if messages else 2", "messages and 'yes'", "none or 'no'", "not none", "5 // 2", "5 % 3", "2 ** 10", "7 / 2", "-7 // 2", "-7 % 3",
    "1 == 1.0", "'a' < 'b'", "[1, 2] + [3]", "'ab' * 3", "'a' 'b'", "loop is defined", "range(3) | list", "range(1, 7, 2) | list",
    "(1, 2)[0]", "{'a': 1}['a']", "{'a': {'b': 2}}.a.b", "dict(a=1, b=2) | tojson", "namespace(x=3).x", "[1, [2, 3]] | string",
    "{'a': [1, none, true, 1.5, 'x']}", "[true, false, none]", "'it''s'", "'\\n' | tojson", "'é🦀' | tojson", "'é' | tojson(ensure_ascii=true)",
    "1.0", "100000.0", "1e16", "1e15", "123456789012345678", "0.00001", "3 | string ~ 'x'", "'%s-%d' | format('a', 3)", "'3.7' | int",
    "'x' | int(9)", "'1f' | int(0, 16)", "'2.5' | float", "3.7 | int", "2.675 | round(2)", "3 | round(1)", "messages | length > 4",
    "tools is iterable and tools | length > 0", "nothing is iterable", "none is iterable", "5 is iterable", "'ab' is iterable",
    "raise_exception is callable", "messages is callable", "'ab' is in ['ab']", "3 is divisibleby 3", "4 is even", "5 is odd", "'A' is upper",
    "3 is gt 2", "3 is eq 3", "nothing is undefined", "nothing | default('x')", "messages[0].content | length", "'a,b,,c'.split(',')",
    "' a  b '.split()", "' a  b '.split(' ')", "'abc'[::-1]", "'abc'[-2:]", "'abc'[5:]", "'abc' | first", "'abc' | list", "[3,1,2] | sort(reverse=true)",
    "['b','A','c'] | sort", "['b','A','c'] | sort(case_sensitive=true)", "{'b': 2, 'a': 1} | dictsort(by='value')", "[1,1,2] | unique | list",
    "['a','b'] | join", "[[1,2],[3,4]] | map('first') | list", "messages | groupby('role') | map('first') | list", "[1,2,3,4,5] | batch(2, 0) | list",
    "[1,2,3] | sum(start=10)", "'a' is sameas 'a'", "none is sameas none", "'<b>&' | e", "'<b>' | escape", "'word ' * 3 | trim",
    "'a b c d' | truncate(5, true, '', 0)", "'one two three four' | truncate(9)", "'x' | center(5)", "['a'] | tojson | length",
    "'Hello World' | replace('l', 'L', 1)", "'a-b_c' | title", "42 | tojson", "none | tojson", "true | tojson", "'a\\tb' | tojson",
    "{'k': 'v', 'n': {'m': []}} | tojson(indent=1)", "[1, 2] | tojson(separators=(',', ':'))", "{'b': 1, 'a': 2} | tojson(sort_keys=true)",
]


def main():
    expressions = [f"{value} is {test}" for value in VALUES for test in TESTS]
    expressions += [f"({value}) | {name}" for value in VALUES for name in FILTERS]
    expressions += [f"{value}.{method}" for value in ("'ab c'", "'b1b\\nB '", "''") for method in METHODS] + OTHERS
    cases = []
    for expression in expressions:
        template = "{{ " + expression + " }}"
        try:
            # Copies: a filter may change a list.
            text = _compile_jinja_template(template).render(messages=copy.deepcopy(MESSAGES), tools=copy.deepcopy(TOOLS))
        except Exception:  # noqa: BLE001: whatever Jinja2 refuses
            text = None
        cases.append([expression, text])
    golden = {"jinja2": jinja2.__version__, "transformers": transformers.__version__, "messages": MESSAGES, "tools": TOOLS}
    path = pathlib.Path(__file__).resolve().parents[2] / "crates/text/tests/golden/expressions.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps(golden, ensure_ascii=False)[:-1]
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    path.write_text(f'{head}, "cases": [\n{lines}\n]}}\n', encoding="utf-8")
    print(len(cases), "expressions,", sum(text is None for _, text in cases), "refused by Jinja2")


main()
