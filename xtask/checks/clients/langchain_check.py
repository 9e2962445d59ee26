"""LangChain's `langchain-openai`: chat, streams, tools, structured output three ways, the Responses API, refusals.

    python xtask/checks/clients/langchain_check.py http://127.0.0.1:8000 MODEL

`xtask/checks/langchain_check.py` beside this folder checks plain chat and completions in more depth.
"""

import asyncio

import openai
from langchain.chat_models import init_chat_model
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticToolsParser, StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableParallel
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings

from flows import KEY, MODEL, V1, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import QUESTION, SYSTEM, VERDICT, Clock, Report, Verdict, Weather, call_is_good, clock, object_of, weather

MESSAGES = [SystemMessage(SYSTEM["content"]), HumanMessage(QUESTION)]
METHODS = ("json_schema", "function_calling")
tools = [tool(weather), tool(clock)]


def chat(**more):
    asked = {"temperature": 0, "seed": 1, "max_tokens": 24, "max_retries": 0, "timeout": 120}
    return ChatOpenAI(model=MODEL, base_url=V1, api_key=KEY, **{**asked, **more})


def joined(chunks):
    total = None
    for chunk in chunks:
        total = chunk if total is None else total + chunk
    return total


model = chat()
long = chat(max_tokens=200)


def forced(choice="required", **more):
    return long.bind_tools([Weather, Clock], tool_choice=choice, parallel_tool_calls=False, **more)


def good_call(call):
    """A call of `Weather` or `Clock`, the names that pydantic's classes give."""
    return call_is_good(call["name"].lower(), call["args"])


@flow("invoke: text, usage, finish reason")
def _():
    answer = model.invoke(MESSAGES)
    kind(answer, AIMessage)
    same(answer.content != "", True, "there is text")
    usage = answer.usage_metadata
    same(usage["total_tokens"], usage["input_tokens"] + usage["output_tokens"], "total tokens")
    one_of(answer.response_metadata["finish_reason"], ("stop", "length"))
    same(answer.response_metadata["model_name"], MODEL, "the model's name")


@flow("stream: is the whole, with usage")
def _():
    whole, total = model.invoke(MESSAGES), joined(model.stream(MESSAGES, stream_usage=True))
    same(total.content, whole.content)
    same(total.usage_metadata["total_tokens"], whole.usage_metadata["total_tokens"], "usage")
    same(total.response_metadata["finish_reason"], whole.response_metadata["finish_reason"], "finish reason")


@flow("async: ainvoke, astream, abatch, events")
@in_loop
async def _():
    model = chat()
    text = (await model.ainvoke(MESSAGES)).content
    same(joined([c async for c in model.astream(MESSAGES)]).content, text, "astream")
    same([a.content for a in await model.abatch([MESSAGES] * 3)], [text] * 3, "abatch")
    events = [e async for e in model.astream_events(MESSAGES, version="v2")]
    same("".join(e["data"]["chunk"].content for e in events if e["event"] == "on_chat_model_stream"), text, "events")


@flow("batch and generate")
def _():
    asked = [[HumanMessage(f"Count to {n}.")] for n in range(4)]
    alone = [model.invoke(each).content for each in asked]
    same([a.content for a in model.batch(asked)], alone)
    same([a[0].text for a in model.generate(asked).generations], alone)
    many = chat(n=2, temperature=1.0).generate([MESSAGES])
    same(len(many.generations[0]), 2, "answers for n = 2")


@flow("stop, logprobs, seed")
def _():
    text = model.invoke(MESSAGES).content
    same(model.invoke(MESSAGES, stop=[text[5:9]]).content, text[: text.index(text[5:9])], "stop")
    scored = chat(logprobs=True, top_logprobs=2).invoke(MESSAGES)
    same(len(scored.response_metadata["logprobs"]["content"]), scored.usage_metadata["output_tokens"], "logprobs")
    drawn = [chat(temperature=1.0, seed=seed).invoke(MESSAGES).content for seed in (7, 7, 8)]
    same((drawn[0] == drawn[1], drawn[0] == drawn[2]), (True, False), "seeds repeat and differ")


@flow("chains: prompt, parallel, parser")
def _():
    chain = (
        ChatPromptTemplate.from_messages([("system", SYSTEM["content"]), ("human", "{it}")]) | model | StrOutputParser()
    )
    text = model.invoke(MESSAGES).content
    same(chain.invoke({"it": QUESTION}), text)
    same("".join(chain.stream({"it": QUESTION})), text, "streamed")
    same(RunnableParallel(a=chain, b=chain).invoke({"it": QUESTION}), {"a": text, "b": text})


@flow("init_chat_model and completions")
def _():
    made = init_chat_model(
        f"openai:{MODEL}", base_url=V1, api_key=KEY, temperature=0, seed=1, max_tokens=24, max_retries=0
    )
    same(made.invoke(MESSAGES).content, model.invoke(MESSAGES).content)
    plain = OpenAI(model=MODEL, base_url=V1, api_key=KEY, temperature=0, max_tokens=12, max_retries=0)
    same("".join(plain.stream("Once upon")), plain.invoke("Once upon"), "completions, streamed")


@flow("bind_tools: auto and none")
def _():
    answer = model.bind_tools(tools).invoke(MESSAGES)
    kind(answer.content, str)
    same(answer.invalid_tool_calls, [], "invalid calls")
    same(model.bind_tools(tools, tool_choice="none").invoke(MESSAGES).tool_calls, [], "calls with none")


@flow("bind_tools: any, required, True, a name")
def _():
    for choice in ("any", "required"):
        [call] = forced(choice).invoke(MESSAGES).tool_calls
        good_call(call)
        same((call["type"], bool(call["id"])), ("tool_call", True))
    [call] = forced("Clock").invoke(MESSAGES).tool_calls
    same((call["name"], bool(good_call(call))), ("Clock", True))
    [call] = (
        long.bind_tools([Weather], tool_choice=True, strict=True, parallel_tool_calls=False).invoke(MESSAGES).tool_calls
    )
    same(call["name"], "Weather")


@flow("bind_tools: streamed calls are the whole ones")
def _():
    whole, chunks = forced().invoke(MESSAGES), list(forced().stream(MESSAGES, stream_usage=True))
    total = joined(chunks)
    strip = lambda calls: [(call["name"], call["args"]) for call in calls]
    same(strip(total.tool_calls), strip(whole.tool_calls))
    same(total.response_metadata["finish_reason"], whole.response_metadata["finish_reason"], "finish reason")
    same(len({piece["index"] for chunk in chunks for piece in chunk.tool_call_chunks}), 1, "indexes of one call")


@flow("bind_tools: a parser makes pydantic models")
def _():
    chain = forced() | PydanticToolsParser(tools=[Weather, Clock])
    kind(chain.invoke(MESSAGES)[0], (Weather, Clock))
    kind(list(chain.stream(MESSAGES))[-1][0], (Weather, Clock), "streamed")


@flow("tools: a whole loop with ToolMessages")
def _():
    messages = list(MESSAGES)
    for name in ("weather", "clock"):
        answer = long.bind_tools(tools, tool_choice=name, parallel_tool_calls=False).invoke(messages)
        messages.append(answer)
        for call in answer.tool_calls:
            result = next(each for each in tools if each.name == call["name"]).invoke(call)
            messages.append(kind(result, ToolMessage))
    last = model.bind_tools(tools, tool_choice="none").invoke(messages)
    same(last.tool_calls, [], "calls at the end")
    same(
        last.usage_metadata["input_tokens"] > model.invoke(MESSAGES).usage_metadata["input_tokens"],
        True,
        "the prompt grew",
    )


for method in METHODS:

    @flow(f"with_structured_output: {method}, whole and streamed")
    def _(method=method):
        for wanted in (Verdict, Report):
            chain = long.with_structured_output(wanted, method=method)
            answer = kind(chain.invoke(MESSAGES), wanted)
            same(list(chain.stream(MESSAGES))[-1], answer, "streamed")

    @flow(f"with_structured_output: {method}, dict, raw, strict")
    def _(method=method):
        valid(long.with_structured_output(VERDICT, method=method).invoke(MESSAGES), VERDICT)
        both = long.with_structured_output(Verdict, method=method, include_raw=True).invoke(MESSAGES)
        same((type(both["parsed"]), type(both["raw"]), both["parsing_error"]), (Verdict, AIMessage, None))
        kind(long.with_structured_output(Verdict, method=method, strict=True).invoke(MESSAGES), Verdict)


@flow("with_structured_output: json_mode gives an object")
def _():
    chain = chat(max_tokens=96).with_structured_output(Verdict, method="json_mode", include_raw=True)
    both = chain.invoke([*MESSAGES, HumanMessage("Answer in JSON.")])
    raw = both["raw"]
    if raw.response_metadata["finish_reason"] == "stop":
        object_of(raw.content, "the answer")
    same(raw.content.lstrip()[:1], "{", "the first character")


@flow("with_structured_output: async and in a batch")
@in_loop
async def _():
    chain = chat(max_tokens=200).with_structured_output(Verdict)
    for answer in await asyncio.gather(chain.ainvoke(MESSAGES), chain.ainvoke(MESSAGES)):
        kind(answer, Verdict)
    for answer in await chain.abatch([MESSAGES] * 2):
        kind(answer, Verdict)


@flow("response_format bound by hand, JsonOutputParser")
def _():
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT, "strict": True}}
    chain = long.bind(response_format=form) | JsonOutputParser()
    answer = valid(chain.invoke(MESSAGES), VERDICT)
    same(list(chain.stream(MESSAGES))[-1], answer, "streamed")


@flow("responses: invoke, stream, previous response")
def _():
    model = ChatOpenAI(
        model=MODEL, base_url=V1, api_key=KEY, temperature=0, max_tokens=24, max_retries=0, use_responses_api=True
    )
    whole = model.invoke(MESSAGES)
    same(whole.text != "", True, "there is text")
    same(joined(model.stream(MESSAGES)).text, whole.text, "streamed")
    same(whole.response_metadata["id"].startswith("resp_"), True, "the response's id")
    after = model.invoke([HumanMessage("And then?")], previous_response_id=whole.response_metadata["id"])
    same(after.usage_metadata["input_tokens"] > whole.usage_metadata["input_tokens"], True, "the talk is carried")
    chained = chat(use_responses_api=True, use_previous_response_id=True, seed=None)
    same(chained.invoke([*MESSAGES, whole, HumanMessage("And then?")]).text != "", True, "by use_previous_response_id")


@flow("responses: tools and structured output")
def _():
    model = ChatOpenAI(
        model=MODEL, base_url=V1, api_key=KEY, temperature=0, max_tokens=200, max_retries=0, use_responses_api=True
    )
    bound = model.bind_tools(tools, tool_choice="weather", parallel_tool_calls=False)
    answer = bound.invoke(MESSAGES)
    [call] = answer.tool_calls
    call_is_good(call["name"], call["args"], ("weather",))
    same(
        [(c["name"], c["args"]) for c in joined(bound.stream(MESSAGES)).tool_calls],
        [(call["name"], call["args"])],
        "streamed",
    )
    last = model.bind_tools(tools, tool_choice="none").invoke(
        [*MESSAGES, answer, ToolMessage("sun", tool_call_id=call["id"])]
    )
    same(last.tool_calls, [], "calls at the end")
    kind(model.with_structured_output(Verdict).invoke(MESSAGES), Verdict)


@flow("errors: classes and params")
def _():
    nobody = ChatOpenAI(model="nobody", base_url=V1, api_key=KEY, max_retries=0)
    refused(openai.NotFoundError, lambda: nobody.invoke("x"), param="model")
    refused(openai.BadRequestError, lambda: chat(temperature=3).invoke("x"), param="temperature")
    refused(openai.BadRequestError, lambda: list(chat(temperature=3).stream("x")), param="temperature")
    refused(ContextOverflowError, lambda: model.invoke("word " * 20000))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    refused(openai.BadRequestError, lambda: model.invoke([HumanMessage([picture])]))
    refused(openai.APITimeoutError, lambda: chat(timeout=0.001).invoke("x"))


@flow("embeddings of a generator are refused clearly")
def _():
    embed = OpenAIEmbeddings(model=MODEL, base_url=V1, api_key=KEY, check_embedding_ctx_length=False, max_retries=0)
    refused((openai.BadRequestError, openai.NotFoundError), lambda: embed.embed_query("x"))


if __name__ == "__main__":
    run_all("langchain")
