"""Tests of the Python package, over a program and a server of their own. Run by the checks of packages:

PYTHONPATH=packaging/python python3 -m unittest discover packaging/python/tests
"""

import json
import os
import stat
import sys
import tempfile
import textwrap
import threading
import unittest
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from unittest import mock

import narthex
from narthex import _binary

# Answers as the binary does, with what the verbs are documented to print.
PROGRAM = """\
import json, pathlib, sys
arguments = sys.argv[1:]
project = pathlib.Path(arguments[arguments.index("--project") + 1]) if "--project" in arguments else None
row = {"name": "base", "kind": "model", "digest": "ab12", "created": 5, "bytes": 7, "license": "MIT",
       "figures": {"loss": 1.5}, "seconds": 1.0, "measured": {}, "current": True, "complete": True}
if arguments[0] == "ls":
    assert "--json" in arguments
    print(json.dumps([row]))
elif arguments[0] == "show" and arguments[1] == "base":
    print(json.dumps({"digest": "ab12", "folder": str(project / ".narthex/artifacts/ab12"), "manifest": {}, "run": {}}))
elif arguments[0] == "run":
    print(json.dumps({"type": "step_started", "step": "base"}))
    print(json.dumps({"type": "report", "rows": [{"step": "base", "state": "made"}], "seconds": 1}))
elif arguments[0] == "--version":
    print("narthex 1.2.3")
else:
    print("error: there is no such thing", file=sys.stderr)
    sys.exit(1)
"""


class Verbs(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.project = Path(folder.name) / "a project"
        artifact = self.project / ".narthex" / "artifacts" / "ab12"
        (artifact / "run").mkdir(parents=True)
        (artifact / "model.safetensors").write_bytes(b"weights")
        lines = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]
        (artifact / "run" / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        self.binary = Path(folder.name) / "narthex"
        self.binary.write_text(f"#!{sys.executable}\n" + textwrap.dedent(PROGRAM))
        self.binary.chmod(self.binary.stat().st_mode | stat.S_IXUSR)
        found = mock.patch.object(_binary, "find_binary", lambda: self.binary)
        found.start()
        self.addCleanup(found.stop)

    def test_artifacts_are_paths(self):
        (artifact,) = narthex.artifacts(self.project, kind="model")
        self.assertEqual((artifact.name, artifact.license, artifact.figures), ("base", "MIT", {"loss": 1.5}))
        self.assertEqual(artifact.file("model.safetensors").read_bytes(), b"weights")
        self.assertEqual(narthex.artifact("base", self.project), artifact)
        with self.assertRaisesRegex(narthex.NarthexError, "no file missing"):
            artifact.file("missing")

    def test_metrics_are_dicts(self):
        rows = narthex.metrics("base", self.project)
        self.assertEqual([row["loss"] for row in rows], [2.0, 1.5])
        try:
            import pandas  # noqa: F401
        except ImportError:
            with self.assertRaisesRegex(narthex.NarthexError, "pip install pandas"):
                narthex.frame(rows)
        else:
            self.assertEqual(list(narthex.frame(rows)["loss"]), [2.0, 1.5])

    def test_a_run_is_its_report_and_its_events(self):
        self.assertEqual(narthex.run(self.project), [{"step": "base", "state": "made"}])
        self.assertEqual([event["type"] for event in narthex.events(self.project)], ["step_started", "report"])
        self.assertEqual(narthex.version(), "1.2.3")

    def test_what_the_binary_says_is_wrong(self):
        with self.assertRaisesRegex(narthex.NarthexError, "no such thing") as caught:
            narthex.show("nothing", self.project)
        self.assertEqual(caught.exception.code, 1)


class Finding(unittest.TestCase):
    def test_the_binary_on_the_path(self):
        with tempfile.TemporaryDirectory() as folder:
            binary = Path(folder) / "narthex"
            binary.write_text("#!/bin/sh\n")
            binary.chmod(0o755)
            empty = mock.patch.object(_binary.sysconfig, "get_path", lambda *_, **__: "/no/such/folder")
            with empty, mock.patch.dict(os.environ, {"PATH": folder}), mock.patch.object(sys, "executable", "/no/python"):
                self.assertEqual(narthex.find_binary(), binary)
            with empty, mock.patch.dict(os.environ, {"PATH": ""}), mock.patch.object(sys, "executable", "/no/python"):
                with self.assertRaisesRegex(narthex.NarthexError, "no binary"):
                    narthex.find_binary()


class Server(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer({"data": [{"id": "base"}]} if self.path == "/v1/models" else {})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != "Bearer k":
            return self.answer({"error": {"message": "the key is wrong"}}, 401)
        if body.get("stream"):
            pieces = [{"choices": [{"delta": {"content": piece}}]} for piece in ("He", "llo")]
            events = [f"data: {json.dumps(piece)}\n\n" for piece in pieces] + ["data: [DONE]\n\n"]
            self.send_response(200)
            self.end_headers()
            return self.wfile.write("".join(events).encode())
        if self.path == "/v1/embeddings":
            rows = [{"index": index, "embedding": [float(index)]} for index in range(len(body["input"]))]
            return self.answer({"data": rows[::-1]})
        text = body.get("prompt") or body["messages"][0]["content"]
        return self.answer({"choices": [{"text": text + "!", "message": {"content": text + "?"}}]})

    def answer(self, value, status=200):
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class Http(unittest.TestCase):
    def setUp(self):
        self.server = HTTPServer(("127.0.0.1", 0), Server)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.url = f"http://127.0.0.1:{self.server.server_port}/"

    def test_answers(self):
        client = narthex.Client(self.url, api_key="k")
        messages = [{"role": "user", "content": "ü"}]
        self.assertEqual(client.models(), ["base"])
        self.assertTrue(client.is_ready())
        self.assertEqual((client.complete("base", "a"), client.chat("base", messages)), ("a!", "ü?"))
        self.assertEqual(list(client.chat_stream("base", messages)), ["He", "llo"])
        self.assertEqual(client.embed("base", ["a", "b"]), [[0.0], [1.0]])

    def test_errors(self):
        with self.assertRaisesRegex(narthex.NarthexError, "the key is wrong") as caught:
            narthex.Client(self.url).complete("base", "a")
        self.assertEqual(caught.exception.code, 401)
        nobody = narthex.Client("http://127.0.0.1:1")
        self.assertFalse(nobody.is_ready())
        with self.assertRaisesRegex(narthex.NarthexError, "cannot be reached"):
            nobody.models()


if __name__ == "__main__":
    unittest.main()
