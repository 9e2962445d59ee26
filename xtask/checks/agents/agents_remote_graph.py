"""LangGraph's RemoteGraph over agents: alone, with a thread, with interrupts, and as a node of another graph.

    pip install langgraph langgraph-sdk
    python agents_remote_graph.py BASE_URL
"""

import sys
import uuid
from importlib.metadata import version

from langchain_core.messages import HumanMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.pregel.remote import RemoteException, RemoteGraph
from langgraph.types import Command

BASE = sys.argv[1].rstrip("/")
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


def config():
    return {"configurable": {"thread_id": str(uuid.uuid4())}}


def said(text):
    return {"messages": [HumanMessage(text)]}


print("langgraph", version("langgraph"))
looker = RemoteGraph("looker", url=BASE)
done = looker.invoke(said("a"))
check("invoke", [m["content"] for m in done["messages"]] == ["a", "let me look", "a cat", "it is a cat"], done)
updates = list(looker.stream(said("a"), stream_mode="updates"))
check("updates", [next(iter(u)) for u in updates] == ["model", "tools", "model"], updates)
pieces = list(looker.stream(said("a"), stream_mode="messages"))
check("messages", pieces[0][1]["langgraph_node"] == "model", len(pieces))
check("graph", len(looker.get_graph().nodes) == 4)

mailer = RemoteGraph("mailer", url=BASE)
own = config()
waiting = mailer.invoke(said("hi"), own)
check("interrupt", waiting["__interrupt__"][0]["value"]["action_requests"][0]["name"] == "mail.send", waiting.get("__interrupt__"))
state = mailer.get_state(own)
check("state waits", state.next == ("tools",) and len(state.interrupts) == 1, state.next)
done = mailer.invoke(Command(resume={"decisions": [{"type": "approve"}]}), own)
check("resume", done["messages"][-1]["content"] == "that is all", done["messages"][-1]["content"])
state = mailer.get_state(own)
check("state done", state.next == () and len(state.values["messages"]) == 4)
check("history", len(list(mailer.get_state_history(own))) == 1)
try:
    RemoteGraph("failing", url=BASE).invoke(said("a"))
    check("failure", False)
except RemoteException as error:
    check("failure", "the model is gone" in str(error), error)

builder = StateGraph(MessagesState)
builder.add_node("remote", RemoteGraph("echo", url=BASE, name="remote"))
builder.add_edge(START, "remote")
outer = builder.compile()
done = outer.invoke(said("inner"))
check("node", done["messages"][-1].content == "you said: inner", done["messages"][-1])

builder = StateGraph(MessagesState)
builder.add_node("remote", mailer)
builder.add_edge(START, "remote")
outer = builder.compile(checkpointer=InMemorySaver())
own = config()
waiting = outer.invoke(said("hi"), own)
check("node interrupts", "__interrupt__" in waiting, waiting.get("__interrupt__"))
try:
    done = outer.invoke(Command(resume={"decisions": [{"type": "approve"}]}), own)
    check("node resumes", done["messages"][-1].content == "that is all", done["messages"][-1])
except Exception as error:
    check("node resumes", False, repr(error))
sys.exit(failures > 0)
