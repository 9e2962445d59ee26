"""What a step of an agent costs besides the model and the tool, in Narthex and in LangGraph.

    cargo build --release -p narthex-agent --example steps
    bench/agents/steps.py OURS FOLDER [--steps 100] [--times 5] [--postgres URL]

OURS: the program `target/release/examples/steps`. FOLDER: where both keep their databases; the disk's time for a write is
measured there, too, since a step that is on disk before the next takes that long at least. A folder in memory (`/dev/shm`)
shows what is left without it. Both play the same script: a model that answers at once, a tool that does nothing, so many steps
in one run, each on disk: SQLite with WAL and `synchronous = FULL`, which is what SqliteSaver has as it comes; LangGraph with
`durability="sync"`, its own word for a checkpoint that is kept before the next step begins. Each measurement is a new process
and a new database; they alternate. Needs langgraph and langgraph-checkpoint-sqlite.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version


def theirs(database: str, steps: int, durability: str) -> float:
    """Milliseconds of a step in LangGraph."""
    import sqlite3

    from langchain_core.messages import AIMessage, HumanMessage
    from langchain_core.tools import tool
    from langgraph.checkpoint.sqlite import SqliteSaver
    from langgraph.graph import END, START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode

    @tool
    def nothing(step: int) -> str:
        """Does nothing."""
        return "nothing"

    def model(state: MessagesState):
        said = sum(message.type == "ai" for message in state["messages"])
        if said == steps:
            return {"messages": [AIMessage("done")]}
        call = {"name": "nothing", "args": {"step": said}, "id": f"call-{said}", "type": "tool_call"}
        return {"messages": [AIMessage("", tool_calls=[call])]}

    def more(state: MessagesState):
        return "tools" if state["messages"][-1].tool_calls else END

    graph = StateGraph(MessagesState)
    graph.add_node("model", model)
    graph.add_node("tools", ToolNode([nothing]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", more, ["tools", END])
    graph.add_edge("tools", "model")
    with sqlite3.connect(database, check_same_thread=False) as connection:
        saver = SqliteSaver(connection)
        saver.setup()
        [mode] = connection.execute("pragma journal_mode").fetchone()
        [synchronous] = connection.execute("pragma synchronous").fetchone()
        assert (mode, synchronous) == ("wal", 2), (mode, synchronous)
        agent = graph.compile(checkpointer=saver)
        config = {"configurable": {"thread_id": "one"}, "recursion_limit": 2 * steps + 10}
        start = time.perf_counter()
        state = agent.invoke({"messages": [HumanMessage("do it")]}, config, durability=durability)
        ms = (time.perf_counter() - start) * 1e3
        assert len(state["messages"]) == 2 * steps + 2, len(state["messages"])
    return ms / steps


def write_ms(folder: pathlib.Path) -> float:
    """Milliseconds of one small write that is on disk, the median of 100."""
    path = folder / "write"
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    times = []
    for index in range(100):
        os.pwrite(file, b"x" * 4096, index * 4096)
        start = time.perf_counter()
        os.fdatasync(file)
        times.append((time.perf_counter() - start) * 1e3)
    os.close(file)
    path.unlink()
    return statistics.median(times)


def measured(command: list[str]) -> float:
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("ours")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--durability", default="sync")
    parser.add_argument("--postgres", help="a database of ours beside it")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    names = ["ours", "langgraph"] + (["ours, PostgreSQL"] if arguments.postgres else [])
    times, disk = {name: [] for name in names}, []
    for index in range(arguments.times):
        folder = pathlib.Path(tempfile.mkdtemp(dir=arguments.folder))
        disk.append(write_ms(folder))
        steps = str(arguments.steps)
        for name in names:
            if name == "langgraph":
                command = [sys.executable, __file__, "--peer", str(folder / "peer.db"), steps, arguments.durability]
            else:
                store = str(folder / "ours.db") if name == "ours" else arguments.postgres
                command = [arguments.ours, store, steps]
            times[name].append(measured(command))
        sizes = {name: (folder / name).stat().st_size for name in ("ours.db", "peer.db")}
        shutil.rmtree(folder)
    print(f"{arguments.steps} steps, {arguments.times} times, langgraph {version('langgraph')} ({arguments.durability}), "
          f"langgraph-checkpoint-sqlite {version('langgraph-checkpoint-sqlite')}")
    print(f"one write to this disk: {statistics.median(disk):.3f} ms; databases at the end: {json.dumps(sizes)} bytes")
    for name in names:
        each = " ".join(f"{ms:.3f}" for ms in times[name])
        print(f"{name:18} {statistics.median(times[name]):9.3f} ms a step   ({each})")
    print(f"langgraph / ours: {statistics.median(times['langgraph']) / statistics.median(times['ours']):.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peer"]:
        print(theirs(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        main()
