#!/usr/bin/env python3
"""The Python SDK (`pip install mcp httpx`) as an independent client of a server with the conformance fixtures.

  mcp_peer.py --server "target/release/examples/fixture"      starts it on a free port, and again with `stdio`
"""
import argparse, asyncio, json, subprocess, sys
import httpx
from mcp import Client, StdioServerParameters
import mcp_types as types

good, bad = [], []


def check(name, is_so, seen=""):
    (good if is_so else bad).append(name)
    print(("ok   " if is_so else "FAIL ") + name + ("" if is_so else f": {str(seen)[:300]}"))


async def elicited(context, params):
    fields = {name: field.get("default", "ann") for name, field in params.requested_schema["properties"].items()}
    return types.ElicitResult(action="accept", content=fields)


async def sampled(context, params):
    return types.CreateMessageResult(role="assistant", model="none", content=types.TextContent(type="text", text="Paris"))


def text(result):
    return " ".join(block.text for block in result.content if block.type == "text")


async def use(label, server, mode, revision):
    told = []

    async def progress(done, total, message):
        told.append(done)

    async with Client(server, mode=mode, elicitation_callback=elicited, sampling_callback=sampled) as client:
        check(f"{label}: revision", client.protocol_version == revision, client.protocol_version)
        tools = (await client.list_tools()).tools
        names = [tool.name for tool in tools]
        check(f"{label}: tools", len(names) == 28 and names[0] == "test_simple_text", (len(names), names[:2]))
        schema = next(tool for tool in tools if tool.name == "json_schema_2020_12_tool").input_schema
        check(f"{label}: schema as it is", schema["$defs"]["address"]["$anchor"] == "addressDef" and "else" in schema, schema)
        result = await client.call_tool("test_simple_text", {})
        check(f"{label}: call", "simple text" in text(result) and not result.is_error, result)
        result = await client.call_tool("test_error_handling", {})
        check(f"{label}: error that the model reads", result.is_error, result)
        result = await client.call_tool("test_elicitation", {"message": 1})
        check(f"{label}: arguments that do not fit", result.is_error and "message" in text(result), result)
        result = await client.call_tool("test_tool_with_progress", {}, progress_callback=progress)
        check(f"{label}: progress in order", told == [0, 50, 100], told)
        result = await client.call_tool("test_elicitation", {"message": "who?"})
        check(f"{label}: form", "ann" in text(result), result)
        result = await client.call_tool("test_sampling", {"prompt": "capital?"})
        check(f"{label}: the client's model", "Paris" in text(result), result)
        result = await client.call_tool("test_input_required_result_multi_round", {})
        check(f"{label}: two rounds", "both came" in text(result), result)
        result = await client.call_tool("test_image_content", {})
        check(f"{label}: picture", result.content[0].type == "image" and result.content[0].mime_type == "image/png", result)
        try:
            await client.call_tool("no_such_tool", {})
            check(f"{label}: unknown tool", False, "a result")
        except Exception as error:
            check(f"{label}: unknown tool", "no_such_tool" in str(error), error)
        resources = (await client.list_resources()).resources
        check(f"{label}: resources", [str(r.uri) for r in resources] == ["test://static-text", "test://static-binary"], resources)
        contents = (await client.read_resource("test://template/7/data")).contents
        check(f"{label}: template", json.loads(contents[0].text)["id"] == "7", contents)
        try:
            await client.read_resource("test://none")
            check(f"{label}: unknown resource", False, "a result")
        except Exception as error:
            check(f"{label}: unknown resource", "test://none" in str(error), error)
        prompts = (await client.list_prompts()).prompts
        check(f"{label}: prompts", len(prompts) == 5, prompts)
        prompt = await client.get_prompt("test_prompt_with_arguments", {"arg1": "a", "arg2": "b"})
        check(f"{label}: prompt", "arg1='a'" in prompt.messages[0].content.text, prompt)
        done = await client.complete(types.PromptReference(type="ref/prompt", name="test_prompt_with_arguments"),
                                     {"name": "arg1", "value": "par"})
        check(f"{label}: completion", done.completion.values == ["paris", "park", "party"], done)


def raw(url):
    """Requests that no SDK sends."""
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": {"name": "peer", "version": "1"},
            "io.modelcontextprotocol/clientCapabilities": {}}
    head = {"accept": "application/json, text/event-stream", "mcp-protocol-version": "2026-07-28", "mcp-method": "tools/list"}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}

    def status(name, expected, body=body, code=None, **headers):
        answer = httpx.post(url, json=body, headers={**head, **{k.replace("_", "-"): v for k, v in headers.items()}})
        found = None
        if code is not None:
            try:
                found = answer.json()["error"]["code"]
            except Exception:
                found = answer.text
        check(f"raw: {name}", answer.status_code == expected and found == code, (answer.status_code, answer.text))
        return answer

    port = url.split(":")[2].split("/")[0]
    status("plain", 200)
    status("foreign origin", 403, origin="https://evil.example", code=-32600)
    status("null origin", 403, origin="null", code=-32600)
    status("other port's origin", 403, origin="http://127.0.0.1:1", code=-32600)
    status("own origin", 200, origin=f"http://127.0.0.1:{port}")
    status("foreign host", 403, host="evil.example", code=-32600)
    status("foreign host with own origin", 403, host=f"evil.example:{port}", origin=f"http://evil.example:{port}", code=-32600)
    status("localhost", 200, host=f"localhost:{port}")
    status("header against body: method", 400, mcp_method="tools/call", code=-32020)
    status("header against body: revision", 400, mcp_protocol_version="2025-11-25", code=-32020)
    call = {**body, "method": "tools/call", "params": {"_meta": meta, "name": "test_simple_text", "arguments": {}}}
    status("header against body: name", 400, body=call, mcp_method="tools/call", mcp_name="other", code=-32020)
    old = json.loads(json.dumps(body).replace("2026-07-28", "1999-01-01"))
    status("unknown revision", 400, body=old, mcp_protocol_version="1999-01-01", code=-32022)
    status("unknown method", 404, body={**body, "method": "no/such"}, mcp_method="no/such", code=-32601)
    big = {**body, "params": {"_meta": meta, "cursor": "x" * (5 << 20)}}
    check("raw: too long", httpx.post(url, json=big, headers=head).status_code == 413)
    answer = httpx.post(url, content=b"{", headers={**head, "content-type": "application/json"})
    check("raw: no JSON", answer.status_code in (400, 415), answer.status_code)
    answer = httpx.post(url, json=body, headers={**head, "accept": "text/html"})
    check("raw: accepts nothing of ours", answer.status_code == 406, answer.status_code)
    check("raw: GET without a session", httpx.get(url, headers={"accept": "text/event-stream"}).status_code in (400, 405))
    deep = json.dumps(call).replace('"arguments": {}', '"arguments": ' + '{"a":' * 5000 + "1" + "}" * 5000)
    answer = httpx.post(url, content=deep, headers={**head, "mcp-method": "tools/call", "mcp-name": "test_simple_text",
                                                   "content-type": "application/json"})
    check("raw: 5,000 levels", answer.status_code in (400, 415, 422), (answer.status_code, answer.text))
    state = {**call, "params": {**call["params"], "name": "test_input_required_result_request_state",
                                "inputResponses": {"confirm": {"action": "accept", "content": {"ok": True}}},
                                "requestState": "rs1.AAAA.BBBB"}}
    state["params"]["_meta"] = {**meta, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    answer = httpx.post(url, json=state, headers={**head, "mcp-method": "tools/call",
                                                  "mcp-name": "test_input_required_result_request_state"})
    check("raw: forged state", "-32602" in answer.text, answer.text)


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--server", required=True)
    command = parser.parse_args().server
    server = subprocess.Popen([*command.split(), "0"], stdout=subprocess.PIPE, text=True)
    try:
        url = server.stdout.readline().strip()
        for mode, revision in [("2026-07-28", "2026-07-28"), ("auto", "2026-07-28"), ("legacy", "2025-11-25")]:
            await use(f"http {mode}", url, mode, revision)
        raw(url)
    finally:
        server.kill()
    program, *arguments = command.split()
    for mode, revision in [("auto", "2026-07-28"), ("legacy", "2025-11-25")]:
        await use(f"stdio {mode}", StdioServerParameters(command=program, args=[*arguments, "stdio"]), mode, revision)
    print(f"{len(good)} of {len(good) + len(bad)}")
    return 1 if bad else 0


sys.exit(asyncio.run(main()))
