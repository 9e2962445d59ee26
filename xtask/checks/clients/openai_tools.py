"""The official `openai` client for Python: tools in chat, chosen in every way, whole and streamed, over a whole loop.

    python xtask/checks/clients/openai_tools.py http://127.0.0.1:8000 MODEL
"""

import re

import openai

from flows import KEY, MODEL, V1, Failed, flow, kind, one_of, refused, run_all, same
from samples import GREEDY, MESSAGES, TOOLS, Clock, Weather, call_is_good, object_of

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


@flow("tools: none writes no call")
def _():
    message = chat(tools=TOOLS, tool_choice="none").choices[0].message
    same(message.tool_calls, None, "calls")
    kind(message.content, str)


@flow("tools: auto gives text or calls, whole and streamed")
def _():
    whole = chat(tools=TOOLS, tool_choice="auto", max_completion_tokens=64).choices[0]
    calls = [(c.function.name, c.function.arguments) for c in whole.message.tool_calls or []]
    for name, arguments in calls:
        object_of(arguments)
        kind(name, str)
    if whole.finish_reason != "length":
        same(whole.finish_reason, "tool_calls" if calls else "stop", "finish reason")
    same(joined(streamed(tools=TOOLS, max_completion_tokens=64)), whole.message.content or "", "streamed text")


def required(**more):
    return chat(
        **{
            "tools": TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "max_completion_tokens": 200,
            **more,
        }
    )


@flow("tools: required writes one good call")
def _():
    choice = required().choices[0]
    same(choice.finish_reason, "tool_calls", "finish reason")
    [call] = choice.message.tool_calls
    same((call.type, bool(re.fullmatch(r"[\w.:-]{8,64}", call.id))), ("function", True), f"type and id {call.id}")
    call_is_good(call.function.name, call.function.arguments)
    one_of(choice.message.content, (None, ""), "content")


@flow("tools: named writes that call")
def _():
    for name in ("weather", "clock"):
        choice = required(tool_choice={"type": "function", "function": {"name": name}}).choices[0]
        one_of(choice.finish_reason, ("stop", "tool_calls"))
        [call] = choice.message.tool_calls
        call_is_good(call.function.name, call.function.arguments, (name,))


@flow("tools: allowed_tools narrows the choice")
def _():
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    [call] = required(tool_choice={"type": "allowed_tools", "allowed_tools": allowed}).choices[0].message.tool_calls
    call_is_good(call.function.name, call.function.arguments, ("clock",))


@flow("tools: parallel calls are all good and their ids differ")
def _():
    choice = required(parallel_tool_calls=True, temperature=1.0, seed=3).choices[0]
    calls = choice.message.tool_calls
    whole = calls if choice.finish_reason == "tool_calls" else calls[:-1]  # The last may be cut at the length.
    for call in whole:
        call_is_good(call.function.name, call.function.arguments)
    same(len({call.id for call in calls}), len(calls), "ids")


@flow("tools: a tool without parameters")
def _():
    tool = {"type": "function", "function": {"name": "ping"}}
    [call] = required(tools=[tool]).choices[0].message.tool_calls
    same((call.function.name, kind(object_of(call.function.arguments), dict) is not None), ("ping", True))


@flow("tools: n answers with calls")
def _():
    for choice in required(n=2, temperature=1.0).choices:
        [call] = choice.message.tool_calls
        call_is_good(call.function.name, call.function.arguments)


def gathered(chunks):
    """Calls as the deltas of a stream give them: the id and the name come once, with the first delta of each."""
    calls = []
    for delta in (d for chunk in chunks for c in chunk.choices for d in c.delta.tool_calls or []):
        if delta.index == len(calls):
            same(bool(delta.id and delta.function.name and delta.type == "function"), True, f"the first delta {delta}")
            calls.append([delta.id, delta.function.name, ""])
        elif delta.id or (delta.function.name or ""):
            raise Failed(f"a later delta repeats the id or the name: {delta}")
        calls[delta.index][2] += delta.function.arguments or ""
    return calls


@flow("tools: streamed calls are the whole ones")
def _():
    for choice in ("required", {"type": "function", "function": {"name": "weather"}}):
        whole = required(tool_choice=choice).choices[0]
        chunks = list(required(tool_choice=choice, stream=True))
        calls = gathered(chunks)
        same([call[1:] for call in calls], [[c.function.name, c.function.arguments] for c in whole.message.tool_calls])
        reasons = [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]
        same(reasons, [whole.finish_reason], "finish reasons")


@flow("tools: pydantic_function_tool, parsed and streamed by the helper")
def _():
    tools = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Clock)]
    more = {
        "model": MODEL,
        "messages": MESSAGES,
        "tools": tools,
        "tool_choice": "required",
        "parallel_tool_calls": False,
        "max_completion_tokens": 200,
        **GREEDY,
    }
    [call] = client.chat.completions.parse(**more).choices[0].message.tool_calls
    kind(call.function.parsed_arguments, (Weather, Clock), "parsed")
    with client.chat.completions.stream(**more) as stream:
        events = list(stream)
        [final] = stream.get_final_completion().choices[0].message.tool_calls
    same(final.function.parsed_arguments, call.function.parsed_arguments)
    deltas = [e.arguments_delta for e in events if e.type == "tool_calls.function.arguments.delta"]
    same("".join(deltas), call.function.arguments, "deltas")
    same([e.name for e in events if e.type == "tool_calls.function.arguments.done"], [call.function.name], "done")


@flow("tools: a whole loop, results sent back")
def _():
    messages = list(MESSAGES)
    for turn in ("weather", "clock"):
        message = (
            required(messages=messages, tool_choice={"type": "function", "function": {"name": turn}}).choices[0].message
        )
        messages.append(message)
        messages += [{"role": "tool", "tool_call_id": call.id, "content": "sun"} for call in message.tool_calls]
    last = chat(messages, tools=TOOLS, tool_choice="none")
    same(
        kind(last.choices[0].message.content, str) is not None and last.choices[0].message.tool_calls,
        None,
        "calls at the end",
    )
    same(last.usage.prompt_tokens > chat().usage.prompt_tokens, True, "the prompt holds the results")
    parts = [*messages[:-1], {**messages[-1], "content": [{"type": "text", "text": "sun"}]}]
    same(
        chat(parts, tools=TOOLS, tool_choice="none").choices[0].message.content,
        last.choices[0].message.content,
        "as parts",
    )


@flow("tools: wrong choices and tools are refused by name")
def _():
    named = {"type": "function", "function": {"name": "nobody"}}
    bad = {"type": "function", "function": {"name": "x", "parameters": {"type": "nonsense"}}}
    for field, call in (
        ("tool_choice", lambda: chat(tools=TOOLS, tool_choice=named)),
        ("tool_choice", lambda: chat(tool_choice="required")),
        ("tools", lambda: chat(tools=[bad], tool_choice="required")),
        ("tools", lambda: chat(tools=[{"type": "function", "function": {}}])),
    ):
        error = refused(openai.BadRequestError, call, status_code=400)
        same(str(error.param).startswith(field), True, f"param {error.param} for {field}")


if __name__ == "__main__":
    run_all("openai tools")
