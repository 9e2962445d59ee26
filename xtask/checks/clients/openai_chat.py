"""The official `openai` client for Python: models, chat without tools in all its forms, completions, refusals.

    python xtask/checks/clients/openai_chat.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import json
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import openai

from flows import BASE, KEY, MODEL, V1, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import (
    GREEDY,
    MESSAGES,
    QUESTION,
    REPORT,
    SYSTEM,
    VERDICT,
    Report,
    Verdict,
    object_of,
)

client = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)
BEARER = {"Authorization": f"Bearer {KEY}"}
ENDS = ("stop", "length")


def chat(messages=MESSAGES, **more):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": messages, "max_completion_tokens": 24, **GREEDY, **more}
    )


def streamed(**more):
    return list(chat(stream=True, **more))


def joined(chunks, index=0):
    return "".join(c.delta.content or "" for chunk in chunks for c in chunk.choices if c.index == index)


def asynchronous():
    return openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)


def schema(name, of, strict=True):
    return {"type": "json_schema", "json_schema": {"name": name, "schema": of, "strict": strict}}


@flow("models: list and retrieve")
def _():
    models = {model.id: model for model in client.models.list()}
    same(MODEL in models, True, f"{MODEL} is listed")
    one = client.models.retrieve(MODEL)
    same((one.id, one.object), (MODEL, "model"))
    same(one.created, models[MODEL].created, "created")
    kind(one.owned_by, str, "owned_by")
    refused(openai.NotFoundError, lambda: client.models.retrieve("nobody"), status_code=404, param="model")


@flow("chat: every field of an answer")
def _():
    answer = chat()
    same(answer.object, "chat.completion", "object")
    same(answer.id.startswith("chatcmpl-"), True, f"id {answer.id}")
    same(abs(answer.created - time.time()) < 300, True, "created is now")
    same(answer.model, MODEL, "model")
    [choice] = answer.choices
    same((choice.index, choice.message.role), (0, "assistant"))
    one_of(choice.finish_reason, ENDS)
    same(kind(choice.message.content, str) != "", True, "there is text")
    same(
        (choice.message.refusal, choice.message.tool_calls, choice.logprobs),
        (None, None, None),
        "what was not asked for",
    )
    usage = answer.usage
    same(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens, "total tokens")
    same(0 < usage.completion_tokens <= 24 and usage.prompt_tokens > 0, True, f"{usage}")


@flow("chat: greedy answers repeat, ids do not")
def _():
    first, second = chat(), chat()
    same(second.choices[0].message.content, first.choices[0].message.content)
    same(first.id != second.id, True, "ids differ")


@flow("chat: system and developer are one role")
def _():
    other = [{**SYSTEM, "role": "developer"}, MESSAGES[1]]
    same(chat(other).choices[0].message.content, chat().choices[0].message.content)


@flow("chat: content as parts of text")
def _():
    parts = [
        {**SYSTEM, "content": [{"type": "text", "text": SYSTEM["content"]}]},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    same(chat(parts).choices[0].message.content, chat().choices[0].message.content)


@flow("chat: several turns, the answer goes back as it came")
def _():
    answer = chat()
    longer = chat([*MESSAGES, answer.choices[0].message, {"role": "user", "content": "And then?", "name": "anna"}])
    same(longer.usage.prompt_tokens > answer.usage.prompt_tokens, True, "the prompt grew")


@flow("stream: is the whole answer")
def _():
    whole, chunks = chat(), streamed()
    same(joined(chunks), whole.choices[0].message.content)
    same({(c.id, c.object, c.model) for c in chunks}, {(chunks[0].id, "chat.completion.chunk", MODEL)})
    same(chunks[0].choices[0].delta.role, "assistant", "the first role")
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
    same(reasons, [whole.choices[0].finish_reason], "finish reasons")
    same(any(c.usage for c in chunks), False, "usage that nobody asked for")
    same(len(chunks) > 3, True, f"pieces: {len(chunks)}")


@flow("stream: with usage")
def _():
    whole, chunks = chat(), streamed(stream_options={"include_usage": True})
    same(chunks[-1].choices, [], "choices of the last chunk")
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        same(getattr(chunks[-1].usage, name), getattr(whole.usage, name), name)
    same(any(c.usage for c in chunks[:-1]), False, "usage before the end")


@flow("stream: the helper's events and final completion")
def _():
    more = {"stop": chat().choices[0].message.content[8:12]}  # The helper takes an end at the length for an error.
    whole = chat(**more)
    asked = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 24, **GREEDY, **more}
    with client.chat.completions.stream(**asked) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    text = whole.choices[0].message.content
    same("".join(e.delta for e in events if e.type == "content.delta"), text, "deltas")
    same([e.content for e in events if e.type == "content.done"], [text], "done")
    same((final.choices[0].message.content, final.choices[0].finish_reason), (text, whole.choices[0].finish_reason))


@flow("n: three answers with a seed, whole and streamed")
def _():
    more = {"n": 3, "temperature": 1.0, "seed": 7}
    whole, chunks = chat(**more), streamed(**more)
    texts = [choice.message.content for choice in whole.choices]
    same([choice.index for choice in whole.choices], [0, 1, 2], "indexes")
    same([joined(chunks, index) for index in range(3)], texts, "streamed texts")
    same(len(set(texts)) > 1, True, "texts differ")
    same(whole.usage.completion_tokens > 24 / 2, True, "usage counts all")


@flow("seed: repeats an answer, another seed changes it")
def _():
    draws = [chat(temperature=1.0, seed=seed).choices[0].message.content for seed in (7, 7, 8)]
    same(draws[0], draws[1])
    same(draws[0] != draws[2], True, "another seed's answer differs")


@flow("logprobs: one for each token, with alternatives")
def _():
    answer = chat(logprobs=True, top_logprobs=3, max_completion_tokens=8)
    content = answer.choices[0].logprobs.content
    same(len(content), answer.usage.completion_tokens, "tokens")
    for token in content:
        same(len(token.top_logprobs), 3, "alternatives")
        same(token.logprob <= 0 and token.token == token.top_logprobs[0].token, True, "greedy takes the likeliest")
        kind(token.bytes, list, "bytes")
    if answer.choices[0].finish_reason == "length":
        raw = b"".join(bytes(token.bytes) for token in content)
        same(
            raw.decode(errors="ignore").strip("\ufffd"),
            answer.choices[0].message.content.strip("\ufffd"),
            "bytes joined",
        )
    plain = chat(logprobs=True, max_completion_tokens=4).choices[0].logprobs.content
    same({len(token.top_logprobs) for token in plain}, {0}, "alternatives without top_logprobs")


@flow("logprobs: streamed are the whole ones")
def _():
    more = {"logprobs": True, "top_logprobs": 2, "max_completion_tokens": 8}
    whole = [(t.token, t.bytes) for t in chat(**more).choices[0].logprobs.content]
    chunks = [c.choices[0].logprobs for c in streamed(**more) if c.choices]
    same([(t.token, t.bytes) for found in chunks if found for t in found.content or []], whole)


@flow("stop: a string ends the answer, whole and streamed")
def _():
    text = chat().choices[0].message.content
    piece = text[5:9]
    for stop in (piece, [piece, "\u2603\u2603"]):
        cut = chat(stop=stop).choices[0]
        same((cut.message.content, cut.finish_reason), (text[: text.index(piece)], "stop"))
        same(joined(streamed(stop=stop)), text[: text.index(piece)], "streamed")


@flow("max_completion_tokens and max_tokens")
def _():
    for name in ("max_completion_tokens", "max_tokens"):
        more = {"model": MODEL, "messages": MESSAGES, name: 5, "extra_body": {"ignore_eos": True}, **GREEDY}
        answer = client.chat.completions.create(**more)
        same((answer.usage.completion_tokens, answer.choices[0].finish_reason), (5, "length"), name)


@flow("sampling: top_p, penalties and logit_bias")
def _():
    more = {
        "temperature": 0.8,
        "top_p": 0.9,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.5,
        "logit_bias": {"5": -100},
    }
    same(chat(**more).choices[0].message.content, chat(**more).choices[0].message.content)
    token = httpx.post(f"{BASE}/tokenize", json={"model": MODEL, "prompt": " hen"}, headers=BEARER).json()["tokens"][-1]
    forced = chat(logit_bias={str(token): 100}, max_completion_tokens=3, logprobs=True, extra_body={"ignore_eos": True})
    same(len({t.token for t in forced.choices[0].logprobs.content}), 1, "tokens under a bias of 100")


@flow("fields that OpenAI's users send along")
def _():
    answer = chat(
        user="anna",
        metadata={"a": "b"},
        store=False,
        service_tier="auto",
        safety_identifier="x",
        prompt_cache_key="y",
        response_format={"type": "text"},
    )
    same(answer.choices[0].message.content, chat().choices[0].message.content)


@flow("json_object: a JSON object, as far as it goes")
def _():
    messages = [SYSTEM, {"role": "user", "content": "Answer in JSON: who is the fox?"}]
    choice = chat(messages, response_format={"type": "json_object"}, max_completion_tokens=96).choices[0]
    one_of(choice.finish_reason, ENDS)
    if choice.finish_reason == "stop":
        object_of(choice.message.content, "the answer")
    same(choice.message.content.lstrip()[:1], "{", "the first character")


@flow("json_schema: strict, whole and streamed")
def _():
    for name, of in (("verdict", VERDICT), ("report", REPORT)):
        more = {"response_format": schema(name, of), "max_completion_tokens": 200}
        choice = chat(**more).choices[0]
        same(choice.finish_reason, "stop", f"finish reason after {choice.message.content!r}")
        valid(json.loads(choice.message.content), of, name)
        same(joined(streamed(**more)), choice.message.content, "streamed")


@flow("json_schema: a dozen forms of schemas")
def _():
    small = {"type": "string", "maxLength": 5}
    forms = [
        {"type": "object", "properties": {"a": {"const": 3}}, "required": ["a"], "additionalProperties": False},
        {
            "type": "object",
            "properties": {"a": {"enum": [1, "x", None, True]}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "null"}, {"const": 1}]}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"$ref": "#/$defs/b"}},
            "required": ["a"],
            "additionalProperties": False,
            "$defs": {"b": {"type": "boolean"}},
        },
        {
            "type": "object",
            "properties": {"a": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string", "pattern": "^[ab]{2,4}$"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": small, "b": small},
            "required": ["a", "b"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"type": "string", "format": "date"}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {"a": {"type": ["boolean", "null"]}},
            "required": ["a"],
            "additionalProperties": False,
        },
        {
            "type": "object",
            "properties": {
                "a b": {
                    "type": "object",
                    "properties": {'ü"': {"type": "boolean"}},
                    "required": ['ü"'],
                    "additionalProperties": False,
                }
            },
            "required": ["a b"],
            "additionalProperties": False,
        },
        {"type": "object", "properties": {}, "additionalProperties": False},
    ]
    for form in forms:
        choice = chat(response_format=schema("form", form), max_completion_tokens=120).choices[0]
        same(choice.finish_reason, "stop", f"finish reason of {form['properties']} after {choice.message.content!r}")
        valid(json.loads(choice.message.content), form)


@flow("json_schema: n answers at temperature 1 are all valid")
def _():
    answer = chat(response_format=schema("verdict", VERDICT), n=4, temperature=1.0, max_completion_tokens=200)
    for choice in answer.choices:
        valid(json.loads(choice.message.content), VERDICT)


@flow("json_schema: a schema that is none is refused")
def _():
    bad = {"type": "object", "properties": {"a": {"type": "nonsense"}}}
    error = refused(openai.BadRequestError, lambda: chat(response_format=schema("bad", bad)), status_code=400)
    same(str(error.param).startswith("response_format"), True, f"param {error.param}")
    refused(openai.BadRequestError, lambda: chat(response_format={"type": "xml"}), status_code=400)


@flow("parse: a pydantic model")
def _():
    for model in (Verdict, Report):
        answer = client.chat.completions.parse(
            model=MODEL, messages=MESSAGES, response_format=model, max_completion_tokens=200, **GREEDY
        )
        kind(answer.choices[0].message.parsed, model, "parsed")
        same(answer.choices[0].message.parsed, model.model_validate_json(answer.choices[0].message.content))


@flow("parse: an answer cut at a length is an error of its own")
def _():
    call = lambda: client.chat.completions.parse(
        model=MODEL, messages=MESSAGES, response_format=Report, max_completion_tokens=2, **GREEDY
    )
    refused(openai.LengthFinishReasonError, call)


@flow("parse: streamed by the helper")
def _():
    more = {"model": MODEL, "messages": MESSAGES, "response_format": Verdict, "max_completion_tokens": 200, **GREEDY}
    with client.chat.completions.stream(**more) as stream:
        done = [event for event in stream if event.type == "content.done"]
        final = stream.get_final_completion()
    kind(done[0].parsed, Verdict, "parsed")
    same(final.choices[0].message.parsed, done[0].parsed)


@flow("errors: what is wrong is said by class, param and code")
def _():
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    table = [
        (openai.NotFoundError, "model", "model_not_found", {"model": "nobody"}),
        (openai.BadRequestError, "temperature", None, {"temperature": 3}),
        (openai.BadRequestError, "messages", None, {"messages": []}),
        (
            openai.BadRequestError,
            "messages",
            "context_length_exceeded",
            {"messages": [{"role": "user", "content": "word " * 20000}]},
        ),
        (openai.BadRequestError, "messages[0].role", None, {"messages": [{"role": "", "content": "x"}]}),
        (
            openai.BadRequestError,
            "messages[0].content[0].type",
            None,
            {"messages": [{"role": "user", "content": [picture]}]},
        ),
        (openai.BadRequestError, "n", None, {"n": 0}),
        (openai.BadRequestError, "max_completion_tokens", None, {"max_completion_tokens": "many"}),
        (openai.BadRequestError, "top_logprobs", None, {"top_logprobs": 2}),
    ]
    for wanted, param, code, more in table:
        for stream in (False, True):
            error = refused(wanted, lambda: chat(**more, stream=stream), param=param)
            same(code is None or error.code == code, True, f"code {error.code} of {param}")
            same(error.type, "invalid_request_error", "type")


@flow("embeddings of a generator are refused clearly")
def _():
    error = refused(
        (openai.BadRequestError, openai.NotFoundError), lambda: client.embeddings.create(model=MODEL, input="x")
    )
    same("embed" in str(error).lower() or "vector" in str(error).lower(), True, f"says so: {error}")


@flow("paths that are not there answer 404 in JSON")
def _():
    refused(openai.NotFoundError, lambda: client.images.generate(model=MODEL, prompt="x"), status_code=404)
    refused(openai.NotFoundError, lambda: client.fine_tuning.jobs.list(), status_code=404)


@flow("raw responses: headers, and a stream's lines")
def _():
    raw = client.chat.completions.with_raw_response.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=4, **GREEDY
    )
    same((raw.status_code, raw.headers["content-type"]), (200, "application/json"))
    kind(raw.parse().choices[0].message.content, str)
    kind(raw.headers.get("x-request-id"), str, "x-request-id")
    with client.chat.completions.with_streaming_response.create(
        model=MODEL, messages=MESSAGES, max_completion_tokens=4, stream=True, **GREEDY
    ) as reply:
        same(reply.headers["content-type"].split(";")[0], "text/event-stream")
        lines = [line for line in reply.iter_lines() if line.startswith("data:")]
    same(lines[-1], "data: [DONE]", "the last line")


@flow("timeout: the client gives up, the server goes on")
def _():
    refused(
        openai.APITimeoutError,
        lambda: client.with_options(timeout=0.001).chat.completions.create(model=MODEL, messages=MESSAGES),
    )
    chat(max_completion_tokens=2)


@flow("cancel: leaving a stream in its midst")
def _():
    with chat(stream=True, max_completion_tokens=500, extra_body={"ignore_eos": True}) as stream:
        next(iter(stream))
    chat(max_completion_tokens=2)


@flow("parallel: eight threads get what one gets")
def _():
    asked = [[SYSTEM, {"role": "user", "content": f"Count to {n}."}] for n in range(8)]
    text = lambda messages: chat(messages, max_completion_tokens=12).choices[0].message.content
    alone = [text(messages) for messages in asked]
    with ThreadPoolExecutor(8) as pool:
        same(list(pool.map(text, asked)), alone)


@flow("async: whole, streamed, together, cancelled")
@in_loop
async def _():
    async with asynchronous() as waiting:
        more = {"model": MODEL, "messages": MESSAGES, "max_completion_tokens": 12, **GREEDY}
        texts = await asyncio.gather(*(waiting.chat.completions.create(**more) for _ in range(4)))
        same(len({answer.choices[0].message.content for answer in texts}), 1, "different answers")
        pieces = [c async for c in await waiting.chat.completions.create(**more, stream=True)]
        same(joined(pieces), texts[0].choices[0].message.content, "streamed")
        long = {**more, "max_completion_tokens": 4000, "extra_body": {"ignore_eos": True}}
        task = asyncio.create_task(waiting.chat.completions.create(**long))
        await asyncio.sleep(0.05)
        task.cancel()
        [outcome] = await asyncio.gather(task, return_exceptions=True)
        kind(outcome, asyncio.CancelledError, "the outcome")
        async with waiting.chat.completions.stream(**more, response_format=Verdict) as stream:
            try:
                await stream.get_final_completion()
            except openai.LengthFinishReasonError:
                pass  # Twelve tokens may be too few.


def complete(prompt="Once upon a time", **more):
    return client.completions.create(**{"model": MODEL, "prompt": prompt, "max_tokens": 12, **GREEDY, **more})


@flow("completions: whole, streamed, several prompts, n")
def _():
    whole = complete()
    same(whole.object, "text_completion", "object")
    one_of(whole.choices[0].finish_reason, ENDS)
    chunks = list(complete(stream=True, stream_options={"include_usage": True}))
    same("".join(c.choices[0].text for c in chunks if c.choices), whole.choices[0].text, "streamed")
    same(chunks[-1].usage.total_tokens, whole.usage.total_tokens, "usage")
    many = complete(["Once upon a time", "The end"], n=2)
    same([c.index for c in many.choices], [0, 1, 2, 3], "indexes")
    same(many.choices[0].text, whole.choices[0].text)


@flow("completions: logprobs, echo and stop")
def _():
    whole = complete(echo=True, logprobs=2, max_tokens=4).choices[0]
    same(whole.text.startswith("Once upon a time"), True, "the echo")
    scores = whole.logprobs
    same((scores.token_logprobs[0], len(scores.tokens)), (None, len(scores.token_logprobs)))
    same(scores.text_offset, sorted(scores.text_offset), "offsets")
    text = complete().choices[0].text
    cut = complete(stop=[text[3:6]]).choices[0]
    same((cut.text, cut.finish_reason), (text[: text.index(text[3:6])], "stop"))


if __name__ == "__main__":
    run_all("openai chat")
