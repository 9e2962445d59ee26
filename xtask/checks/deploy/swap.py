"""Goes over to another version of a model while clients ask, again and again: no request may fail, and every answer must be whole
from one version. At the end a version that is damaged comes: the one that answers must go on.

usage: python swap.py NARTHEX MODEL_A MODEL_B [--clients 32] [--swaps 10]   (folders or GGUF files that `narthex import` takes)
Standard library only. Ends with `N passed, N failed`.
"""
import concurrent.futures, glob, json, os, re, signal, subprocess, sys, tempfile, threading, time, urllib.request

args = sys.argv[1:]
clients = int(args[args.index("--clients") + 1]) if "--clients" in args else 32
swaps = int(args[args.index("--swaps") + 1]) if "--swaps" in args else 10
narthex, first, second = (os.path.abspath(a) for a in args[:3])
passed = failed = 0


def check(name, ok, detail=""):
    global passed, failed
    passed, failed = passed + bool(ok), failed + (not ok)
    print(("ok    " if ok else "FAIL  ") + name + ("" if ok else f": {str(detail)[:300]}"))


home = tempfile.mkdtemp()
run = lambda *a: subprocess.run([narthex, *a], cwd=home, check=True, capture_output=True, text=True).stdout
for name, place in (("a", first), ("b", second), ("live", first)):
    run("import", place, "--name", name, "--license", "Apache-2.0") if os.path.isdir(place) else run("import", place, "--name", name)
server = subprocess.Popen([narthex, "serve", "live", "--port", "0"], cwd=home, stderr=subprocess.PIPE, text=True)
address, said = None, []
for line in server.stderr:
    if "chat page" in line:
        address = line.split("chat page")[1].strip().rstrip("/")
        break
threading.Thread(target=lambda: said.extend(server.stderr), daemon=True).start()


def ask(prompt):
    body = {"model": "live", "prompt": prompt, "max_tokens": 24, "temperature": 0, "stream": False}
    request = urllib.request.Request(address + "/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=120))["choices"][0]["text"]


prompts = [f"the cat {i % 8}" for i in range(8)]
answers = {}
for name, place in (("a", first), ("b", second)):
    import_it = ["import", place, "--name", "live"] + (["--license", "Apache-2.0"] if os.path.isdir(place) else [])
    run(*import_it)
    server.send_signal(signal.SIGHUP)
    time.sleep(3)
    answers[name] = {p: ask(p) for p in prompts}
check("the two versions answer differently", answers["a"] != answers["b"], answers)
stop, wrong, counts = threading.Event(), [], {"a": 0, "b": 0}
lock = threading.Lock()


def client(i):
    while not stop.is_set():
        prompt = prompts[i % len(prompts)]
        try:
            text = ask(prompt)
        except Exception as error:  # noqa: BLE001
            wrong.append(f"{type(error).__name__} {error}")
            continue
        of = [n for n in ("a", "b") if answers[n][prompt] == text]
        with lock:
            if not of:
                wrong.append(f"neither version says {text!r} to {prompt!r}")
            for n in of:
                counts[n] += 1


with concurrent.futures.ThreadPoolExecutor(clients) as pool:
    futures = [pool.submit(client, i) for i in range(clients)]
    for swap in range(swaps):
        place = (first, second)[swap % 2]
        run(*(["import", place, "--name", "live"] + (["--license", "Apache-2.0"] if os.path.isdir(place) else [])))
        server.send_signal(signal.SIGHUP)
        time.sleep(2)
    # A version whose weights were changed on the disk.
    digest = run("show", "b" if swaps % 2 else "a", "--json")
    digest = json.loads(digest)["digest"]
    run(*(["import", (first, second)[swaps % 2], "--name", "live"] + (["--license", "Apache-2.0"] if os.path.isdir((first, second)[swaps % 2]) else [])))
    weights = glob.glob(os.path.join(home, ".narthex/artifacts", digest, "**/*.safetensors"), recursive=True)[0]
    os.chmod(weights, 0o644)
    data = bytearray(open(weights, "rb").read())
    data[-1] ^= 1
    open(weights, "wb").write(data)
    before = dict(counts)
    server.send_signal(signal.SIGHUP)
    time.sleep(3)
    stop.set()
    for future in futures:
        future.result()
loaded = [line for line in said if "new requests go to" in line]
check(f"{swaps} times over to another version", len(loaded) >= swaps, said[-5:])
check(f"no request failed and every answer is of one version ({sum(counts.values())} answers)", not wrong, wrong[:3])
check("both versions answered", all(counts.values()), counts)
check("the damaged version is refused, and the one before goes on", any("stays as it is" in line for line in said) and sum(counts.values()) > sum(before.values()), said[-3:])
server.send_signal(signal.SIGTERM)
check("the server ends with 0", server.wait(60) == 0)
print(f"{passed} passed, {failed} failed")
sys.exit(failed > 0)
