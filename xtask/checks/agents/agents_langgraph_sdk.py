"""langgraph-sdk against agents: assistants, threads, runs, streams, interrupts, strategies, errors.

    pip install langgraph-sdk
    python agents_langgraph_sdk.py BASE_URL
"""

import asyncio
import sys
from importlib.metadata import version

from langgraph_sdk import get_client, get_sync_client
from langgraph_sdk.errors import ConflictError, NotFoundError, UnprocessableEntityError

BASE = sys.argv[1].rstrip("/")
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


def said(text):
    return {"messages": [{"role": "user", "content": text}]}


def texts(values):
    return [message["content"] for message in values["messages"]]


async def refused(name, kind, call):
    try:
        await call
        check(name, False, "was accepted")
    except kind as error:
        check(name, bool(str(error)), error)


async def main():
    client = get_client(url=BASE)
    assistants = await client.assistants.search()
    check("assistants", [a["graph_id"] for a in assistants][:2] == ["echo", "looker"])
    found = await client.assistants.get(assistants[1]["assistant_id"])
    check("assistant by id", found["name"] == "looker")
    check("schemas", "messages" in (await client.assistants.get_schemas("looker"))["input_schema"]["properties"])
    check("graph", len((await client.assistants.get_graph("looker"))["nodes"]) == 4)
    check("count", await client.assistants.count() == len(assistants) or len(assistants) == 9)

    thread = await client.threads.create(metadata={"owner": "check"})
    id = thread["thread_id"]
    created = []
    parts = [part async for part in client.runs.stream(
        id, "looker", input=said("a"), stream_mode=["values", "updates", "messages-tuple", "custom"],
        on_run_created=created.append)]
    names = [part.event for part in parts]
    check("stream", names[0] == "metadata" and names[-1] == "end" and {"values", "updates", "messages", "custom"} <= set(names), names)
    check("run id", created and created[0]["run_id"] == parts[0].data["run_id"], created)
    last = [part for part in parts if part.event == "values"][-1]
    check("values", texts(last.data) == ["a", "let me look", "a cat", "it is a cat"], texts(last.data))
    v2 = [part async for part in client.runs.stream(id, "echo", input=said("b"), stream_mode=["values"], version="v2")]
    check("stream v2", v2[-1]["type"] in ("values", "end", "metadata") and any(p["type"] == "values" for p in v2), v2[-1]["type"])
    partial = [part.event async for part in client.runs.stream(id, "echo", input=said("c"), stream_mode="messages")]
    check("messages", "messages/partial" in partial and "messages/complete" in partial, partial)
    state = await client.threads.get_state(id)
    check("state", len(state["values"]["messages"]) == 8 and state["next"] == [], state["next"])
    history = await client.threads.get_history(id, limit=5)
    check("history", len(history) == 3 and history[0]["checkpoint"] == state["checkpoint"])
    check("state at", (await client.threads.get_state(id, checkpoint_id=history[1]["checkpoint"]["checkpoint_id"]))["values"] == history[1]["values"])
    check("search", id in [t["thread_id"] for t in await client.threads.search(metadata={"owner": "check"})])
    rejoined = [part async for part in client.runs.join_stream(id, parts[0].data["run_id"], stream_mode="values", last_event_id="3")]
    check("join stream", texts([p for p in rejoined if p.event == "values"][-1].data)[-1] == "it is a cat")

    thread = await client.threads.create()
    id = thread["thread_id"]
    waiting = await client.runs.wait(id, "mailer", input=said("hi"))
    request = waiting["__interrupt__"][0]["value"]
    check("interrupt", request["action_requests"][0]["name"] == "mail.send", request["action_requests"])
    check("interrupted", (await client.threads.get(id))["status"] == "interrupted")
    await refused("busy while waiting", ConflictError, client.runs.wait(id, "mailer", input=said("x")))
    edited = {"type": "edit", "edited_action": {"name": "mail.send", "args": {"to": "otto"}}}
    done = await client.runs.wait(id, "mailer", command={"resume": {"decisions": [edited]}})
    check("resume edit", 'done for local with {"to":"otto"}' in texts(done), texts(done))
    check("edit is kept", done["messages"][1]["tool_calls"][0]["args"] == {"to": "otto"}, done["messages"][1]["tool_calls"])
    await client.runs.wait(id, "pair", input=said("x"))
    resumed = [p async for p in client.runs.stream(id, "pair", command={"resume": {"decisions": [{"type": "approve"}, {"type": "reject", "message": "no"}]}}, stream_mode="updates")]
    check("resume two", [p.event for p in resumed][-1] == "end" and not any("__interrupt__" in (p.data or {}) for p in resumed), resumed[-2].data)

    run = await client.runs.create(id, "slow", input=said("x"))
    check("background", run["status"] == "running" and (await client.runs.list(id))[0]["run_id"] == run["run_id"])
    await refused("reject", ConflictError, client.runs.create(id, "echo", input=said("x"), multitask_strategy="reject"))
    queued = asyncio.create_task(client.runs.wait(id, "echo", input=said("queued"), multitask_strategy="enqueue"))
    await asyncio.sleep(0.3)
    await client.runs.cancel(id, run["run_id"], wait=True)
    check("cancelled", (await client.runs.get(id, run["run_id"]))["status"] == "interrupted")
    check("enqueue", texts(await queued)[-1] == "you said: queued")
    await client.runs.create(id, "slow", input=said("x"))
    done = await client.runs.wait(id, "echo", input=said("now"), multitask_strategy="interrupt")
    check("interrupt strategy", texts(done)[-1] == "you said: now")
    joined = await client.runs.join(id, (await client.runs.list(id))[0]["run_id"])
    check("join", texts(joined)[-1] == "you said: now")

    alone = await client.runs.wait(None, "former", input=said("x"))
    check("stateless, data", alone["structured_response"] == {"colour": "red"}, alone)
    try:
        await client.runs.wait(None, "failing", input=said("x"))
        check("failure", False)
    except Exception as error:
        check("failure", "the model is gone" in str(error), error)
    errors = [p.event async for p in client.runs.stream(None, "failing", input=said("x"))]
    check("failure streamed", errors[-1] == "error", errors)
    await refused("unknown thread", NotFoundError, client.threads.get("00000000-0000-0000-0000-000000000000"))
    await refused("unknown assistant", NotFoundError, client.runs.wait(None, "none", input=said("x")))
    await refused("mode by name", Exception, client.runs.create(id, "echo", input=said("x"), stream_mode="debug"))
    await refused("copy", UnprocessableEntityError, client.threads.copy(id))
    empty = await client.threads.create()
    await client.threads.delete(empty["thread_id"])
    await refused("deleted", NotFoundError, client.threads.get(empty["thread_id"]))
    await client.aclose()

    sync = get_sync_client(url=BASE)
    parts = list(sync.runs.stream(None, "echo", input=said("sync")))
    check("sync client", parts[-1].event == "end" and texts(parts[-2].data)[-1] == "you said: sync")


print("langgraph-sdk", version("langgraph-sdk"))
asyncio.run(main())
sys.exit(failures > 0)
