"""LlamaIndex's `OpenAILike`: complete, chat, streams, tools, structured answers, an agent with a forced first call.

    python xtask/checks/clients/llama_index_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio

import openai
from llama_index.core.agent.workflow import FunctionAgent, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from flows import KEY, MODEL, V1, flow, in_loop, kind, refused, run_all, same
from samples import QUESTION, SYSTEM, Report, Verdict, call_is_good, clock, weather

MESSAGES = [ChatMessage(role="system", content=SYSTEM["content"]), ChatMessage(role="user", content=QUESTION)]
tools = [FunctionTool.from_defaults(weather), FunctionTool.from_defaults(clock)]
VALUES = {"city": ("Paris", "Rome", "Oslo"), "days": (1, 2, 3), "zone": ("UTC", "CET")}


def llm(**more):
    asked = {"temperature": 0, "max_tokens": 24, "max_retries": 0, "timeout": 120, "additional_kwargs": {"seed": 1}}
    asked |= {"is_chat_model": True, "is_function_calling_model": True, "context_window": 2048}
    return OpenAILike(model=MODEL, api_base=V1, api_key=KEY, **{**asked, **more})


@flow("chat: whole and streamed")
def _():
    whole = llm().chat(MESSAGES)
    same(whole.message.role.value, "assistant", "role")
    same(kind(whole.message.content, str) != "", True, "there is text")
    pieces = list(llm().stream_chat(MESSAGES))
    same(pieces[-1].message.content, whole.message.content, "streamed")
    same("".join(piece.delta or "" for piece in pieces), whole.message.content, "deltas")
    same(whole.raw.usage.total_tokens > 0, True, "usage")


@flow("complete: by chat and by completions, whole and streamed")
def _():
    for is_chat in (True, False):
        model = llm(is_chat_model=is_chat, is_function_calling_model=False)
        text = model.complete("Once upon a time").text
        same(list(model.stream_complete("Once upon a time"))[-1].text, text, f"streamed, chat={is_chat}")


@flow("async: achat, astream_chat, acomplete")
@in_loop
async def _():
    model = llm()
    whole = await model.achat(MESSAGES)
    pieces = [piece async for piece in await model.astream_chat(MESSAGES)]
    same(pieces[-1].message.content, whole.message.content, "streamed")
    texts = await asyncio.gather(*(model.acomplete(QUESTION) for _ in range(3)))
    same(len({answer.text for answer in texts}), 1, "different answers")


@flow("predict: a template")
def _():
    said = llm().predict(PromptTemplate("Tell of {it}."), it="a hen")
    same(kind(said, str), "".join(llm().stream(PromptTemplate("Tell of {it}."), it="a hen")), "streamed")


@flow("tools: required, whole and streamed")
def _():
    model = llm(max_tokens=200)
    answer = model.chat_with_tools(tools, user_msg=QUESTION, tool_required=True)
    [call] = model.get_tool_calls_from_response(answer)
    call_is_good(call.tool_name, call.tool_kwargs)
    pieces = list(model.stream_chat_with_tools(tools, user_msg=QUESTION, tool_required=True))
    [again] = model.get_tool_calls_from_response(pieces[-1])
    same((again.tool_name, again.tool_kwargs), (call.tool_name, call.tool_kwargs), "streamed")


@flow("tools: a name, and the result sent back")
def _():
    model = llm(max_tokens=200)
    answer = model.chat_with_tools(tools, chat_history=MESSAGES, tool_choice="clock")
    [call] = model.get_tool_calls_from_response(answer)
    call_is_good(call.tool_name, call.tool_kwargs, ("clock",))
    result = ChatMessage(role="tool", content="noon", additional_kwargs={"tool_call_id": call.tool_id})
    last = llm().chat_with_tools(tools, chat_history=[*MESSAGES, answer.message, result], tool_choice="none")
    same(llm().get_tool_calls_from_response(last, error_on_no_tool_call=False), [], "calls at the end")


@flow("tools: predict_and_call runs the tool")
def _():
    answer = llm(max_tokens=200).predict_and_call(tools, user_msg=QUESTION, tool_choice="clock")
    same("noon" in answer.response, True, f"the result {answer.response!r}")


@flow("structured_predict: by a tool")
def _():
    for wanted in (Verdict, Report):
        kind(llm(max_tokens=200).structured_predict(wanted, PromptTemplate(QUESTION)), wanted)


@flow("as_structured_llm: by a schema")
def _():
    model = llm(max_tokens=200, should_use_structured_outputs=True).as_structured_llm(Verdict)
    kind(model.chat(MESSAGES).raw, Verdict)


@flow("agent: the first call is forced")
@in_loop
async def _():
    model = llm(max_tokens=64)
    for streaming in (True, False):
        agent = FunctionAgent(
            tools=tools, llm=model, initial_tool_choice="weather", allow_parallel_tool_calls=False, streaming=streaming
        )
        handler = agent.run(QUESTION, max_iterations=2)
        results = []
        try:
            results = [event async for event in handler.stream_events() if isinstance(event, ToolCallResult)]
            await handler
        except Exception as error:  # A model without sense may go on calling.
            if "iterations" not in str(error):
                raise
        same([result.tool_name for result in results][:1], ["weather"], "the first tool")
        same("days of sun" in str(results[0].tool_output.content), True, "its result")


@flow("errors: classes and params")
def _():
    refused(
        openai.NotFoundError,
        lambda: OpenAILike(model="nobody", api_base=V1, api_key=KEY, is_chat_model=True, max_retries=0).chat(MESSAGES),
        param="model",
    )
    refused(openai.BadRequestError, lambda: llm(additional_kwargs={"top_p": 7}).chat(MESSAGES), param="top_p")


if __name__ == "__main__":
    run_all("llama_index")
