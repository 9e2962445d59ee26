"""The `ollama` client for Python: chat, generate, streams, schemas, tools, the list of models, refusals.

    python xtask/checks/clients/ollama_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import datetime
import json

import ollama

from flows import BASE, KEY, MODEL, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import MESSAGES, QUESTION, REPORT, TOOLS, VERDICT, Verdict, clock, object_of, weather

HEADERS = {"Authorization": f"Bearer {KEY}"}
client = ollama.Client(host=BASE, headers=HEADERS, timeout=120)
SHORT = {"temperature": 0, "seed": 1, "num_predict": 24}
LONG = {**SHORT, "num_predict": 200}


def chat(**more):
    return client.chat(**{"model": MODEL, "messages": MESSAGES, "options": SHORT, **more})


def generate(**more):
    return client.generate(**{"model": MODEL, "prompt": QUESTION, "options": SHORT, **more})


def times_are_good(answer):
    same(answer.done, True, "done")
    one_of(answer.done_reason, ("stop", "length"))
    datetime.datetime.fromisoformat(answer.created_at.replace("Z", "+00:00"))
    for name in (
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
        "eval_duration",
    ):
        same(kind(getattr(answer, name), int, name) >= 0, True, name)
    same(answer.total_duration >= answer.eval_duration and answer.eval_count <= 200, True, "the sums fit")


@flow("list, show, ps, version")
def _():
    names = [model.model for model in client.list().models]
    same(any(name.split(":")[0] == MODEL.split(":")[0] for name in names), True, f"{MODEL} is among {names}")
    [model] = [model for model in client.list().models if model.model.split(":")[0] == MODEL.split(":")[0]]
    same(model.size > 0 and bool(model.digest) and bool(model.details.family), True, "size, digest, family")
    kind(model.modified_at, datetime.datetime, "modified_at")
    about = client.show(MODEL)
    same("completion" in about.capabilities, True, f"capabilities {about.capabilities}")
    kind(about.modelinfo, dict, "model_info")
    kind(about.details.parameter_size, str, "parameter_size")
    kind(list(client.ps().models), list)


@flow("chat: whole, with times")
def _():
    answer = chat()
    times_are_good(answer)
    same((answer.message.role, answer.model), ("assistant", MODEL))
    same(answer.message.content != "", True, "there is text")
    same(chat().message.content, answer.message.content, "again")


@flow("chat: streamed is the whole")
def _():
    whole, pieces = chat(), list(chat(stream=True))
    same("".join(piece.message.content or "" for piece in pieces), whole.message.content)
    same([piece.done for piece in pieces], [False] * (len(pieces) - 1) + [True], "done")
    times_are_good(pieces[-1])
    same(pieces[-1].eval_count, whole.eval_count, "eval_count")


@flow("chat: options stop, num_predict, seed")
def _():
    text = chat().message.content
    cut = chat(options={**SHORT, "stop": [text[5:9]]})
    same((cut.message.content, cut.done_reason), (text[: text.index(text[5:9])], "stop"))
    same(chat(options={**SHORT, "num_predict": 2}).eval_count <= 2, True, "num_predict")
    drawn = [chat(options={"temperature": 1.0, "seed": seed, "num_predict": 24}).message.content for seed in (7, 7, 8)]
    same((drawn[0] == drawn[1], drawn[0] == drawn[2]), (True, False), "seeds repeat and differ")
    more = {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "repeat_penalty": 1.1, "presence_penalty": 0.1, "num_ctx": 512}
    kind(chat(options={**SHORT, **more}, keep_alive="5m").message.content, str)


@flow("chat: format by schema, whole and streamed")
def _():
    for schema in (VERDICT, REPORT):
        answer = chat(format=schema, options=LONG)
        same(answer.done_reason, "stop", "done_reason")
        valid(json.loads(answer.message.content), schema)
        same(
            "".join(p.message.content or "" for p in chat(format=schema, options=LONG, stream=True)),
            answer.message.content,
        )
    kind(Verdict.model_validate_json(chat(format=VERDICT, options=LONG).message.content), Verdict)


@flow("chat: format json")
def _():
    answer = chat(format="json", options={**SHORT, "num_predict": 96})
    if answer.done_reason == "stop":
        object_of(answer.message.content, "the answer")
    same(answer.message.content.lstrip()[:1], "{", "the first character")


@flow("chat: tools, given as functions and as schemas")
def _():
    for tools in ([weather, clock], TOOLS):
        message = chat(tools=tools, options={**SHORT, "num_predict": 64}).message
        for call in message.tool_calls or []:
            kind(call.function.name, str)
            kind(call.function.arguments, dict, "arguments")
        pieces = list(chat(tools=tools, options={**SHORT, "num_predict": 64}, stream=True))
        same(
            sum(len(piece.message.tool_calls or []) for piece in pieces),
            len(message.tool_calls or []),
            "streamed calls",
        )


@flow("chat: calls and results of tools sent back")
def _():
    call = {"function": {"name": "weather", "arguments": {"city": "Rome", "days": 2}}}
    talk = [
        *MESSAGES,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "sun", "tool_name": "weather"},
    ]
    answer = chat(messages=talk, tools=TOOLS)
    same(answer.prompt_eval_count > chat().prompt_eval_count, True, "the prompt grew")


@flow("generate: whole, streamed, system, raw")
def _():
    whole = generate()
    times_are_good(whole)
    same("".join(piece.response for piece in generate(stream=True)), whole.response, "streamed")
    same(whole.response, chat(messages=[{"role": "user", "content": QUESTION}]).message.content, "is the chat's")
    system = generate(system=MESSAGES[0]["content"])
    same(system.response, chat().message.content, "with a system message")
    kind(generate(raw=True, prompt="Once upon a time").response, str)


@flow("generate: format by schema")
def _():
    valid(json.loads(generate(format=VERDICT, options=LONG).response), VERDICT)


@flow("generate: no prompt loads the model")
def _():
    answer = client.generate(model=MODEL)
    same((answer.done, answer.done_reason, answer.response), (True, "load", ""))


@flow("async: chat, stream, together")
@in_loop
async def _():
    waiting = ollama.AsyncClient(host=BASE, headers=HEADERS, timeout=120)
    more = {"model": MODEL, "messages": MESSAGES, "options": SHORT}
    answers = await asyncio.gather(*(waiting.chat(**more) for _ in range(3)))
    same(len({answer.message.content for answer in answers}), 1, "different answers")
    pieces = [piece async for piece in await waiting.chat(**more, stream=True)]
    same("".join(piece.message.content or "" for piece in pieces), answers[0].message.content, "streamed")


@flow("errors: ResponseError with a status and words")
def _():
    refused(ollama.ResponseError, lambda: chat(model="nobody"), status_code=404)
    refused(ollama.ResponseError, lambda: list(chat(model="nobody", stream=True)), status_code=404)
    refused(ollama.ResponseError, lambda: client.show("nobody"), status_code=404)
    refused(
        ollama.ResponseError,
        lambda: chat(messages=[{"role": "user", "content": "x", "images": ["AAAA"]}]),
        status_code=400,
    )
    refused(ollama.ResponseError, lambda: chat(format={"type": "nonsense"}), status_code=400)


@flow("embeddings of a generator are refused clearly")
def _():
    refused(ollama.ResponseError, lambda: client.embed(model=MODEL, input="x"), status_code=(400, 404, 501))


if __name__ == "__main__":
    run_all("ollama")
