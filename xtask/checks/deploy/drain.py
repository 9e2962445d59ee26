"""Tells a server to stop while 40 clients ask, each over a connection that it would keep: /ready must say 503 while requests are still
taken, and none may fail until the clients have gone.

usage: python drain.py NARTHEX MODEL     Standard library only. Ends with `N passed, N failed`.
"""
import http.client, json, os, signal, subprocess, sys, threading, time, urllib.error, urllib.request

narthex, model = sys.argv[1:3]
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(("ok    " if ok else "FAIL  ") + name + ("" if ok else f": {str(detail)[:300]}"))


server = subprocess.Popen([narthex, "serve", model, "--port", "0", "--served-model-name", "m"], stderr=subprocess.PIPE, text=True)
for line in server.stderr:
    if "chat page" in line:
        address = line.split("chat page")[1].strip().rstrip("/")
        break
threading.Thread(target=lambda: server.stderr.read(), daemon=True).start()
host = address.split("//")[1]
body = json.dumps({"model": "m", "prompt": "the cat", "max_tokens": 16, "temperature": 0})
stop, errors, count, after = threading.Event(), [], [0], [0]
told = [None]


def client():
    connection = None
    while not stop.is_set():
        try:
            connection = connection or http.client.HTTPConnection(host, timeout=30)
            connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                errors.append((answer.status, text))
            if answer.getheader("Connection") == "close":
                connection.close()
                connection = None
            count[0] += 1
            after[0] += told[0] is not None
        except Exception as error:  # noqa: BLE001
            errors.append(repr(error))
            connection = None


threads = [threading.Thread(target=client) for _ in range(40)]
[t.start() for t in threads]
time.sleep(2)
told[0] = time.time()
server.send_signal(signal.SIGTERM)
time.sleep(0.5)
try:
    status = urllib.request.urlopen(address + "/ready", timeout=5).status
except urllib.error.HTTPError as error:
    status = error.code
check("/ready says 503 on a new connection", status == 503, status)
time.sleep(2.5)
stop.set()
[t.join() for t in threads]
check(f"no request failed ({count[0]} answers, {after[0]} after the signal)", not errors and after[0] > 0, errors[:3])
check("it ended with 0", server.wait(60) == 0)
check("within drain and shutdown time", time.time() - told[0] < 40)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
