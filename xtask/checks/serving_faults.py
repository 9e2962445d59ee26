"""Clients that behave badly, against a real server: they leave in the middle, flood it, send nonsense, and the server is
told to stop under load. Standard library only.

    python xtask/checks/serving_faults.py target/release/narthex MODEL_FOLDER
"""

import concurrent.futures
import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

BINARY, FOLDER = sys.argv[1:3]
PORT = 8396
URL = f"http://127.0.0.1:{PORT}"


def post(path, body, timeout=120):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return reply.status, json.loads(reply.read() or b"null"), reply.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null"), error.headers


def completion(tokens, **more):
    prompt = [random.randrange(10, 200) for _ in range(more.pop("prompt_tokens", 32))]
    return {"model": "m", "prompt": prompt, "max_tokens": tokens, "ignore_eos": True, "temperature": 0, **more}


def gauge(name):
    text = urllib.request.urlopen(URL + "/metrics").read().decode()
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"vllm:{name}{{"))


def until(condition, what, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def idle():
    return all(gauge(name) == 0 for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc"))


class Server:
    def __init__(self, *flags):
        command = [BINARY, "serve", FOLDER, "--served-model-name", "m", "--port", str(PORT), *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)

    def __enter__(self):
        def up():
            try:
                return urllib.request.urlopen(URL + "/health").status == 200
            except OSError:
                return False

        until(up, "the server starts")
        return self.process

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)


def together(count, work):
    results = [None] * count
    def run(i):
        results[i] = work(i)
    threads = [threading.Thread(target=run, args=[i]) for i in range(count)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    return results


def leave_midway(_):
    body = json.dumps(completion(500, stream=True)).encode()
    connection = socket.create_connection(("127.0.0.1", PORT))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{PORT}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    connection.settimeout(random.uniform(0.05, 3))
    try:
        while connection.recv(4096):
            if random.random() < 0.2:
                break
    except TimeoutError:
        pass
    connection.close()


def disconnects():
    with Server() as process:
        together(200, leave_midway)
        until(idle, "the gauges return to 0")
        assert post("/v1/completions", completion(4))[0] == 200 and process.poll() is None
    print("200 clients left midway: running, waiting and cache usage are back at 0")


def flood():
    with Server("--max-num-seqs", "4", "--max-num-waiting", "20") as process:
        replies = together(150, lambda _: post("/v1/completions", completion(24)))
        refused = [headers for status, _, headers in replies if status == 503]
        done = [body for status, body, _ in replies if status == 200]
        assert len(refused) + len(done) == 150 and refused and len(done) >= 20, [status for status, _, _ in replies]
        assert all(headers["retry-after"] for headers in refused)
        assert all(body["usage"]["completion_tokens"] == 24 for body in done)
        until(idle, "the gauges return to 0")
        assert process.poll() is None
    print(f"150 at once, 20 may wait: {len(done)} answered whole, {len(refused)} got 503 with Retry-After")


def nonsense():
    good = json.dumps(completion(1)).encode()
    values = [None, -1, 0, 1e300, "x", [], {}, [[]], True, "\u0000", 2**70, [1, "a"], {"a": {"b": []}}]
    statuses = {}
    with Server() as process:
        generator = random.Random(5)
        for _ in range(2000):
            body = dict(json.loads(good))
            kind = generator.randrange(4)
            if kind == 0:
                raw = bytearray(good)
                for _ in range(generator.randint(1, 8)):
                    raw[generator.randrange(len(raw))] = generator.randrange(256)
                data = bytes(raw)
            elif kind == 1:
                data = good[: generator.randrange(len(good))]
            else:
                fields = list(body) + ["n", "logprobs", "stop", "seed", "logit_bias", "top_p", "stream_options", "min_p", "echo"]
                for _ in range(kind):
                    body[generator.choice(fields)] = generator.choice(values)
                data = json.dumps(body).encode()
            if b'"stream": true' in data:
                continue
            status = post("/v1/completions", data)[0]
            statuses[status] = statuses.get(status, 0) + 1
            assert status in (200, 400, 404, 413), (status, data)
        until(idle, "the gauges return to 0")
        assert process.poll() is None
    print(f"2,000 broken bodies: {statuses}; none broke the server")


def stop_under_load():
    with Server("--max-num-seqs", "8") as process:
        replies = []
        thread = threading.Thread(target=lambda: replies.extend(together(24, lambda _: post("/v1/completions", completion(64)))))
        thread.start()
        until(lambda: gauge("num_requests_running") == 8 and gauge("num_requests_waiting") == 16, "all are taken in")
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert all(status == 200 and body["usage"]["completion_tokens"] == 64 for status, body, _ in replies)
        assert process.wait(30) == 0
    print("SIGTERM with 8 running and 16 waiting: all 24 answered whole, exit code 0")


def full_cache():
    requests = [completion(48, prompt_tokens=100) for _ in range(24)]
    with Server("--no-enable-prefix-caching") as _:
        expected = [post("/v1/completions", body)[1]["choices"][0]["text"] for body in requests]
    # Room for about six of them.
    with Server("--kv-cache-memory-bytes", "12M") as process:
        found = together(24, lambda i: post("/v1/completions", requests[i])[1]["choices"][0]["text"])
        preempted = gauge("num_preemptions_total")
        assert found == expected and preempted > 0 and process.poll() is None, (found == expected, preempted)
    print(f"24 in a cache for six: {preempted:.0f} preemptions, every answer as alone")


def exchange_under_load():
    with Server() as process:
        stop, answered = threading.Event(), [0] * 8
        expected = post("/v1/completions", {**completion(24), "prompt": list(range(10, 40))})[1]["choices"][0]["text"]

        def ask(i):
            while not stop.is_set():
                status, body, _ = post("/v1/completions", {**completion(24), "prompt": list(range(10, 40))})
                assert status == 200 and body["choices"][0]["text"] == expected, (status, body)
                answered[i] += 1

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            clients = [pool.submit(ask, i) for i in range(8)]
            for _ in range(10):
                before = sum(answered)
                process.send_signal(signal.SIGHUP)
                until(lambda: sum(answered) >= before + 40, "answers go on")
            stop.set()
            [client.result() for client in clients]
        counted = gauge("generation_tokens_total")
        assert counted == 24 * (sum(answered) + 1), (counted, sum(answered))
        until(idle, "the gauges return to 0")
        threads = len(list(pathlib.Path(f"/proc/{process.pid}/task").iterdir()))
    print(f"10 exchanges of the model under load: {sum(answered)} of {sum(answered)} answered as before, {threads} threads left")


for check in (disconnects, flood, nonsense, stop_under_load, full_cache, exchange_under_load):
    check()
