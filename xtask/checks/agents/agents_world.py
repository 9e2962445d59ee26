"""What checks of agents share: an outside with a scripted model and servers of tools that say what no SDK would, and
`narthex agent serve` over a project of its own.
"""
import asyncio, contextlib, json, os, pathlib, re, signal, socket, subprocess, tempfile, time

import httpx, uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

failures = []


def check(name, good, detail=""):
    if not good:
        failures.append(name)
    print(("ok   " if good else "FAIL ") + name + (f": {str(detail)[:400]}" if detail != "" else ""), flush=True)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def tool(name, description="It does something.", schema=None):
    return {"name": name, "description": description, "inputSchema": schema or {"type": "object"}}


def text(said, **more):
    return {"content": [{"type": "text", "text": said}], **more}


class World:
    """The outside: a model at /v1, servers of tools at /mcp/NAME, and a port that nobody must ask."""

    def __init__(self):
        self.port, self.script, self.requests, self.calls = free_port(), [], [], []
        self.tools, self.answer, self.asked = {}, {}, []

    async def model(self, request):
        body = await request.json()
        self.requests.append(body)
        if "tools" not in body and self.summary:
            step = self.summary
        else:
            step = self.script.pop(0) if self.script else "done"
        calls = [] if isinstance(step, str) else step
        delta = {"role": "assistant", "content": step if isinstance(step, str) else None}
        if calls:
            delta["tool_calls"] = [
                {"index": index, "id": f"c{len(self.requests)}_{index}", "type": "function", "function": {
                    "name": name, "arguments": args if isinstance(args, str) else json.dumps(args)}}
                for index, (name, args) in enumerate(calls)]
        chunk = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [
            {"index": 0, "delta": delta, "finish_reason": "tool_calls" if calls else "stop"}]}
        return Response(f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n", media_type="text/event-stream")

    summary = None

    async def mcp(self, request):
        name = request.path_params["name"]
        if request.method != "POST":
            return Response(status_code=405)
        body = await request.json()
        method, id = body.get("method"), body.get("id")
        self.asked.append((name, method, dict(request.headers)))

        def result(value):
            return JSONResponse({"jsonrpc": "2.0", "id": id, "result": value})

        if method == "initialize":
            return result({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                           "serverInfo": {"name": name, "version": "1"}})
        if id is None:
            return Response(status_code=202)
        if method == "tools/list":
            tools = self.tools[name]
            if isinstance(tools, str):
                return Response('{"jsonrpc":"2.0","id":%s,"result":{"tools":%s}}' % (json.dumps(id), tools),
                                media_type="application/json")
            return result(tools(body.get("params") or {}) if callable(tools) else {"tools": tools})
        if method == "tools/call":
            self.calls.append((name, body["params"]["name"], body["params"].get("arguments")))
            answer = self.answer.get(name)
            given = answer(body, result) if answer else result(text("a result"))
            return await given if asyncio.iscoroutine(given) else given
        return JSONResponse({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}, status_code=404)

    @contextlib.asynccontextmanager
    async def up(self):
        routes = [Route("/v1/chat/completions", self.model, methods=["POST"]),
                  Route("/mcp/{name}", self.mcp, methods=["POST", "GET", "DELETE"])]
        server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), port=self.port, log_level="critical",
                                               timeout_graceful_shutdown=1))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        try:
            yield self
        finally:
            server.should_exit = True
            with contextlib.suppress(asyncio.TimeoutError, asyncio.CancelledError):
                await asyncio.wait_for(serving, 5)

    def project(self, agents, servers=("s",), effects="", folder=None, more=""):
        folder = pathlib.Path(folder or tempfile.mkdtemp())
        toml = f'[project]\nname = "attacks"\n[models.m]\nurl = "http://127.0.0.1:{self.port}/v1"\n{more}\n'
        for name in servers:
            toml += f'[mcp.{name}]\nurl = "http://127.0.0.1:{self.port}/mcp/{name}"\n{effects}\n'
        for name, keys in agents.items():
            toml += f'[agents.{name}]\nmodel = "m"\ninstructions = "Be good."\n{keys}\n'
        (folder / "narthex.toml").write_text(toml)
        return folder


class Served:
    """`narthex agent serve` over a project."""

    def __init__(self, binary, folder, environment=None):
        self.folder, self.port, self.log, self.binary = folder, free_port(), folder / "serve.log", binary
        self.environment = {**os.environ, **(environment or {})}

    async def __aenter__(self):
        out = self.log.open("w")
        command = [self.binary, "agent", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=out, env=self.environment)
        self.client = httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", timeout=400)
        started = time.time()
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await self.client.get("/agents")).status_code == 200:
                    return self
            if self.process.poll() is not None:
                return self
            if time.time() > started + 90:
                self.process.kill()
                self.process.wait()
                self.log.open("a").write("\nDID NOT START WITHIN 90 s\n")
                return self
            await asyncio.sleep(0.05)

    async def __aexit__(self, *_):
        await self.client.aclose()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                await asyncio.to_thread(self.process.wait, 20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def is_up(self):
        return self.process.poll() is None

    def peak_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) >> 10

    async def start(self, agent="a", say="go", thread=None):
        body = {"agent": agent, "say": say, **({"thread": thread} if thread else {})}
        answer = await self.client.post("/agents/runs", json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    async def settle(self, run, seconds=60):
        """A run once it has ended or waits."""
        end = time.time() + seconds
        while time.time() < end:
            view = (await self.client.get(f"/agents/runs/{run}")).json()
            if view["status"] != "running":
                return view
            await asyncio.sleep(0.05)
        return view

    async def run(self, agent="a", say="go", seconds=60):
        return await self.settle(await self.start(agent, say), seconds)

    async def answer(self, run, interrupt, headers=None, **body):
        return await self.client.post(f"/agents/runs/{run}/answers", json={"interrupt": interrupt, **body},
                                      headers=headers or {})


def results(view):
    return [str(message.get("content")) for message in view["messages"] if message["role"] == "tool"]


SENDS = tool("send", schema={"type": "object", "properties": {"to": {"type": "string"}, "n": {"type": "integer"}}})
