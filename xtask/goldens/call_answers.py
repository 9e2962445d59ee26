"""Answers of models that call tools, in every syntax; `calls.py` reads them with vLLM's parsers."""

import json

WEATHER = ("get_weather", {"city": "Köln", "days": 3})
LETTERS = ("get_weather", {"city": "Köln \"am\" Rhein\\ <b>'s, [x](y) {z}; 🦀\nat 5", "tags": ["a", "}]"]})
DEEP = ("deep", {"note": None, "on": True, "x": -0.5, "at": {"a": [1, 2.5, {"b": None}], "ü": {}, "t": "\"'"}})
PING = ("ping", {})


def dumped(value):
    return json.dumps(value, ensure_ascii=False)


def json_object(key="arguments"):
    return lambda name, arguments: f'{{"name": {dumped(name)}, "{key}": {dumped(arguments)}}}'


def listed(open, close):
    return lambda calls: f"{open}[{', '.join(json_object()(*call) for call in calls)}]{close}"


def pythonic(name, arguments, words=repr):
    return f"{name}({', '.join(f'{key}={words(value)}' for key, value in arguments.items())})"


def tags(key, value, open, close):
    """Strings as they are, others as JSON."""
    def spell(name, arguments):
        members = (key(k) + value(v if isinstance(v, str) else dumped(v)) for k, v in arguments.items())
        return open(name) + "".join(members) + close
    return spell


def gemma(quote):
    def value(v):
        if isinstance(v, str):
            return quote + v + quote
        if isinstance(v, dict):
            return "{" + ",".join(f"{k}:{value(x)}" for k, x in v.items()) + "}"
        return "[" + ",".join(map(value, v)) + "]" if isinstance(v, list) else dumped(v)
    return lambda name, arguments: f"call:{name}" + value(arguments)


def each(spell, before="", behind="", between=""):
    return lambda calls: between.join(before + spell(*call) + behind for call in calls)


SEP = "«<｜tool▁sep｜>»"
# Name of vLLM's parser: name of our syntax, how calls are written, the markers.
SYNTAXES = {
    "hermes": ("hermes", each(json_object(), "«<tool_call>»\n", "\n«</tool_call>»", "\n"), ["<tool_call>", "</tool_call>"]),
    "granite4": ("hermes", each(json_object(), "«<tool_call>»\n", "\n«</tool_call>»", "\n"), ["<tool_call>", "</tool_call>"]),
    "qwen3_coder": ("qwen3_coder", each(
        tags(lambda k: f"<parameter={k}>\n", lambda v: f"{v}\n</parameter>\n", lambda n: f"<function={n}>\n", "</function>"),
        "«<tool_call>»\n", "\n«</tool_call>»", "\n"), ["<tool_call>", "</tool_call>"]),
    "llama3_json": ("llama3_json", each(json_object("parameters"), between="; "), ["<|python_tag|>"]),
    "pythonic": ("pythonic", lambda calls: f"[{', '.join(pythonic(*call) for call in calls)}]", []),
    "llama4_pythonic": ("llama4_pythonic", lambda calls: f"«<|python_start|>»[{', '.join(pythonic(*c) for c in calls)}]«<|python_end|>»",
                        ["<|python_start|>", "<|python_end|>"]),
    "olmo3": ("olmo3", lambda calls: "<function_calls>" + "\n".join(pythonic(*c, words=dumped) for c in calls) + "</function_calls>", []),
    "lfm2": ("lfm2", lambda calls: f"«<|tool_call_start|>»[{', '.join(pythonic(*c) for c in calls)}]«<|tool_call_end|>»",
             ["<|tool_call_start|>", "<|tool_call_end|>"]),
    # Up to v7, and from v11 on.
    "mistral": ("mistral", listed("«[TOOL_CALLS]»", ""), ["[TOOL_CALLS]"]),
    "mistral 11": ("mistral", each(lambda name, arguments: f"«[TOOL_CALLS]»{name}«[ARGS]»{dumped(arguments)}"), ["[TOOL_CALLS]", "[ARGS]"]),
    "granite": ("granite", listed("«<|tool_call|>»", ""), ["<|tool_call|>"]),
    "phi4_mini_json": ("phi4", listed("functools", ""), []),
    "functiongemma": ("function_gemma", each(gemma("<escape>"), "<start_function_call>", "<end_function_call>"), []),
    "gemma4": ("gemma4", each(gemma("«<|\"|>»"), "«<|tool_call>»", "«<tool_call|>»"), ["<|tool_call>", "<tool_call|>", "<|\"|>"]),
    "deepseek_v3": ("deepseek_v3", lambda calls: "«<｜tool▁calls▁begin｜>»" + each(
        lambda name, arguments: f"function{SEP}{name}\n```json\n{dumped(arguments)}\n```", "«<｜tool▁call▁begin｜>»", "«<｜tool▁call▁end｜>»",
        "\n")(calls) + "«<｜tool▁calls▁end｜>»", [f"<｜tool▁{name}｜>" for name in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")]),
    "deepseek_v31": ("deepseek_v31", lambda calls: "«<｜tool▁calls▁begin｜>»" + each(
        lambda name, arguments: f"{name}{SEP}{dumped(arguments)}", "«<｜tool▁call▁begin｜>»", "«<｜tool▁call▁end｜>»")(calls)
        + "«<｜tool▁calls▁end｜>»", [f"<｜tool▁{name}｜>" for name in ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")]),
    "kimi_k2": ("kimi_k2", lambda calls: "«<|tool_calls_section_begin|>»" + "".join(
        f"«<|tool_call_begin|>»functions.{name}:{place}«<|tool_call_argument_begin|>»{dumped(arguments)}«<|tool_call_end|>»"
        for place, (name, arguments) in enumerate(calls)) + "«<|tool_calls_section_end|>»",
        [f"<|tool_{name}|>" for name in ("calls_section_begin", "calls_section_end", "call_begin", "call_argument_begin", "call_end")]),
    "glm45": ("glm4", each(tags(
        lambda k: f"«<arg_key>»{k}«</arg_key>»\n", lambda v: f"«<arg_value>»{v}«</arg_value>»\n", lambda n: n + "\n", ""),
        "«<tool_call>»", "«</tool_call>»", "\n"), ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]),
    "glm47": ("glm4", each(tags(
        lambda k: f"«<arg_key>»{k}«</arg_key>»", lambda v: f"«<arg_value>»{v}«</arg_value>»", lambda n: n, ""),
        "«<tool_call>»", "«</tool_call>»"), ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"]),
    "minimax_m2": ("minimax_m2", lambda calls: "«<minimax:tool_call>»\n" + each(tags(
        lambda k: f"<parameter name=\"{k}\">", lambda v: f"{v}</parameter>\n", lambda n: f"<invoke name=\"{n}\">\n", "</invoke>\n"))(calls)
        + "«</minimax:tool_call>»", ["<minimax:tool_call>", "</minimax:tool_call>"]),
}
MARKERS = {name: markers for name, (_, _, markers) in SYNTAXES.items()}



def bare(answer):
    return answer.replace("«", "").replace("»", "")


def usual(spell, parser):
    """What models write in every syntax: what it is, the answer, and what is meant by it."""
    yield "a call", spell([WEATHER]), "", [WEATHER]
    yield "two calls", spell([WEATHER, PING]), "", [WEATHER, PING]
    yield "three calls", spell([PING, WEATHER, WEATHER]), "", [PING, WEATHER, WEATHER]
    before, behind = "I look it up: a < b.\n\n" + spell([WEATHER]), spell([WEATHER]) + " Done."
    # Without a mark, only an answer that is a call is one.
    yield "text before", before, *((before, []) if parser in ("llama3_json", "pythonic") else ("I look it up: a < b.", [WEATHER]))
    yield "text behind", behind, *((behind, []) if parser == "pythonic" else ("Done.", [WEATHER]))
    yield "letters", spell([LETTERS]), "", [LETTERS]
    yield "nested", spell([DEEP]), "", [DEEP]
    yield "a tool that isn't there", spell([("nope", {"a": "b"})]), "", [("nope", {"a": "b"})]
    nope = ("get_weather", {"city": "x", "nope": "y"})
    yield "a parameter that isn't there", spell([nope]), "", [nope]
    yield "only text", "No calls [here], {just} <text> of f(x).", "No calls [here], {just} <text> of f(x).", []


def broken(spell):
    """What is no call: it comes back as it was written. Also a call before that: it stands."""
    answer = spell([WEATHER])
    for what, end in [("cut in an argument", answer.index("Köln") + 2), ("cut behind the name", answer.index("get_weather") + 11)]:
        yield what, "So: " + answer[:end], bare("So: " + answer[:end]), []
    yield "only the opening", "So: " + answer[:answer.index("get_weather")], bare("So: " + answer[:answer.index("get_weather")]), []


# A call, then one that is cut: the text of the second, by the parser.
def second(spell, place):
    both = spell([WEATHER, ("deep", {"note": "half"})])
    cut = both[:both.index("half") + 2]
    return "cut in the second call", cut, bare(cut[cut.index(place, 1):]) if place else bare(cut), [WEATHER] if place else []


SECOND = {"hermes": "«<tool_call>»\n{\"name\": \"deep", "granite4": "«<tool_call>»\n{\"name\": \"deep", "qwen3_coder": "«<tool_call>»\n<function=deep",
          "mistral 11": "«[TOOL_CALLS]»deep", "functiongemma": "<start_function_call>call:deep", "gemma4": "«<|tool_call>»call:deep",
          "deepseek_v3": "«<｜tool▁call▁begin｜>»function«<｜tool▁sep｜>»deep", "deepseek_v31": "«<｜tool▁call▁begin｜>»deep",
          "kimi_k2": "«<|tool_call_begin|>»functions.deep", "glm45": "«<tool_call>»deep", "glm47": "«<tool_call>»deep"}


def json_forms(open, close, key, listed):
    """Objects with a name and arguments, in forms that models write them in, and in some that are none."""
    wrap = (lambda text: f"{open}[{text}]{close}") if listed else (lambda text: f"{open}{text}{close}")
    args, mark = '{"city": "x"}', bare(open).strip() or "<|python_tag|>"
    good = [
        ("keys the other way round", f'{{"{key}": {args}, "name": "get_weather"}}', {"city": "x"}),
        ("the other key", f'{{"name": "get_weather", "{"arguments" if key == "parameters" else "parameters"}": {args}}}', {"city": "x"}),
        ("arguments as text", f'{{"name": "get_weather", "{key}": {json.dumps(args)}}}', {"city": "x"}),
        ("more keys", f'{{"id": 1, "type": "function", "name": "get_weather", "{key}": {args}, "x": [{{}}]}}', {"city": "x"}),
        ("white space", f'\n {{ "name" : "get_weather" ,\n "{key}" :\t{{ "city" : "x" }} }}\n', {"city": "x"}),
        ("marks in a string", f'{{"name": "get_weather", "{key}": {{"city": "{mark} }}]}} {bare(close).strip()} {{"}}}}',
         {"city": mark + " }]} " + bare(close).strip() + " {"}),
        ("escapes", f'{{"name": "get_weather", "{key}": {{"city": "\\u00e9\\ud83e\\udd80\\/\\n"}}}}', {"city": "é🦀/\n"}),
        ("numbers", f'{{"name": "deep", "{key}": {{"x": 1e-7, "at": {{"n": [1.0, 12345678901234567890, -1]}}}}}}',
         {"x": 1e-07, "at": {"n": [1.0, 12345678901234567890, -1]}}),
    ]
    for what, text, arguments in good:
        yield what, wrap(text), "", [("deep" if what == "numbers" else "get_weather", arguments)]
    for what, text in [
        ("a comma too many", f'{{"name": "get_weather", "{key}": {{"city": "x",}}}}'), ("no value", f'{{"name": "get_weather", "{key}": {{"city": }}}}'),
        ("single quotes", f"{{'name': 'get_weather', '{key}': {{'city': 'x'}}}}"), ("bare keys", f'{{name: "get_weather", {key}: {args}}}'),
        ("a brace too few", f'{{"name": "get_weather", "{key}": {{"city": "x"}}'), ("no name", f'{{"{key}": {args}}}'),
        ("arguments in a list", f'{{"name": "get_weather", "{key}": ["x"]}}'), ("a name that is none", f'{{"name": 5, "{key}": {args}}}'),
        ("a raw line end", f'{{"name": "get_weather", "{key}": {{"city": "a\nb"}}}}'), ("half a letter", f'{{"name": "ping", "{key}": {{"a": "\\ud83e"}}}}'),
        ("not a number", f'{{"name": "ping", "{key}": {{"a": NaN}}}}'), ("no call", '{"city": "x"}'), ("empty", ""), ("prose", "as you like"),
    ]:
        yield what, wrap(text), bare(wrap(text)), []


def pythonic_forms(open, close):
    wrap = lambda text: f"{open}{text}{close}"  # noqa: E731
    for what, text, arguments in [
        ("quotation marks", """get_weather(city="it's", unit='a "b"')""", {"city": "it's", "unit": 'a "b"'}),
        ("escapes", r"get_weather(city='it\'s \u00e9\x41\n\\')", {"city": "it's éA\n\\"}),
        ("words of JSON", "deep(note=null, on=true)", {"note": None, "on": True}),
        ("nested", "deep(at={'a': [1, -2.5, {'b': None}], 'c': (1, 2)}, on=False)", {"at": {"a": [1, -2.5, {"b": None}], "c": [1, 2]}, "on": False}),
        ("white space", "get_weather( city = 'x' ,\n days = 3 )", {"city": "x", "days": 3}),
        ("a comma at the end", "get_weather(city='x',)", {"city": "x"}),
        ("words of Python as names", "deep(from='x', class=1, in=None)", {"from": "x", "class": 1, "in": None}),
        ("zeros in front", "get_weather(city='07', days=07)", {"city": "07", "days": 7}),
        ("a raw line end", "get_weather(city='a\nb')", {"city": "a\nb"}),
        ("numbers", "deep(x=1_000.5, at=[0x1F, -2, 1e3, .5, 12345678901234567890])", {"x": 1000.5, "at": [31, -2, 1000.0, 0.5, 12345678901234567890]}),
        ("marks in a string", f"get_weather(city='{bare(open)}a)]{bare(close)}')", {"city": f"{bare(open)}a)]{bare(close)}"}),
    ]:
        yield what, wrap(text), "", [(text[:text.index("(")], arguments)]
    for what, text in [
        ("an argument without a name", "get_weather('x')"), ("a name for a value", "get_weather(city=x)"), ("no value", "get_weather(city=)"),
        ("an open string", "get_weather(city='x)"), ("quotes within quotes", "get_weather(city='sed -n '3,4p' f')"), ("a sum", "get_weather(days=1+2)"), ("a call within", "get_weather(city=f())"),
        ("not closed", "get_weather(city='x'"), ("empty", ""), ("prose", "as you like"), ("a list", "1, 2"), ("an endless number", "deep(x=1e999)"),
    ]:
        yield what, wrap(text), bare(wrap(text)), []


def tagged_forms(call, key, value, close, frame):
    """Values between tags. `frame`: a newline on each side of a value is none of it."""
    def one(*members, name="get_weather"):
        return call[0] + name + call[1] + "".join(key[0] + k + key[1] + value[0] + v + value[1] for k, v in members) + close

    edge = "\n" if frame else ""
    for what, answer, name, arguments in [
        ("a number for a text", one(("city", f"{edge}12{edge}")), "get_weather", {"city": "12"}),
        ("a text for a number", one(("days", f"{edge}many{edge}")), "get_weather", {"days": "many"}),
        ("null", one(("note", f"{edge}null{edge}"), name="deep"), "deep", {"note": None}),
        ("lines", one(("city", f"{edge} a\n\n  b \"c\" \\ {edge}")), "get_weather", {"city": " a\n\n  b \"c\" \\ "}),
        ("an empty text", one(("city", edge + edge)), "get_weather", {"city": ""}),
        ("JSON", one(("at", edge + '{"a": ["}", 1.0]}' + edge), ("on", f"{edge}true{edge}"), ("x", f"{edge}1e-7{edge}"), name="deep"), "deep",
         {"at": {"a": ["}", 1.0]}, "on": True, "x": 1e-07}),
        ("words of Python", one(("on", f"{edge}True{edge}"), ("at", edge + "{'a': None}" + edge), name="deep"), "deep", {"on": True, "at": {"a": None}}),
        ("tags in a text", one(("city", f"{edge}<b>x</b> <x=y> &amp;{edge}")), "get_weather", {"city": "<b>x</b> <x=y> &amp;"}),
        ("a parameter twice", one(("city", f"{edge}a{edge}"), ("city", f"{edge}b{edge}")), "get_weather", {"city": "a"}),
    ]:
        yield what, answer, "", [(name, arguments)]
    for what, answer in [("empty", one(name="")), ("prose within", call[0] + "get_weather" + call[1] + "as you like" + close)]:
        yield what, answer, bare(answer), []


def gemma_forms(open, close, quote):
    wrap = lambda text: f"{open}call:{text}{close}"  # noqa: E731
    for what, text, name, arguments in [
        ("bare values", "deep{note:null,on:false,x:1e3}", "deep", {"note": None, "on": False, "x": 1000.0}),
        ("quoted numbers", f"get_weather{{days:{quote}3{quote},city:{quote}3{quote}}}", "get_weather", {"days": 3, "city": "3"}),
        ("marks of JSON in a text", f"get_weather{{city:{quote}a, {{b}}: \"c\" ] \\\n{quote}}}", "get_weather", {"city": 'a, {b}: "c" ] \\\n'}),
        ("quoted keys", f"deep{{at:{{{quote}a b{quote}:1}}}}", "deep", {"at": {"a b": 1}}),
        ("an empty text", f"get_weather{{city:{quote}{quote}}}", "get_weather", {"city": ""}),
    ]:
        yield what, wrap(text), "", [(name, arguments)]
    for what, text in [("no value", "get_weather{city:}"), ("no colon", "get_weather{city 1}"), ("no name", "{city:1}"), ("an open text", f"get_weather{{city:{quote}x}}"),
                       ("empty", ""), ("prose", "as you like")]:
        yield what, wrap(text), bare(wrap(text)), []


def marked_forms(open, separator, close, fence=("", "")):
    """A name, a mark, and JSON."""
    wrap = lambda name, text: f"{open}{name}{separator}{fence[0]}{text}{fence[1]}{close}"  # noqa: E731
    marks = bare(separator + close).strip()
    for what, text, arguments in [
        ("white space", '{ "city" :\n"x" }', {"city": "x"}), ("marks in a string", '{"city": "{}] ' + marks + '"}', {"city": "{}] " + marks}),
        ("escapes", '{"city": "\\u00e9\\ud83e\\udd80\\/"}', {"city": "é🦀/"}), ("numbers", '{"x": 1e-7, "n": 12345678901234567890}', {"x": 1e-07, "n": 12345678901234567890}),
    ]:
        yield what, wrap("get_weather", text), "", [("get_weather", arguments)]
    for what, name, text in [
        ("a comma too many", "get_weather", '{"city": "x",}'), ("no value", "get_weather", '{"city": }'), ("a list", "get_weather", "[1]"),
        ("a brace too few", "get_weather", '{"at": {"a": 1}'), ("no name", "", '{"city": "x"}'), ("prose", "get_weather", "as you like"),
    ]:
        yield what, wrap(name, text), bare(wrap(name, text)), []
    # Where the call's end has a mark of its own, nothing before it is no arguments; else the answer may be cut there.
    ends = bool(close) and not fence[0]
    yield "nothing", wrap("get_weather", ""), *(("", [("get_weather", {})]) if ends else (bare(wrap("get_weather", "")), []))


FORMS = {
    "hermes": json_forms("«<tool_call>»\n", "\n«</tool_call>»", "arguments", False),
    "llama3_json": json_forms("", "", "parameters", False),
    "mistral": json_forms("«[TOOL_CALLS]»", "", "arguments", True),
    "granite": json_forms("«<|tool_call|>»", "", "arguments", True),
    "phi4_mini_json": json_forms("functools", "", "arguments", True),
    "pythonic": pythonic_forms("[", "]"),
    "llama4_pythonic": pythonic_forms("«<|python_start|>»[", "]«<|python_end|>»"),
    "olmo3": pythonic_forms("<function_calls>", "</function_calls>"),
    "lfm2": pythonic_forms("«<|tool_call_start|>»[", "]«<|tool_call_end|>»"),
    "qwen3_coder": tagged_forms(("«<tool_call>»\n<function=", ">\n"), ("<parameter=", ">"), ("", "</parameter>\n"), "</function>\n«</tool_call>»", True),
    "glm45": tagged_forms(("«<tool_call>»", "\n"), ("«<arg_key>»", "«</arg_key>»\n"), ("«<arg_value>»", "«</arg_value>»\n"), "«</tool_call>»", False),
    "minimax_m2": tagged_forms(("«<minimax:tool_call>»\n<invoke name=\"", "\">\n"), ("<parameter name=\"", "\">"), ("", "</parameter>\n"),
                               "</invoke>\n«</minimax:tool_call>»", False),
    "functiongemma": gemma_forms("<start_function_call>", "<end_function_call>", "<escape>"),
    "gemma4": gemma_forms("«<|tool_call>»", "«<tool_call|>»", "«<|\"|>»"),
    "mistral 11": marked_forms("«[TOOL_CALLS]»", "«[ARGS]»", ""),
    "deepseek_v3": marked_forms("«<｜tool▁calls▁begin｜>»«<｜tool▁call▁begin｜>»function«<｜tool▁sep｜>»", "\n", "«<｜tool▁call▁end｜>»«<｜tool▁calls▁end｜>»",
                                ("```json\n", "\n```")),
    "deepseek_v31": marked_forms("«<｜tool▁calls▁begin｜>»«<｜tool▁call▁begin｜>»", SEP, "«<｜tool▁call▁end｜>»«<｜tool▁calls▁end｜>»"),
    "kimi_k2": marked_forms("«<|tool_calls_section_begin|>»«<|tool_call_begin|>»functions.", ":0«<|tool_call_argument_begin|>»",
                            "«<|tool_call_end|>»«<|tool_calls_section_end|>»"),
}
ANSWERS = []
for parser, (syntax, spell, _) in SYNTAXES.items():
    cases = list(usual(spell, parser))
    # The same syntax with other white space: the usual is enough.
    if parser not in ("granite4", "glm47"):
        cases += [*broken(spell), second(spell, SECOND.get(parser)), *FORMS[parser]]
    ANSWERS += [(parser, syntax, *case) for case in cases]

# Where we differ from vLLM, and its answer isn't wrong by itself: why.
REASONS = {
    "a parameter twice": "the first one stays: it may be streamed already",
    "words of Python": "a literal that fits the schema is read as what it is",
    "arguments as text": "arguments are an object, written within a text too",
    "the other key": "`parameters` is as good as `arguments`",
    "a tool that isn't there": "who calls a tool that isn't there must be told: nothing of it may be lost",
    "marks in a string": "marks within a string are the string's",
    "white space": "white space changes nothing",
    "letters": "brackets within a string are the string's",
    "nested": "numbers and null are no texts",
    "more keys": "keys that say nothing of the call change nothing",
    "words of Python as names": "parameters have any names",
    "zeros in front": "a day 07 is meant as 7",
    "a raw line end": "a line end says itself what it is",
    "quotes within quotes": "where the text ends would be a guess",
    ("phi4_mini_json", "numbers"): "the list ends with its bracket, not with the first one",
    "an argument without a name": "nothing says which parameter it is",
    "quoted keys": "marks around a key are none of it",
    "no colon": "it is no argument",
    "an open text": "the text has no end",
    "prose": "it is no name",
    "prose within": "it is no argument, and nothing may be lost",
    "no value": "a value is missing",
    "cut in the second call": "the call before it stands, and what is cut is text",
    ("llama3_json", "text before"): "an object amid text may be an example",
    ("functiongemma", ""): "values without marks are values too",
    ("llama4_pythonic", "text before"): "text may stand before the mark",
    ("llama4_pythonic", "text behind"): "text may stand behind the mark",
    ("phi4_mini_json", "nested"): "brackets within the arguments don't end the list",
    ("mistral 11", "nothing"): "nothing says that the answer isn't cut there",
    ("granite", "a brace too few"): "it is no JSON",
    ("gemma4", "bare values"): "a number that isn't an integer is one too",
}
