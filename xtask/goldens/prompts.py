"""Conversations with tools through the chat templates of families that write calls, as transformers renders them: writes
crates/text/tests/golden/prompts.json from the templates in crates/text/tests/golden/prompts/ (ORIGINS.md there says whose they are).

    python3 -m venv venv && venv/bin/pip install jinja2 transformers
    venv/bin/python xtask/goldens/prompts.py
"""

import copy
import datetime
import json
import os
import pathlib

import jinja2
import transformers
from transformers.utils import chat_template_utils

NOW = 1_722_000_000
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Says \"how\" the weather is: rain & sun, <hot> or cold – é",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "A city's name, e.g. Köln"}, "days": {"type": "integer", "minimum": 1, "default": 3},
        "unit": {"type": "string", "enum": ["celsius", "kelvin"]}}, "required": ["city"], "additionalProperties": False}}}
NOTE = {"type": "function", "function": {
    "name": "note", "description": "Keeps a text\nfor later", "parameters": {
        "type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "Tells the time", "parameters": {"type": "object", "properties": {}}}}
TOOLS = [WEATHER, NOTE, CLOCK]
DEEP = {"type": "function", "function": {
    "name": "deep", "description": "", "strict": True, "parameters": {"$defs": {"x": {"type": "null"}}, "type": "object", "properties": {
        "at": {"type": "array", "items": {"type": "number", "maximum": 1e20}, "minItems": 2}, "any": {"anyOf": [{"type": "integer"}, {"const": "é"}]},
        "limits": {"type": ["number", "null"], "default": None}, "place": {"type": "object", "properties": {"inside": {
            "type": "boolean", "default": False}}, "required": ["inside"]}}}}}
NESTED = {"city": "Köln \"am\" Rhein\\\n<b>'s", "days": 2, "limits": None,
          "place": {"at": [1, -2.5, 1e-07, 100000.0, 1e16, 12345678901234567890], "inside": True, "ü": {}, "list": []}}


def user(content):
    return {"role": "user", "content": content}


def says(content, calls=(), **more):
    message = {"role": "assistant", "content": content, **more}
    if calls:
        message["tool_calls"] = [{"id": f"abcdefg0{place}", "type": "function", "function": {"name": name, "arguments": arguments}}
                                 for place, (name, arguments) in enumerate(calls, more.get("first", 1))]
    return message


def gives(content, place=1, name="get_weather"):
    return {"role": "tool", "content": content, "tool_call_id": f"abcdefg0{place}", "name": name}


SYSTEM = {"role": "system", "content": "Be brief."}
ASK, ONE = user("How is it in Köln?"), [("get_weather", {"city": "Köln"})]
TWO = [("get_weather", {"city": "Köln", "days": 1}), ("clock", {})]
RESULTS = [gives('{"degrees": 21.5, "sky": "é"}'), gives("12:00", 2, "clock")]
# Name, messages, tools, whether the answer comes next, what else. `unfinished`: the last message goes on.
CASES = [
    ("ask", [ASK], TOOLS, True, {}),
    ("system, ask", [SYSTEM, ASK], TOOLS, True, {}),
    ("one tool without parameters", [ASK], [CLOCK], True, {}),
    ("one tool without a word", [ASK], [{"type": "function", "function": {"name": "ping"}}], True, {}),
    ("one tool with a deep schema", [ASK], [DEEP], True, {}),
    ("no tools", [ASK], None, True, {}),
    ("system, no tools", [SYSTEM, ASK, says("Fine."), user("And now?")], None, True, {}),
    ("call", [ASK, says("", ONE)], TOOLS, False, {}),
    ("call, nothing said", [ASK, says(None, ONE)], TOOLS, False, {}),
    ("call behind text", [SYSTEM, ASK, says("I look it up.", ONE)], TOOLS, False, {}),
    ("call without arguments", [ASK, says("", [("clock", {})])], TOOLS, False, {}),
    ("result", [ASK, says("", ONE), RESULTS[0]], TOOLS, True, {}),
    ("two calls", [ASK, says("", TWO)], TOOLS, False, {}),
    ("two results", [SYSTEM, ASK, says("", TWO), *RESULTS], TOOLS, True, {}),
    ("letters", [user("\"é\" <b> & '🦀'\\n\t{{ x }} {% y %}"), says("", [("get_weather", NESTED)]), gives("{\"a\": [\"<é>\"]}\n")], TOOLS, True, {}),
    ("turns", [SYSTEM, ASK, says("", ONE), RESULTS[0], says("Mild."), user("Thanks"), says("Welcome."), user("And later?")], TOOLS, True, {}),
    ("calls in turn", [ASK, says("", ONE), RESULTS[0], says("", [("note", {"text": "21.5\n\"mild\""})], first=2),
                       gives("kept", 2, "note")], TOOLS, True, {}),
    ("thoughts", [ASK, says("", ONE, reasoning_content="I need\nthe weather."), RESULTS[0],
                  says("Mild.", reasoning_content="It is 21.5.")], TOOLS, False, {}),
    ("thoughts, then", [ASK, says("", ONE, reasoning_content="I need it."), RESULTS[0], says("Mild.", reasoning_content="21.5."),
                        user("And later?"), says("", ONE, reasoning_content="Again."), RESULTS[0]], TOOLS, True, {}),
    ("no thinking", [ASK], TOOLS, True, {"enable_thinking": False}),
    ("thinking", [SYSTEM, ASK], TOOLS, True, {"enable_thinking": True, "thinking": True}),
    ("parts", [user([{"type": "text", "text": "How is it "}, {"type": "text", "text": "there?"}])], TOOLS, True, {}),
    ("unfinished", [ASK, says("It is e")], None, False, {"unfinished": True}),
    ("unfinished, a letter", [ASK, says("e")], None, False, {"unfinished": True}),
    ("unfinished, spaces", [SYSTEM, ASK, says("\nIt is: ")], TOOLS, False, {"unfinished": True}),
    ("unfinished, said before", [ASK, says("Fine."), user("Fine. Fine."), says("Fine.")], None, False, {"unfinished": True}),
]


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(NOW, datetime.timezone.utc)


os.environ["TZ"] = "UTC"
chat_template_utils.datetime = Fixed
for name, messages, *_ in CASES:
    for message in messages:
        message.pop("first", None)


def render(template, messages, tools, prompt, others):
    """What transformers gives; none if the template refuses. As `apply_chat_template`, keys with nothing are left out."""
    others = dict(others)
    unfinished = others.pop("unfinished", False)
    messages = [{key: value for key, value in message.items() if value is not None} for message in messages]
    if "xml_tools" in template and tools:
        # SmolLM3's name for them. Who serves it gets `tools`, so ours go under both names.
        others["xml_tools"] = tools
    try:
        return chat_template_utils.render_jinja_template(
            [copy.deepcopy(messages)], tools=copy.deepcopy(tools), chat_template=template, add_generation_prompt=prompt,
            continue_final_message=unfinished, **TOKENS, **others)[0][0]
    except Exception:  # noqa: BLE001: whatever the reference refuses
        return None


def between(earlier, text, place):
    first = len(os.path.commonprefix([earlier, text]))
    last = len(os.path.commonprefix([earlier[first:][::-1], text[first:][::-1]]))
    return [place, first, text[first:len(text) - last], last]


def line(value):
    return json.dumps(value, ensure_ascii=False)


def main():
    folder = pathlib.Path(__file__).resolve().parents[2] / "crates/text/tests/golden"
    templates = []
    for path in sorted((folder / "prompts").glob("*.jinja")):
        template, before, texts = path.read_text(encoding="utf-8"), [""], []
        for _, *case in CASES:
            text = render(template, *case)
            if text is None:
                texts.append(None)
                before.append("")
                continue
            # Much is as in an earlier text: which, how much of its beginning and of its end, and what is between.
            texts.append(min((between(earlier, text, place) for place, earlier in enumerate(before)), key=lambda found: len(found[2])))
            before.append(text)
        templates.append(f"{line(path.stem)}: [\n" + ",\n".join(map(line, texts)) + "\n]")
    known = {tool["function"]["name"]: tool for _, _, tools, *_ in CASES for tool in tools or []}
    cases = [{"name": name, "messages": messages, "tools": [tool["function"]["name"] for tool in tools or []], "prompt": prompt,
              "others": others} for name, messages, tools, prompt, others in CASES]
    made = {"jinja2": jinja2.__version__, "transformers": transformers.__version__, "now": NOW, "tokens": TOKENS, "tools": known}
    (folder / "prompts.json").write_text(
        line(made)[:-1] + ', "cases": [\n' + ",\n".join(map(line, cases)) + '\n], "templates": {\n' + ",\n".join(templates) + "\n}}\n",
        encoding="utf-8")
    print(len(templates), "templates,", len(CASES), "conversations")


if __name__ == "__main__":
    main()
