"""LangGraph: agents with two tools over three turns, memory, streams, structured answers, interrupts, graphs by hand.

    python xtask/checks/clients/langgraph_check.py http://127.0.0.1:8000 MODEL

The model has no sense: a tool's name is forced in the first two turns, and none in the third.
"""

import asyncio
from typing import Annotated, TypedDict

from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, wrap_model_call
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages
from langgraph.prebuilt import ToolNode, create_react_agent, tools_condition
from langgraph.types import Command

from flows import KEY, MODEL, V1, flow, in_loop, kind, run_all, same
from samples import QUESTION, Verdict, clock, weather

tools = [tool(weather), tool(clock)]
ASKED = {"messages": [HumanMessage(QUESTION)]}
TURNS = ["weather", "clock", "none"]


def chat(**more):
    asked = {"temperature": 0, "seed": 1, "max_tokens": 200, "max_retries": 0, "timeout": 120}
    return ChatOpenAI(model=MODEL, base_url=V1, api_key=KEY, **{**asked, **more})


def turn_of(messages):
    """How many tools have answered since the person last spoke."""
    last = max(at for at, message in enumerate(messages) if isinstance(message, HumanMessage))
    return sum(isinstance(message, ToolMessage) for message in messages[last:])


def settings_of(messages):
    choice = TURNS[min(turn_of(messages), 2)]
    return {"tool_choice": choice, **({"max_tokens": 24} if choice == "none" else {"parallel_tool_calls": False})}


def bound(messages):
    return chat().bind_tools(tools, **settings_of(messages))


@wrap_model_call
def forcing(request, handler):
    """Middleware that says which tool is called in which turn."""
    settings = settings_of(request.messages)
    choice = settings.pop("tool_choice")
    return handler(request.override(tool_choice=choice, model_settings={**request.model_settings, **settings}))


@wrap_model_call
async def forcing_async(request, handler):
    settings = settings_of(request.messages)
    choice = settings.pop("tool_choice")
    return await handler(request.override(tool_choice=choice, model_settings={**request.model_settings, **settings}))


def went_well(messages):
    """Person, call, result, call, result, answer."""
    kinds = [HumanMessage, AIMessage, ToolMessage, AIMessage, ToolMessage, AIMessage]
    messages = messages[-6:]
    same([type(message) for message in messages], kinds, "messages")
    same([message.name for message in messages if isinstance(message, ToolMessage)], ["weather", "clock"], "tools")
    same("days of sun in" in messages[2].content and "noon" in messages[4].content, True, "results")
    same(messages[1].tool_calls[0]["id"], messages[2].tool_call_id, "the call's id")
    same(messages[-1].tool_calls, [], "calls at the end")
    kind(messages[-1].content, str)


@flow("create_react_agent: two tools, three turns")
def _():
    agent = create_react_agent(lambda state, runtime: bound(state["messages"]), tools)
    went_well(agent.invoke(ASKED)["messages"])


@flow("create_agent: two tools, three turns")
def _():
    agent = create_agent(chat(), tools, system_prompt="You are a helpful assistant.", middleware=[forcing])
    went_well(agent.invoke(ASKED)["messages"])


@flow("create_agent: streamed updates and tokens")
def _():
    agent = create_agent(chat(), tools, middleware=[forcing])
    updates = list(agent.stream(ASKED, stream_mode="updates"))
    same([next(iter(update)) for update in updates], ["model", "tools", "model", "tools", "model"], "steps")
    whole = agent.invoke(ASKED)["messages"][-1].content
    pieces = [(piece, about) for piece, about in agent.stream(ASKED, stream_mode="messages")]
    text = "".join(
        piece.content for piece, about in pieces if isinstance(piece, AIMessage) and isinstance(piece.content, str)
    )
    same(text.endswith(whole), True, "tokens end with the answer")
    same(
        sum(bool(piece.tool_call_chunks) for piece, _ in pieces if hasattr(piece, "tool_call_chunks")) >= 2,
        True,
        "calls in pieces",
    )


@flow("create_agent: async, three at once")
@in_loop
async def _():
    agent = create_agent(chat(), tools, middleware=[forcing_async])
    for state in await asyncio.gather(*(agent.ainvoke(ASKED) for _ in range(3))):
        went_well(state["messages"])


@flow("create_agent: memory over two questions of a thread")
def _():
    agent = create_agent(chat(), tools, middleware=[forcing], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "one"}}
    went_well(agent.invoke(ASKED, thread)["messages"])
    state = agent.invoke({"messages": [HumanMessage("Again, please.")]}, thread)
    same(len(state["messages"]), 12, "messages of the thread")
    went_well(state["messages"])


@flow("create_agent: structured answer by the provider's schema")
def _():
    agent = create_agent(chat(), [], response_format=ProviderStrategy(Verdict))
    kind(agent.invoke(ASKED)["structured_response"], Verdict)


@flow("create_agent: structured answer by a tool")
def _():
    agent = create_agent(chat(model_kwargs={"parallel_tool_calls": False}), [], response_format=ToolStrategy(Verdict))
    kind(agent.invoke(ASKED)["structured_response"], Verdict)


@flow("create_agent: a person approves a call")
def _():
    asking = HumanInTheLoopMiddleware(interrupt_on={"weather": True})
    agent = create_agent(chat(), tools, middleware=[forcing, asking], checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "one"}}
    stopped = agent.invoke(ASKED, thread)
    [request] = stopped["__interrupt__"][0].value["action_requests"]
    same(request["name"], "weather", "the call to approve")
    went_well(agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), thread)["messages"])


class State(TypedDict):
    messages: Annotated[list, add_messages]


def by_hand():
    graph = StateGraph(State)
    graph.add_node("ask", lambda state: {"messages": [bound(state["messages"]).invoke(state["messages"])]})
    graph.add_node("tools", ToolNode(tools))
    graph.add_edge(START, "ask")
    graph.add_conditional_edges("ask", tools_condition, {"tools": "tools", END: END})
    graph.add_edge("tools", "ask")
    return graph.compile()


@flow("StateGraph: a loop of tools by hand")
def _():
    went_well(by_hand().invoke(ASKED)["messages"])


@flow("StateGraph: a route chosen by a structured answer")
def _():
    def judge(state):
        verdict = chat().with_structured_output(Verdict).invoke(state["messages"])
        return {"messages": [AIMessage(verdict.mood)]}

    graph = StateGraph(State)
    graph.add_node("judge", judge)
    for mood in ("good", "bad", "mixed"):
        graph.add_node(mood, lambda state, mood=mood: {"messages": [AIMessage(f"went {mood}")]})
        graph.add_edge(mood, END)
    graph.add_edge(START, "judge")
    graph.add_conditional_edges("judge", lambda state: state["messages"][-1].content, ["good", "bad", "mixed"])
    messages = graph.compile().invoke(ASKED)["messages"]
    same(messages[-1].content, f"went {messages[-2].content}")


if __name__ == "__main__":
    run_all("langgraph")
