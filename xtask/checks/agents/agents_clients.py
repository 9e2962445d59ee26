#!/usr/bin/env python3
"""LangChain's clients, unchanged, against `narthex agent serve`: langchain-mcp-adapters with create_agent,
langchain-openai with create_agent, and langgraph-sdk; each asks, streams, and answers an approval.

    pip install langchain-mcp-adapters langchain langchain-openai langgraph-sdk uvicorn
    python agents_clients.py BINARY          beside agents_world.py
"""
import asyncio, json, os, sys
from importlib.metadata import version

from agents_world import SENDS, Served, World, check, failures, text, tool
from langchain.agents import create_agent
from langchain_core.tools import tool as local_tool
from langchain_mcp_adapters.callbacks import Callbacks
from langchain_mcp_adapters.client import MultiServerMCPClient
from langchain_openai import ChatOpenAI
from langgraph_sdk import get_client
from mcp.types import ElicitResult


async def adapters(world, agents, base):
    progress, forms = [], []

    async def elicited(_, params, context):
        forms.append((params.message, params.requestedSchema))
        field = next(iter(params.requestedSchema["properties"].items()))
        print("    form:", params.message[:200], json.dumps(params.requestedSchema)[:300])
        values = {}
        for name, schema in params.requestedSchema["properties"].items():
            options = schema.get("enum") or [option["const"] for option in schema.get("oneOf", [])]
            kind = schema.get("type")
            if options:
                values[name] = next((option for option in options if "approve" in str(option)), options[0])
            elif kind == "boolean":
                values[name] = True
            elif name in params.requestedSchema.get("required", []):
                values[name] = "ann"
        return ElicitResult(action="accept", content=values)

    async def told(done, total, message, context):
        progress.append((done, message))

    server = {"narthex": {"url": f"{base}/mcp", "transport": "streamable_http"}}
    client = MultiServerMCPClient(server, callbacks=Callbacks(on_elicitation=elicited, on_progress=told))
    tools = {tool.name: tool for tool in await client.get_tools()}
    check("agents are tools", sorted(tools) == ["asker", "clerk"], {name: tool.args for name, tool in tools.items()})
    world.script = [[("s_read", {})], "it is a cat"]
    argument = next(iter(tools["clerk"].args))
    said = await tools["clerk"].ainvoke({argument: "what is it?"})
    check("a tool's answer", "it is a cat" in str(said), said)
    check("progress", True, progress[:3])
    world.script = [[("s_send", {"to": "bob"})], "sent"]
    world.calls.clear()
    said = await tools["asker"].ainvoke({argument: "send it"})
    check("an approval is an elicitation", forms and world.calls == [("s", "send", {"to": "bob"})], (world.calls, said))
    check("which shows tool and arguments", forms and "s.send" in forms[0][0] and "bob" in forms[0][0], forms[:1])

    async def declined(_, params, context):
        return ElicitResult(action="decline")

    world.script, world.calls = [[("s_send", {"to": "bob"})], "not sent"], []
    client = MultiServerMCPClient(server, callbacks=Callbacks(on_elicitation=declined))
    tools = {tool.name: tool for tool in await client.get_tools()}
    said = await tools["asker"].ainvoke({argument: "send it"})
    check("declined: not made", not world.calls, said)

    world.script, world.calls = [[("s_send", {"to": "bob"})], "not sent"], []
    client = MultiServerMCPClient(server)
    tools = {tool.name: tool for tool in await client.get_tools()}
    said = await tools["asker"].ainvoke({argument: "send it"})
    check("a client that knows no elicitation is told who waits", not world.calls and "run" in str(said), said)

    # The same model answers LangChain's agent and ours: theirs first, ours within, theirs again.
    world.script = [[("clerk", {argument: "what is it?"})], [("s_read", {})], "it is a cat", "They say it is a cat."]
    theirs = create_agent(ChatOpenAI(model="m", base_url=f"http://127.0.0.1:{world.port}/v1", api_key="none", streaming=True),
                          list(tools.values()))
    state = await theirs.ainvoke({"messages": [("user", "Ask the clerk.")]})
    shown = [(message.type, str(message.content)[:80]) for message in state["messages"]]
    check("create_agent calls an agent of ours", shown[-1][1] == "They say it is a cat." and "cat" in shown[2][1], shown)


async def openai(world, agents, base):
    for responses in (False, True):
        kind = "responses" if responses else "chat"
        model = ChatOpenAI(model="clerk", base_url=f"{base}/v1", api_key="none", use_responses_api=responses, max_retries=0)
        world.script = [[("s_read", {})], "it is a cat"]
        state = await create_agent(model, []).ainvoke({"messages": [("user", "what is it?")]})
        check(f"create_agent over an agent of ours, {kind}", "it is a cat" in state["messages"][-1].text,
              [(m.type, m.text[:60]) for m in state["messages"]])
        world.script = [[("s_read", {})], "it is a cat"]
        pieces = [chunk async for chunk in create_agent(model, []).astream({"messages": [("user", "what?")]}, stream_mode="messages")]
        check(f"streamed, {kind}", "it is a cat" in "".join(piece[0].text for piece in pieces), len(pieces))

        @local_tool
        def add(a: int, b: int) -> int:
            """Adds."""
            return a + b

        try:
            await create_agent(model, [add]).ainvoke({"messages": [("user", "1 + 1")]})
            check(f"tools of a client, {kind}", False, "were accepted")
        except Exception as error:
            check(f"tools of a client are refused with words, {kind}", "tools" in str(error), error)


async def langgraph(world, agents, base):
    client = get_client(url=base)
    names = [assistant["name"] for assistant in await client.assistants.search()]
    check("assistants", sorted(names) == ["asker", "clerk"], names)
    thread = (await client.threads.create())["thread_id"]
    world.script = [[("s_read", {})], "it is a cat"]
    said = {"messages": [{"role": "user", "content": "what is it?"}]}
    done = await client.runs.wait(thread, "clerk", input=said)
    check("wait", done["messages"][-1]["content"] == "it is a cat", [m["type"] for m in done["messages"]])
    world.script = [[("s_read", {})], "a cat again"]
    parts = [part async for part in client.runs.stream(thread, "clerk", input=said, stream_mode=["messages-tuple", "updates"])]
    check("stream", parts[-1].event == "end" and "a cat again" in json.dumps([part.data for part in parts]), len(parts))
    thread = (await client.threads.create())["thread_id"]
    world.script, world.calls = [[("s_send", {"to": "bob"})], "sent"], []
    waits = await client.runs.wait(thread, "asker", input=said)
    action = waits["__interrupt__"][0]["value"]["action_requests"][0]
    check("interrupt", action["name"] == "s.send" and action["args"] == {"to": "bob"} and not world.calls, action)
    edited = {"type": "edit", "edited_action": {"name": "s.send", "args": {"to": "ann"}}}
    done = await client.runs.wait(thread, "asker", command={"resume": {"decisions": [edited]}})
    check("resume with an edit", world.calls == [("s", "send", {"to": "ann"})], (world.calls, done["messages"][-1]["content"]))
    other = {"type": "edit", "edited_action": {"name": "s.read", "args": {}}}
    world.script, world.calls = [[("s_send", {"to": "bob"})], "sent"], []
    await client.runs.wait(thread, "asker", input=said)
    try:
        await client.runs.wait(thread, "asker", command={"resume": {"decisions": [other]}})
        check("an edit to another tool is refused", False, world.calls)
    except Exception as error:
        check("an edit to another tool is refused", not world.calls, error)
    try:
        two = [{"type": "approve"}, {"type": "approve"}]
        await client.runs.wait(thread, "asker", command={"resume": {"decisions": two}})
        check("two decisions for one question are refused", False, world.calls)
    except Exception as error:
        check("two decisions for one question are refused", not world.calls, error)
    await client.runs.wait(thread, "asker", command={"resume": {"decisions": [{"type": "approve"}]}})
    check("approved, it is made", world.calls == [("s", "send", {"to": "bob"})], world.calls)
    await client.aclose()


async def main():
    for package in ("langchain", "langchain-openai", "langchain-mcp-adapters", "langgraph-sdk", "mcp"):
        print(package, version(package))
    world = World()
    world.tools["s"] = [tool("read"), SENDS]
    world.answer["s"] = lambda body, result: result(text("a cat"))
    keys = 'tools = ["s.*"]\npolicy = {{ default = "{}", rules = [{{ tool = "s.read", then = "allow" }}] }}'
    folder = world.project({"clerk": 'description = "Looks."\n' + keys.format("deny"), "asker": keys.format("ask")})
    async with world.up(), Served(os.path.abspath(sys.argv[1]), folder) as served:
        for part in (adapters, openai, langgraph):
            print(f"-- {part.__name__}")
            try:
                await part(world, served, f"http://127.0.0.1:{served.port}")
            except Exception as error:
                import traceback
                traceback.print_exc()
                check(part.__name__, False, repr(error)[:300])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
