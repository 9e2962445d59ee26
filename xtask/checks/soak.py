"""A server under random load for a while: nothing fails, nothing leaks, nothing changes. Linux only.

    pip install aiohttp
    cargo build --release
    python xtask/checks/soak.py target/release/narthex MODEL_FOLDER --minutes 20

Up to 64 clients at once send prompts of random tokens: whole, streamed, several choices, scored, with a
shared beginning, broken, and some leave midway. In the end the gauges are back at 0, the resident memory
of the last quarter is that of the second one, and greedy answers are those of the start.
"""

import argparse
import asyncio
import collections
import json
import pathlib
import random
import statistics
import subprocess
import sys
import time

import aiohttp

parser = argparse.ArgumentParser()
parser.add_argument("binary")
parser.add_argument("folder")
parser.add_argument("--minutes", type=float, default=20)
parser.add_argument("--kv-cache-memory-bytes", default="64M", help="small, so that it is full early and sequences are computed again")
parser.add_argument("--clients", type=int, default=64)
parser.add_argument("--port", type=int, default=8397)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--record", help="write the samples to this file, as JSON lines")
options = parser.parse_args()
draw = random.Random(options.seed)
url = f"http://127.0.0.1:{options.port}"
config = json.loads((pathlib.Path(options.folder) / "config.json").read_text())
vocabulary, context = config["vocab_size"], config["max_position_embeddings"]
PROMPT_MAX, ANSWER_MAX = 600, 200
SAMPLE_S = 5
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail, flush=True)


def tokens(count):
    return [draw.randrange(vocabulary) for _ in range(count)]


class Wrong(Exception):
    pass


def expect(good, what):
    if not good:
        raise Wrong(str(what)[:200])


class Load:
    def __init__(self, session, process):
        self.session, self.process = session, process
        self.limit = 0  # How many of the clients may ask now.
        self.ends = False
        self.done, self.wrong = collections.Counter(), []
        self.prompt_tokens = self.answer_tokens = 0
        self.beginnings = [tokens(draw.randint(30, 400)) for _ in range(6)]
        # Asked before, during and after the load.
        self.probes = [self.body(max_tokens=40, temperature=0, prompt=tokens(size)) for size in (5, 120, 500)]
        self.expected = []

    def body(self, **more):
        prompt = tokens(draw.randint(1, PROMPT_MAX))
        if draw.random() < 0.3:
            prompt = (draw.choice(self.beginnings) + prompt)[:PROMPT_MAX]
        sampling = draw.choice([{"temperature": 0}, {"temperature": 1.0}, {"temperature": 0.8, "top_p": 0.9, "seed": 3}, {"temperature": 1.2, "top_k": 50, "frequency_penalty": 0.5}])
        return {"model": "m", "prompt": prompt, "max_tokens": draw.randint(1, ANSWER_MAX), "ignore_eos": True, **sampling, **more}

    def post(self, body):
        return self.session.post(url + "/v1/completions", json=body)

    async def whole(self, body):
        async with self.post(body) as reply:
            answer = await reply.json()
            expect(reply.status == 200, (reply.status, answer))
        n, asked = body.get("n", 1), min(body["max_tokens"], context - len(body["prompt"]))
        expect([choice["index"] for choice in answer["choices"]] == list(range(n)), "choices")
        expect(all(choice["finish_reason"] == "length" for choice in answer["choices"]), "finish_reason")
        self.count(answer["usage"], len(body["prompt"]), n * asked)
        if "logprobs" in body:
            scored = asked + body.get("echo", False) * len(body["prompt"])
            expect(all(len(choice["logprobs"]["token_logprobs"]) == scored for choice in answer["choices"]), "logprobs")
        return answer

    def count(self, usage, prompt, answer):
        expect((usage["prompt_tokens"], usage["completion_tokens"]) == (prompt, answer), usage)
        self.prompt_tokens += prompt
        self.answer_tokens += answer

    async def streamed(self, body, leave_after=None):
        """Reads a stream to its end, or only so many events of it."""
        ended, usage, events, last = set(), None, 0, None
        async with self.post({**body, "stream": True, "stream_options": {"include_usage": True}}) as reply:
            expect(reply.status == 200, reply.status)
            async for line in reply.content:
                if not line.startswith(b"data: "):
                    continue
                last = line[6:].strip()
                events += 1
                if leave_after is not None and events >= leave_after:
                    return reply.close()
                if last == b"[DONE]":
                    break
                event = json.loads(last)
                expect("error" not in event, event)
                usage = event["usage"] or usage
                ended |= {choice["index"] for choice in event["choices"] if choice["finish_reason"]}
        expect(last == b"[DONE]" and usage and ended == set(range(body.get("n", 1))), ("the stream broke off", last))
        self.count(usage, len(body["prompt"]), body.get("n", 1) * min(body["max_tokens"], context - len(body["prompt"])))

    async def leave(self, body):
        if draw.random() < 0.5:
            return await self.streamed(body, leave_after=draw.randint(1, 100))
        try:  # Perhaps before the first token, or while it waits for its turn.
            await asyncio.wait_for(draw.choice([self.whole, self.streamed])(body), draw.uniform(0.01, 4))
        except asyncio.TimeoutError:
            pass

    async def broken(self):
        good = self.body(max_tokens=1)
        data = draw.choice([
            b"", b"[]", b"nonsense", json.dumps(good).encode()[:-5], b'{"model": ' * 3000,
            *(json.dumps({**good, **wrong}).encode() for wrong in (
                {"model": "nobody"}, {"prompt": None}, {"prompt": []}, {"prompt": [vocabulary]}, {"prompt": tokens(context + 1)},
                {"temperature": -1}, {"n": 100000}, {"max_tokens": "x"}, {"logprobs": 10**6}, {"colour": 1}, {"stop": [""]}, {"stream": 1},
            )),
        ])
        async with self.session.post(url + "/v1/completions", data=data, headers={"content-type": "application/json"}) as reply:
            answer = await reply.json()
            expect(reply.status in (400, 404) and answer["error"]["message"], (reply.status, data[:80]))

    async def probe(self, index):
        return (await self.whole({**self.probes[index], "logprobs": 0}))["choices"][0]["logprobs"]["tokens"]

    async def probe_again(self):
        index = draw.randrange(len(self.probes))
        expect(await self.probe(index) == self.expected[index], "a greedy answer differs under load")

    async def one(self):
        kinds = {"whole": 20, "streamed": 25, "left": 20, "several": 8, "scored": 10, "echoed": 5, "broken": 8, "probe": 4}
        kind = draw.choices(list(kinds), list(kinds.values()))[0]
        body = self.body()
        try:
            match kind:
                case "whole":
                    await self.whole(body)
                case "streamed":
                    await self.streamed(body)
                case "left":
                    await self.leave(body)
                case "several":
                    await draw.choice([self.whole, self.streamed])({**body, "n": draw.randint(2, 4)})
                case "scored":
                    await draw.choice([self.whole, self.streamed])({**body, "logprobs": draw.randint(0, 5)})
                case "echoed":
                    await self.whole({**body, "logprobs": draw.randint(0, 2), "echo": True})
                case "broken":
                    await self.broken()
                case "probe":
                    await self.probe_again()
            self.done[kind] += 1
        except (Wrong, aiohttp.ClientError, asyncio.TimeoutError, ValueError, KeyError, TypeError) as error:
            self.wrong.append(f"{kind}: {type(error).__name__} {error}")

    async def client(self, index):
        while not self.ends and self.process.poll() is None:
            if index < self.limit:
                await self.one()
            await asyncio.sleep(0 if index < self.limit else 0.1)

    async def vary(self):
        while not self.ends:
            self.limit = 0 if draw.random() < 0.1 else draw.randint(1, options.clients)
            await asyncio.sleep(draw.uniform(2, 15) if self.limit else 3)

    async def gauges(self):
        async with self.session.get(url + "/metrics") as reply:
            text = await reply.text()
        found = collections.Counter()
        for line in text.splitlines():
            if line.startswith("vllm:"):
                found[line[5:].split("{")[0]] += float(line.rsplit(" ", 1)[1])
        return found

    def resident(self):
        """Bytes of the server's memory that are in RAM."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("Rss:"))


def show(minute, rows):
    last = rows[-1]
    memory = statistics.median(row["rss"] for row in rows) / 1e6
    usage = statistics.median(row["kv_cache_usage_perc"] for row in rows)
    print(f"{minute:6} {last['done']:9} {last['tokens']:9} {memory:9.1f} {max(row['num_requests_running'] for row in rows):8.0f} {max(row['num_requests_waiting'] for row in rows):8.0f} {usage:6.2f} {last['num_preemptions_total']:11.0f}", flush=True)


async def sample(load, seconds):
    rows, start, shown = [], time.monotonic(), 0
    print(f"{'minute':>6} {'requests':>9} {'tokens':>9} {'RSS MB':>9} {'running':>8} {'waiting':>8} {'cache':>6} {'preemptions':>11}")
    while (now := time.monotonic() - start) < seconds and load.process.poll() is None:
        try:
            gauges = await load.gauges()
        except aiohttp.ClientError as error:
            load.wrong.append(f"metrics: {error!r}")
            break
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "num_preemptions_total")
        rows.append({"s": round(now, 1), "rss": load.resident(), "done": sum(load.done.values()), "tokens": load.prompt_tokens + load.answer_tokens, "clients": load.limit, **{name: gauges[name] for name in names}})
        if now >= 60 * (shown + 1):
            show(shown + 1, [row for row in rows if row["s"] >= 60 * shown])
            shown += 1
        await asyncio.sleep(SAMPLE_S - (time.monotonic() - start) % SAMPLE_S)
    if rest := [row for row in rows if row["s"] >= 60 * shown]:
        show(shown + 1, rest)
    return rows


async def soak(process):
    timeout = aiohttp.ClientTimeout(total=900)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        load = Load(session, process)
        for _ in range(600):
            try:
                await load.gauges()
                break
            except aiohttp.ClientError:
                expect(process.poll() is None, "the server ended")
                await asyncio.sleep(0.1)
        load.expected = [await load.probe(index) for index in range(len(load.probes))]
        clients = [asyncio.create_task(load.client(index)) for index in range(options.clients)]
        varying = asyncio.create_task(load.vary())
        rows = await sample(load, 60 * options.minutes)
        load.ends = True
        varying.cancel()
        for index, outcome in enumerate(await asyncio.gather(*clients, return_exceptions=True)):
            if outcome is not None:
                load.wrong.append(f"client {index}: {outcome!r}")
        if options.record:
            pathlib.Path(options.record).write_text("".join(json.dumps(row) + "\n" for row in rows))

        print(", ".join(f"{count} {kind}" for kind, count in load.done.items()))
        check("no request failed", not load.wrong and sum(load.done.values()) > 0, f"{sum(load.done.values())} requests, {len(load.wrong)} failed {load.wrong[:5] or ''}")
        check("the server runs", process.poll() is None)
        if process.poll() is not None:
            return
        names = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
        for _ in range(300):
            gauges = await load.gauges()
            if not any(gauges[name] for name in names):
                break
            await asyncio.sleep(0.1)
        check("the gauges are back at 0", not any(gauges[name] for name in names), {name: gauges[name] for name in names})
        again = [await load.probe(index) for index in range(len(load.probes))]
        check("greedy answers are those of the start", again == load.expected)
        quarter = [[row["rss"] for row in rows if index * 15 * options.minutes <= row["s"] < (index + 1) * 15 * options.minutes] for index in range(4)]
        second, last = statistics.median(quarter[1]), statistics.median(quarter[3])
        check("the memory stays", last <= 1.02 * second + 5e6, f"median RSS {second / 1e6:.1f} MB in the second quarter, {last / 1e6:.1f} MB in the last, {load.resident() / 1e6:.1f} MB at rest")
        check("the cache was full and had to make room", gauges["num_preemptions_total"] > 0, f"{gauges['num_preemptions_total']:.0f} preemptions; else give it less memory")


command = [options.binary, "serve", options.folder, "--served-model-name", "m", "--port", str(options.port), "--kv-cache-memory-bytes", options.kv_cache_memory_bytes]
process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
try:
    asyncio.run(soak(process))
finally:
    process.terminate()
    code = process.wait(60)
check("the server ends as told", code == 0, f"exit code {code}")
print(f"{failures} failed")
sys.exit(failures > 0)
