#!/usr/bin/env python3
"""The Python SDK (`pip install mcp`) as an independent client of `narthex mcp`, on standard input and output and over HTTP.

  mcp_verbs.py --narthex target/release/narthex       makes a small project in a temporary folder
"""
import argparse, asyncio, json, os, pathlib, subprocess, sys, tempfile, time
from mcp import Client, StdioServerParameters
import mcp_types as types

PROJECT = """[project]
name = "tiny"
[sources.lines]
path = "lines.txt"
rows = "line"
license = "CC0-1.0"
origin = "made for this check"
[steps.documents]
kind = "data"
from = "lines"
validation = 0.2
[steps.tokens]
kind = "tokenize"
from = "documents"
vocab_size = 280
[steps.base]
kind = "train"
data = "tokens"
model = { hidden_size = 32, intermediate_size = 48, layers = 1, heads = 2, kv_heads = 1 }
schedule = { steps = 40, batch_size = 4, context = 48, lr = 1e-2, warmup = 5, checkpoint_every = 10, keep_checkpoints = true }
"""
READING = ["list_artifacts", "show_artifact", "trace_lineage", "license_report", "show_config", "what_would_run",
           "plan_memory", "show_data", "verify", "generate", "chat", "embed", "classify"]
WRITING = ["run", "reproduce", "quantize", "export"]
good, bad = [], []


def check(name, is_so, seen=""):
    (good if is_so else bad).append(name)
    print(("ok   " if is_so else "FAIL ") + name + ("" if is_so else f": {str(seen)[:400]}"))


def text(result):
    return " ".join(block.text for block in result.content if block.type == "text")


async def use(label, server, mode, writes):
    told = []

    async def progress(done, total, message):
        told.append((done, total, message))

    async with Client(server, mode=mode) as client:
        tools = (await client.list_tools()).tools
        names = [tool.name for tool in tools]
        check(f"{label}: tools", names == READING + (WRITING if writes else []), names)
        hints = {tool.name: tool.annotations and tool.annotations.read_only_hint for tool in tools}
        check(f"{label}: who reads", all(hints[name] is True for name in READING)
              and not any(hints.get(name) for name in WRITING), hints)
        check(f"{label}: described", all(len(tool.description) > 40 and tool.input_schema["type"] == "object" for tool in tools))

        async def call(tool, **arguments):
            result = await client.call_tool(tool, arguments, progress_callback=progress)
            check(f"{label}: {tool}", not result.is_error and json.loads(text(result)) == result.structured_content, result)
            return result.structured_content or {}

        if writes:
            ahead = await call("what_would_run")
            check(f"{label}: all would run", [row["state"] for row in ahead.get("rows", [])] == ["planned"] * 3, ahead)
            report = await call("run")
            check(f"{label}: all ran", [row["state"] for row in report.get("rows", [])] == ["made"] * 3, report)
            check(f"{label}: progress grows", len(told) >= 6 and all(a[0] < b[0] for a, b in zip(told, told[1:]))
                  and told[-1][:2] == (3, 3), told)
            await call("quantize", reference="base", to="int8")
            await call("export", reference="base", folder="out")
            again = await call("reproduce", reference="base")
            check(f"{label}: reproduced", again and again["steps"][-1]["digest"] == again["digest"], again)
            result = await client.call_tool("export", {"reference": "base", "folder": "/tmp/elsewhere"})
            check(f"{label}: nothing elsewhere", result.is_error, result)
        listed = (await call("list_artifacts", kind="model")).get("artifacts", [])
        check(f"{label}: models", {"base", "base-int8"} <= {one["name"] for one in listed}, listed)
        base = await call("show_artifact", reference="base")
        check(f"{label}: manifest", base and base["manifest"]["kind"] == "model", base)
        tree = await call("trace_lineage", reference="base")
        check(f"{label}: down to the file", "lines.txt" in json.dumps(tree), tree)
        await call("license_report", reference="base")
        await call("show_config")
        await call("plan_memory", step="base")
        await call("show_data", reference="lines")
        verified = await call("verify", reference="base", samples=1)
        check(f"{label}: verified", verified and len(verified["checked"]) == 1, verified)
        one = await call("generate", model="base", prompt="3 and", max_tokens=8, temperature=0)
        two = await call("generate", model="base", prompt="3 and", max_tokens=8, temperature=0)
        check(f"{label}: the same text twice", one and one["text"] == two["text"] and one["completion_tokens"] > 0, (one, two))
        result = await client.call_tool("embed", {"model": "base", "texts": ["a"]})
        check(f"{label}: an error that helps", result.is_error and "narthex generate" in text(result), result)
        result = await client.call_tool("show_artifact", {"reference": "bass"})
        check(f"{label}: a near name", result.is_error and "did you mean `base`?" in text(result), result)
        resources = {str(one.uri) for one in (await client.list_resources()).resources}
        check(f"{label}: resources", {"narthex://project", "narthex://schema", "narthex://artifact/base"} <= resources, resources)
        for uri in ["narthex://project", "narthex://schema", "narthex://artifact/base", "narthex://lineage/base", "narthex://licence/base"]:
            contents = (await client.read_resource(uri)).contents
            check(f"{label}: {uri}", len(contents) == 1 and len(contents[0].text) > 100, contents)
        try:
            await client.read_resource("narthex://artifact/..%2f..%2fetc")
            check(f"{label}: nothing there", False, "something")
        except Exception as error:
            check(f"{label}: nothing there", "place on disk" in str(error), error)
        done = await client.complete(types.ResourceTemplateReference(type="ref/resource", uri="narthex://artifact/{reference}"),
                                     {"name": "reference", "value": "ba"})
        check(f"{label}: completion", done.completion.values == ["base", "base-int8"], done)
        prompts = [prompt.name for prompt in (await client.list_prompts()).prompts]
        check(f"{label}: prompts", prompts == ["explain_origin", "review_project", "write_model_card"], prompts)
        for name, arguments, pieces in [("explain_origin", {"reference": "base"}, 3), ("review_project", {}, 3),
                                        ("write_model_card", {"reference": "base"}, 4)]:
            prompt = await client.get_prompt(name, arguments)
            check(f"{label}: prompt {name}", len(prompt.messages) == pieces, prompt)


async def cancelled(server, folder):
    """A client that gives up: the run saves and stops, and the next one goes on."""
    async with Client(server, mode="legacy") as client:
        begun = asyncio.Event()

        async def progress(done, total, message):
            if message.startswith("base:"):
                begun.set()

        arguments = {"set": ["base.steps=1000000"]}
        task = asyncio.create_task(client.call_tool("run", arguments, progress_callback=progress))
        await asyncio.wait_for(begun.wait(), 120)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            pass
        for _ in range(600):
            report = await client.call_tool("run", {"to": "tokens"})
            if not report.is_error:
                break
            await asyncio.sleep(0.1)
        check("cancelled: the ledger is free again", not report.is_error, report)
        ahead = await client.call_tool("what_would_run", arguments)
        check("cancelled: it goes on", "checkpoint" in ahead.structured_content["rows"][2]["reason"], ahead)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--narthex", required=True)
    narthex = os.path.abspath(parser.parse_args().narthex)
    with tempfile.TemporaryDirectory() as home:
        folder = pathlib.Path(home)
        (folder / "narthex.toml").write_text(PROJECT)
        lines = [f"{i % 12} and {i // 12} make {i % 12 + i // 12}" for i in range(120)]
        (folder / "lines.txt").write_text("\n".join(lines))

        def stdio(*flags):
            return StdioServerParameters(command=narthex, args=["mcp", "--project", home, *flags])

        await use("stdio newest", stdio("--allow-writes"), "auto", True)
        await use("stdio 2025-11-25", stdio(), "legacy", False)
        server = subprocess.Popen([narthex, "mcp", "--project", home, "--port", "0"], stderr=subprocess.PIPE, text=True)
        try:
            url = next(line.split()[1] for line in server.stderr if line.strip().startswith("MCP "))
            await use("http newest", url, "auto", False)
            await use("http 2025-11-25", url, "legacy", False)
        finally:
            server.terminate()
        begun = time.monotonic()
        server.wait(60)
        check("http: a signal ends it", time.monotonic() - begun < 60)
        await cancelled(stdio("--allow-writes"), folder)
    print(f"{len(good)} of {len(good) + len(bad)}")
    return 1 if bad else 0


sys.exit(asyncio.run(main()))
