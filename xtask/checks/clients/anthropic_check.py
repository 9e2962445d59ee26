"""The official `anthropic` client for Python: messages, streams, tools, schemas, counts, errors.

    python xtask/checks/clients/anthropic_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import json

import anthropic

from flows import BASE, KEY, MODEL, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import ABOUT, QUESTION, SCHEMAS, SYSTEM, VERDICT, Verdict, call_is_good

client = anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=120)
MESSAGES = [{"role": "user", "content": QUESTION}]
TOOLS = [{"name": name, "description": ABOUT[name], "input_schema": schema} for name, schema in SCHEMAS.items()]
ASKED = {"model": MODEL, "messages": MESSAGES, "max_tokens": 24, "extra_body": {"temperature": 0, "seed": 1}}
ANY = {"type": "any", "disable_parallel_tool_use": True}


def create(**more):
    return client.messages.create(**{**ASKED, **more})


def text_of(message):
    return "".join(block.text for block in message.content if block.type == "text")


def prompt_of(message):
    """Tokens of the prompt: those from a cache are counted apart."""
    usage = message.usage
    return usage.input_tokens + (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)


def calls_of(message):
    return [block for block in message.content if block.type == "tool_use"]


@flow("messages: every field")
def _():
    message = create()
    same(
        (message.type, message.role, message.model, message.id.startswith("msg_")),
        ("message", "assistant", MODEL, True),
    )
    one_of(message.stop_reason, ("end_turn", "max_tokens"))
    same((message.stop_sequence, message.content[0].type), (None, "text"))
    same(text_of(message) != "", True, "there is text")
    same(prompt_of(message) > 0 and 0 < message.usage.output_tokens <= 24, True, f"usage {message.usage}")
    same(text_of(create()), text_of(message), "again")


@flow("messages: system as string and blocks, content as blocks")
def _():
    said = text_of(create(system=SYSTEM["content"]))
    same(
        text_of(create(system=[{"type": "text", "text": SYSTEM["content"], "cache_control": {"type": "ephemeral"}}])),
        said,
    )
    blocks = [{"role": "user", "content": [{"type": "text", "text": QUESTION}]}]
    same(text_of(create(system=SYSTEM["content"], messages=blocks)), said)


@flow("messages: the answer goes back as it came")
def _():
    first = create()
    talk = [*MESSAGES, {"role": "assistant", "content": first.content}, {"role": "user", "content": "And then?"}]
    same(prompt_of(create(messages=talk)) > prompt_of(first), True, "the prompt grew")


@flow("messages: stop_sequences and max_tokens")
def _():
    text = text_of(create())
    cut = create(stop_sequences=[text[5:9]])
    same(
        (text_of(cut), cut.stop_reason, cut.stop_sequence), (text[: text.index(text[5:9])], "stop_sequence", text[5:9])
    )
    short = create(max_tokens=3, extra_body={"ignore_eos": True, "temperature": 0})
    same((short.stop_reason, short.usage.output_tokens), ("max_tokens", 3))


@flow("stream: events in order, the whole at the end")
def _():
    whole, events = create(), [event for event in create(stream=True)]
    names = [event.type for event in events if event.type != "ping"]
    steps = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    same(
        steps,
        [
            "message_start",
            "content_block_start",
            "content_block_delta",
            "content_block_stop",
            "message_delta",
            "message_stop",
        ],
    )
    same("".join(e.delta.text for e in events if e.type == "content_block_delta"), text_of(whole), "deltas")
    [last] = [event for event in events if event.type == "message_delta"]
    same((last.delta.stop_reason, last.usage.output_tokens), (whole.stop_reason, whole.usage.output_tokens))


@flow("stream: the helper")
def _():
    whole = create()
    with client.messages.stream(**ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    same((text, text_of(final), final.stop_reason), (text_of(whole), text_of(whole), whole.stop_reason))
    same(prompt_of(final), prompt_of(whole), "tokens of the prompt")


@flow("tools: any, tool, auto, none")
def _():
    for choice, names in (
        (ANY, ("weather", "clock")),
        ({"type": "tool", "name": "clock", "disable_parallel_tool_use": True}, ("clock",)),
    ):
        message = create(tools=TOOLS, tool_choice=choice, max_tokens=200)
        [call] = calls_of(message)
        same((message.stop_reason, bool(call.id)), ("tool_use", True))
        call_is_good(call.name, call.input, names)
    same(calls_of(create(tools=TOOLS, tool_choice={"type": "none"})), [], "calls with none")
    for call in calls_of(create(tools=TOOLS, tool_choice={"type": "auto"})):
        kind(call.input, dict)


@flow("tools: streamed input is the whole one")
def _():
    more = {"tools": TOOLS, "tool_choice": ANY, "max_tokens": 200}
    [whole] = calls_of(create(**more))
    pieces = [
        e.delta.partial_json
        for e in create(**more, stream=True)
        if e.type == "content_block_delta" and e.delta.type == "input_json_delta"
    ]
    same(json.loads("".join(pieces)), whole.input)
    with client.messages.stream(**{**ASKED, **more}) as stream:
        final = stream.get_final_message()
    [call] = calls_of(final)
    same((call.name, call.input, final.stop_reason), (whole.name, whole.input, "tool_use"))


@flow("tools: a loop with results, string, blocks and error")
def _():
    message = create(tools=TOOLS, tool_choice=ANY, max_tokens=200)
    [call] = calls_of(message)
    for more in (
        {"content": "sun"},
        {"content": [{"type": "text", "text": "sun"}]},
        {"content": "broken", "is_error": True},
    ):
        result = {"type": "tool_result", "tool_use_id": call.id, **more}
        talk = [*MESSAGES, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
        last = create(messages=talk, tools=TOOLS, tool_choice={"type": "none"})
        same(calls_of(last), [], "calls at the end")
        same(prompt_of(last) > prompt_of(create()), True, "the prompt grew")


@flow("output_config: a schema; parse: a pydantic model")
def _():
    form = {"format": {"type": "json_schema", "schema": VERDICT}}
    valid(json.loads(text_of(create(output_config=form, max_tokens=200))), VERDICT)
    kind(client.messages.parse(**{**ASKED, "max_tokens": 200}, output_format=Verdict).parsed_output, Verdict)


@flow("count_tokens: is what the prompt has")
def _():
    for more in ({}, {"system": SYSTEM["content"]}, {"tools": TOOLS}):
        counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES, **more)
        same(counted.input_tokens, prompt_of(create(**more, max_tokens=1)), f"tokens with {list(more)}")


@flow("async: together, streamed, left")
@in_loop
async def _():
    async with anthropic.AsyncAnthropic(base_url=BASE, api_key=KEY, max_retries=0, timeout=120) as waiting:
        answers = await asyncio.gather(*(waiting.messages.create(**ASKED) for _ in range(3)))
        same(len({text_of(answer) for answer in answers}), 1, "different answers")
        async with waiting.messages.stream(**ASKED) as stream:
            same("".join([text async for text in stream.text_stream]), text_of(answers[0]), "streamed")
        async with waiting.messages.stream(**{**ASKED, "max_tokens": 500}) as stream:
            await anext(aiter(stream.text_stream))
        await waiting.messages.create(**ASKED)


@flow("errors: Anthropic's classes and form")
def _():
    def told(error, kind_of_error):
        same((error.body["type"], error.body["error"]["type"]), ("error", kind_of_error), "the body")

    told(refused(anthropic.NotFoundError, lambda: create(model="nobody"), status_code=404), "not_found_error")
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    table = (
        {"messages": []},
        {"max_tokens": 0},
        {"extra_body": {"temperature": 3}},
        {"messages": [{"role": "king", "content": "x"}]},
        {"messages": [{"role": "user", "content": [picture]}]},
        {"messages": [{"role": "user", "content": "word " * 20000}]},
        {"tools": TOOLS, "tool_choice": {"type": "tool", "name": "nobody"}},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
    )
    for more in table:
        for stream in (False, True):
            told(
                refused(anthropic.BadRequestError, lambda: create(**more, stream=stream), status_code=400),
                "invalid_request_error",
            )
    refused(anthropic.APITimeoutError, lambda: client.with_options(timeout=0.001).messages.create(**ASKED))


if __name__ == "__main__":
    run_all("anthropic")
