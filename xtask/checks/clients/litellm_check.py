"""LiteLLM: chat by three of its providers, streams, tools, schemas, completions, responses, a router, error classes.

    python xtask/checks/clients/litellm_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import json

from flows import BASE, KEY, MODEL, V1, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import GREEDY, MESSAGES, QUESTION, TOOLS, VERDICT, Verdict, call_is_good

import litellm  # isort: skip  (after flows, which sets what it reads at its start)

litellm.suppress_debug_info = True
litellm.telemetry = False
PROVIDERS = ("openai", "hosted_vllm", "litellm_proxy")
CALLING = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}


def asked(provider="openai", **more):
    base = {"model": f"{provider}/{MODEL}", "api_base": V1, "api_key": KEY, "num_retries": 0, "timeout": 120}
    return {**base, "messages": MESSAGES, "max_tokens": 24, **GREEDY, **more}


def chat(provider="openai", **more):
    return litellm.completion(**asked(provider, **more))


for provider in PROVIDERS:

    @flow(f"{provider}: whole, streamed, usage")
    def _(provider=provider):
        whole = chat(provider)
        text = whole.choices[0].message.content
        same(kind(text, str) != "", True, "there is text")
        one_of(whole.choices[0].finish_reason, ("stop", "length"))
        chunks = list(chat(provider, stream=True, stream_options={"include_usage": True}))
        same("".join(c.choices[0].delta.content or "" for c in chunks if c.choices), text, "streamed")
        built = litellm.stream_chunk_builder(chunks, messages=MESSAGES)
        same(built.choices[0].message.content, text, "built from chunks")
        same(built.usage.total_tokens, whole.usage.total_tokens, "usage")

    @flow(f"{provider}: tools and a schema")
    def _(provider=provider):
        [call] = chat(provider, **CALLING).choices[0].message.tool_calls
        call_is_good(call.function.name, call.function.arguments)
        form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT, "strict": True}}
        answer = chat(provider, response_format=form, max_tokens=200)
        valid(json.loads(answer.choices[0].message.content), VERDICT)


@flow("response_format: a pydantic class, streamed too")
def _():
    more = {"response_format": Verdict, "max_tokens": 200}
    text = chat(**more).choices[0].message.content
    kind(Verdict.model_validate_json(text), Verdict)
    same("".join(c.choices[0].delta.content or "" for c in chat(**more, stream=True)), text, "streamed")


@flow("tools: streamed, and a loop with results")
def _():
    answer = chat(**CALLING)
    message = answer.choices[0].message
    same(answer.choices[0].finish_reason, "tool_calls", "finish reason")
    built = litellm.stream_chunk_builder(list(chat(**CALLING, stream=True)))
    strip = lambda calls: [(call.function.name, call.function.arguments) for call in calls]
    same(strip(built.choices[0].message.tool_calls), strip(message.tool_calls), "streamed")
    results = [{"role": "tool", "tool_call_id": call.id, "content": "sun"} for call in message.tool_calls]
    last = chat(messages=[*MESSAGES, message, *results], tools=TOOLS, tool_choice="none")
    same(last.choices[0].message.tool_calls, None, "calls at the end")


@flow("n, stop, logprobs")
def _():
    same(len(chat(n=2, temperature=1.0).choices), 2, "answers")
    text = chat().choices[0].message.content
    same(chat(stop=[text[5:9]]).choices[0].message.content, text[: text.index(text[5:9])], "stop")
    scored = chat(logprobs=True, top_logprobs=2)
    same(len(scored.choices[0].logprobs.content), scored.usage.completion_tokens, "logprobs")


@flow("async: acompletion and its stream; batch_completion")
@in_loop
async def _():
    answers = await asyncio.gather(*(litellm.acompletion(**asked()) for _ in range(3)))
    texts = {answer.choices[0].message.content for answer in answers}
    same(len(texts), 1, "different answers")
    stream = await litellm.acompletion(**asked(stream=True))
    same({"".join([c.choices[0].delta.content or "" async for c in stream])}, texts, "streamed")
    many = litellm.batch_completion(**asked(messages=[MESSAGES, MESSAGES]))
    same({answer.choices[0].message.content for answer in many}, texts, "in a batch")


@flow("text_completion: whole and streamed")
def _():
    more = {
        "model": f"text-completion-openai/{MODEL}",
        "api_base": V1,
        "api_key": KEY,
        "prompt": "Once upon a time",
        "max_tokens": 12,
        "temperature": 0,
    }
    text = litellm.text_completion(**more).choices[0].text
    same("".join(c.choices[0].text or "" for c in litellm.text_completion(**more, stream=True)), text)


@flow("responses: whole and streamed")
def _():
    more = {
        "model": f"openai/{MODEL}",
        "api_base": V1,
        "api_key": KEY,
        "input": QUESTION,
        "max_output_tokens": 24,
        "temperature": 0,
    }
    whole = litellm.responses(**more)
    text = whole.output[-1].content[0].text
    deltas = [
        e.delta
        for e in litellm.responses(**more, stream=True)
        if str(getattr(e.type, "value", e.type)) == "response.output_text.delta"
    ]
    same("".join(deltas), text)


@flow("Router: two names for one server")
def _():
    base = {key: value for key, value in asked().items() if key in ("model", "api_base", "api_key")}
    router = litellm.Router(
        model_list=[{"model_name": "small", "litellm_params": dict(base)} for _ in "ab"], num_retries=0
    )
    same(
        router.completion(model="small", messages=MESSAGES, max_tokens=24, **GREEDY).choices[0].message.content,
        chat().choices[0].message.content,
    )


@flow("ollama_chat: the server's Ollama API")
def _():
    more = asked("ollama_chat", api_base=BASE)
    text = litellm.completion(**more).choices[0].message.content
    same(kind(text, str) != "", True, "there is text")
    same("".join(c.choices[0].delta.content or "" for c in litellm.completion(**more, stream=True)), text, "streamed")


@flow("anthropic: the server's Anthropic API")
def _():
    more = asked("anthropic", api_base=BASE)
    more.pop("seed")
    text = litellm.completion(**more).choices[0].message.content
    same(kind(text, str) != "", True, "there is text")
    same("".join(c.choices[0].delta.content or "" for c in litellm.completion(**more, stream=True)), text, "streamed")
    more |= {"tools": TOOLS, "tool_choice": "required", "max_tokens": 200, "parallel_tool_calls": False}
    [call] = litellm.completion(**more).choices[0].message.tool_calls
    call_is_good(call.function.name, call.function.arguments)


@flow("errors: LiteLLM's classes")
def _():
    refused(litellm.NotFoundError, lambda: litellm.completion(**{**asked(), "model": "openai/nobody"}), status_code=404)
    refused(litellm.BadRequestError, lambda: chat(temperature=3), status_code=400)
    refused(litellm.ContextWindowExceededError, lambda: chat(messages=[{"role": "user", "content": "word " * 20000}]))
    refused(litellm.Timeout, lambda: chat(timeout=0.001))
    embed = lambda: litellm.embedding(model=f"openai/{MODEL}", input=["x"], api_base=V1, api_key=KEY, num_retries=0)
    refused((litellm.BadRequestError, litellm.NotFoundError), embed)


if __name__ == "__main__":
    run_all("litellm")
