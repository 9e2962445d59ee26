"""The official `openai` client's Responses API: whole, streamed, tools, schemas, and what is stored.

    python xtask/checks/clients/openai_responses.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import json

import openai

from flows import KEY, MODEL, V1, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import FLAT_TOOLS, QUESTION, REPORT, VERDICT, Clock, Report, Verdict, Weather, call_is_good, object_of

client = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)
ASKED = {"model": MODEL, "input": QUESTION, "max_output_tokens": 24, "temperature": 0}
CALLING = {"tools": FLAT_TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_output_tokens": 200}


def create(**more):
    return client.responses.create(**{**ASKED, **more})


def calls_of(response):
    return [item for item in response.output if item.type == "function_call"]


def text_format(name, schema):
    return {"format": {"type": "json_schema", "name": name, "schema": schema, "strict": True}}


@flow("create: every field of a response")
def _():
    response = create(metadata={"a": "b"}, user="anna", top_p=0.9)
    same((response.object, response.id.startswith("resp_"), response.model), ("response", True, MODEL))
    one_of(response.status, ("completed", "incomplete"))
    [item] = [item for item in response.output if item.type == "message"]
    same((item.role, item.id.startswith("msg_"), item.content[0].type), ("assistant", True, "output_text"))
    same(response.output_text, item.content[0].text)
    same(response.output_text != "", True, "there is text")
    usage = response.usage
    same(usage.total_tokens, usage.input_tokens + usage.output_tokens, "total tokens")
    kind(usage.input_tokens_details.cached_tokens, int)
    kind(usage.output_tokens_details.reasoning_tokens, int)
    same((response.metadata, response.temperature, response.top_p), ({"a": "b"}, 0, 0.9))
    same((response.tool_choice, response.tools, response.error, response.parallel_tool_calls), ("auto", [], None, True))
    same((response.max_output_tokens, response.previous_response_id), (24, None))


@flow("input: a string, messages and parts are one")
def _():
    text = create().output_text
    part = [{"type": "input_text", "text": QUESTION}]
    for asked in ([{"role": "user", "content": QUESTION}], [{"type": "message", "role": "user", "content": part}]):
        same(create(input=asked).output_text, text)


@flow("instructions are a system message")
def _():
    said = create(instructions="You are a pirate.").output_text
    for role in ("system", "developer"):
        messages = [{"role": role, "content": "You are a pirate."}, {"role": "user", "content": QUESTION}]
        same(create(input=messages).output_text, said, role)


@flow("is what chat completions answers")
def _():
    messages = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(model=MODEL, messages=messages, max_completion_tokens=24, temperature=0)
    same(create().output_text, chat.choices[0].message.content)


@flow("max_output_tokens: an incomplete response says why")
def _():
    response = create(max_output_tokens=16, extra_body={"ignore_eos": True})
    same((response.status, response.incomplete_details.reason), ("incomplete", "max_output_tokens"))
    same(response.usage.output_tokens, 16, "output tokens")


@flow("stream: events in order, the whole at the end")
def _():
    whole = create()
    events = list(create(stream=True))
    same([event.sequence_number for event in events], list(range(len(events))), "sequence numbers")
    names = [event.type for event in events]
    steps = [name for at, name in enumerate(names) if at == 0 or names[at - 1] != name]
    ending = {"completed": "response.completed", "incomplete": "response.incomplete"}[whole.status]
    same(
        steps,
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            ending,
        ],
        "events",
    )
    same("".join(e.delta for e in events if e.type == "response.output_text.delta"), whole.output_text, "deltas")
    last = events[-1].response
    same(
        (last.output_text, last.status, last.usage.total_tokens),
        (whole.output_text, whole.status, whole.usage.total_tokens),
    )
    same({e.response.id for e in events if hasattr(e, "response")}, {last.id}, "ids")
    same({e.item_id for e in events if getattr(e, "item_id", None)}, {last.output[0].id}, "ids of items")


@flow("stream: the helper")
def _():
    with client.responses.stream(**{**ASKED, "max_output_tokens": 200}, text_format=Verdict) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    same(final.output_text, deltas)
    kind(final.output_parsed, Verdict, "parsed")


@flow("text.format: json_schema, whole and streamed")
def _():
    for name, schema in (("verdict", VERDICT), ("report", REPORT)):
        whole = create(text=text_format(name, schema), max_output_tokens=200)
        same(whole.status, "completed", f"status after {whole.output_text!r}")
        valid(json.loads(whole.output_text), schema, name)
        same(whole.text.format.type, "json_schema", "the format told back")
        events = create(text=text_format(name, schema), max_output_tokens=200, stream=True)
        same("".join(e.delta for e in events if e.type == "response.output_text.delta"), whole.output_text, "streamed")


@flow("text.format: json_object")
def _():
    response = create(
        input="Answer in JSON: who is the fox?", text={"format": {"type": "json_object"}}, max_output_tokens=96
    )
    if response.status == "completed":
        object_of(response.output_text, "the answer")
    same(response.output_text.lstrip()[:1], "{", "the first character")


@flow("parse: a pydantic model")
def _():
    for model in (Verdict, Report):
        response = client.responses.parse(**{**ASKED, "max_output_tokens": 200}, text_format=model)
        kind(response.output_parsed, model, "parsed")


@flow("tools: required, named, allowed, none")
def _():
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "clock"}]}
    named = {"type": "function", "name": "weather"}
    table = (("required", ("weather", "clock")), (named, ("weather",)), (allowed, ("clock",)))
    for choice, names in table:
        response = create(**{**CALLING, "tool_choice": choice})
        [call] = calls_of(response)
        same((call.id.startswith("fc_"), bool(call.call_id), call.status), (True, True, "completed"))
        call_is_good(call.name, call.arguments, names)
    same(calls_of(create(**{**CALLING, "tool_choice": "none", "max_output_tokens": 16})), [], "calls with none")


@flow("tools: streamed arguments are the whole ones")
def _():
    [whole] = calls_of(create(**CALLING))
    events = list(create(**CALLING, stream=True))
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    [done] = [e for e in events if e.type == "response.function_call_arguments.done"]
    same(("".join(deltas), done.arguments), (whole.arguments, whole.arguments))
    [added] = [e.item for e in events if e.type == "response.output_item.added"]
    [call] = calls_of(events[-1].response)
    same((added.name, added.call_id, added.id), (call.name, call.call_id, call.id))


@flow("tools: pydantic_function_tool, parsed")
def _():
    tools = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
    [call] = calls_of(client.responses.parse(**{**ASKED, **CALLING, "tools": tools}))
    kind(call.parsed_arguments, (Weather, Clock), "parsed")


@flow("tools: a loop by previous_response_id")
def _():
    first = create(**CALLING)
    [call] = calls_of(first)
    result = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    last = {**CALLING, "tool_choice": "none", "max_output_tokens": 24}
    second = create(**{**last, "input": result, "previous_response_id": first.id})
    same((second.previous_response_id, calls_of(second)), (first.id, []))
    same(second.usage.input_tokens > 10 and second.output_text is not None, True, "answered")


@flow("tools: a loop by hand is the loop by the store")
def _():
    first = create(**CALLING)
    [call] = calls_of(first)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "sun"}
    last = {**CALLING, "tool_choice": "none", "max_output_tokens": 24}
    stored = create(**{**last, "input": [result], "previous_response_id": first.id})
    talk = [{"role": "user", "content": QUESTION}, *first.output, result]
    by_hand = create(**{**last, "input": talk, "store": False})
    same(by_hand.output_text, stored.output_text)
    same(by_hand.usage.input_tokens, stored.usage.input_tokens, "input tokens")


@flow("previous_response_id: carries the talk, not the instructions")
def _():
    first = create(instructions="You are a pirate.")
    second = create(input="And then?", previous_response_id=first.id)
    talk = [
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And then?"},
    ]
    same(second.output_text, create(input=talk).output_text)
    third = create(input="And then?", previous_response_id=second.id)
    same(third.usage.input_tokens > second.usage.input_tokens, True, "the chain grows")


@flow("stored: retrieve, input_items, delete")
def _():
    response = create()
    again = client.responses.retrieve(response.id)
    same((again.id, again.output_text, again.usage), (response.id, response.output_text, response.usage))
    items = list(client.responses.input_items.list(response.id))
    same([(item.type, item.role, item.content[0].text) for item in items], [("message", "user", QUESTION)])
    client.responses.delete(response.id)
    refused(openai.NotFoundError, lambda: client.responses.retrieve(response.id), status_code=404)
    refused(openai.NotFoundError, lambda: client.responses.delete(response.id), status_code=404)


@flow("stored: a stream's response too, one with store=False not")
def _():
    streamed = list(create(stream=True))[-1].response
    same(client.responses.retrieve(streamed.id).output_text, streamed.output_text)
    refused(openai.NotFoundError, lambda: client.responses.retrieve(create(store=False).id), status_code=404)


@flow("input_items: pages of one")
def _():
    asked = [{"role": "user", "content": text} for text in ("a", "b", "c")]
    response = create(input=asked)
    listed = client.responses.input_items.list(response.id, order="asc", limit=1)
    same(len(listed.data), 1, "the first page")
    same([item.content[0].text for item in listed], ["a", "b", "c"], "all pages")
    falling = client.responses.input_items.list(response.id, order="desc")
    same([item.content[0].text for item in falling], ["c", "b", "a"], "from the end")


@flow("logprobs by include")
def _():
    response = create(include=["message.output_text.logprobs"], top_logprobs=2)
    logprobs = response.output[-1].content[0].logprobs
    same(len(logprobs), response.usage.output_tokens, "tokens")
    same({len(token.top_logprobs) for token in logprobs}, {2}, "alternatives")


@flow("errors: what is wrong is said by class, param and code")
def _():
    missing = (openai.NotFoundError, openai.BadRequestError)
    error = refused(missing, lambda: create(previous_response_id="resp_nobody"), param="previous_response_id")
    same(error.code, "previous_response_not_found", "code")
    refused(openai.NotFoundError, lambda: create(model="nobody"), param="model", code="model_not_found")
    refused(openai.BadRequestError, lambda: create(temperature=3), param="temperature")
    refused(openai.BadRequestError, lambda: create(background=True))
    error = refused(openai.BadRequestError, lambda: create(tools=[{"type": "web_search"}]))
    same(str(error.param).startswith("tools"), True, f"param {error.param}")
    picture = [{"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,AAAA"}]}]
    error = refused(openai.BadRequestError, lambda: create(input=picture))
    same(str(error.param).startswith("input"), True, f"param {error.param}")
    error = refused(openai.BadRequestError, lambda: create(text=text_format("bad", {"type": "nonsense"})))
    same(str(error.param).startswith("text"), True, f"param {error.param}")
    refused(openai.BadRequestError, lambda: create(input=[]))
    refused(openai.BadRequestError, lambda: list(create(temperature=3, stream=True)), param="temperature")


@flow("async: together, streamed, left")
@in_loop
async def _():
    async with openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120) as waiting:
        answers = await asyncio.gather(*(waiting.responses.create(**ASKED) for _ in range(4)))
        same(len({answer.output_text for answer in answers}), 1, "different answers")
        same(len({answer.id for answer in answers}), 4, "ids")
        stream = await waiting.responses.create(**ASKED, stream=True)
        text = "".join([e.delta async for e in stream if e.type == "response.output_text.delta"])
        same(text, answers[0].output_text, "streamed")
        left = await waiting.responses.create(**{**ASKED, "max_output_tokens": 500}, stream=True)
        await anext(aiter(left))
        await left.close()
        await waiting.responses.create(**ASKED)


if __name__ == "__main__":
    run_all("openai responses")
