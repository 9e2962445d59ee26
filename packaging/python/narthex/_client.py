"""A client for ``narthex serve``, of the standard library alone."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any, Iterator, Mapping, Sequence

from narthex._binary import NarthexError


class Client:
    """Asks a server over HTTP. The ``openai`` package does as well, and more; this needs nothing else.

    Args:
        url: where the server is, without ``/v1``.
        api_key: what it was started with, if anything.
        timeout: seconds without a byte after which a request is given up.
    """

    def __init__(self, url: str = "http://127.0.0.1:8000", api_key: str | None = None, timeout: float = 600.0) -> None:
        self.url = url.rstrip("/")
        self.api_key = api_key
        self.timeout = timeout

    def models(self) -> list[str]:
        """The names of the models that are served."""
        return [model["id"] for model in self.get("/v1/models")["data"]]

    def is_ready(self) -> bool:
        """Whether the server takes requests."""
        try:
            with self._open("/ready", None):
                return True
        except NarthexError:
            return False

    def complete(self, model: str, prompt: str, **options: Any) -> str:
        """How a model goes on with a prompt. ``options`` are those of ``/v1/completions``."""
        answer = self.post("/v1/completions", {"model": model, "prompt": prompt, **options})
        text: str = answer["choices"][0]["text"]
        return text

    def chat(self, model: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """What a model answers. ``options`` are those of ``/v1/chat/completions``."""
        answer = self.post("/v1/chat/completions", {"model": model, "messages": list(messages), **options})
        return answer["choices"][0]["message"].get("content") or ""

    def chat_stream(self, model: str, messages: Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """The same, piece by piece as it is written."""
        body = {"model": model, "messages": list(messages), **options, "stream": True}
        for event in self.stream("/v1/chat/completions", body):
            for choice in event.get("choices", []):
                piece = choice.get("delta", {}).get("content")
                if piece:
                    yield piece

    def embed(self, model: str, texts: Sequence[str], **options: Any) -> list[list[float]]:
        """Texts as vectors, in their order."""
        answer = self.post("/v1/embeddings", {"model": model, "input": list(texts), **options})
        return [row["embedding"] for row in sorted(answer["data"], key=lambda row: row["index"])]

    def get(self, path: str) -> Any:
        """The JSON value at a path."""
        with self._open(path, None) as answer:
            return json.load(answer)

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON value that answers another."""
        with self._open(path, body) as answer:
            return json.load(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """The server-sent events that answer a value, up to ``[DONE]``."""
        with self._open(path, body) as answer:
            for raw in answer:
                line = raw.decode("utf-8").strip()
                if not line.startswith("data:"):
                    continue
                data = line[len("data:") :].strip()
                if data == "[DONE]":
                    return
                event = json.loads(data)
                if "error" in event:
                    raise NarthexError(_message(event) or data)
                yield event

    def _open(self, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Accept": "application/json"}
        data = None
        if body is not None:
            data = json.dumps(body).encode("utf-8")
            headers["Content-Type"] = "application/json"
        if self.api_key:
            headers["Authorization"] = f"Bearer {self.api_key}"
        request = urllib.request.Request(self.url + path, data=data, headers=headers)
        try:
            return urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            try:
                message = _message(json.loads(text))
            except ValueError:
                message = None
            raise NarthexError(message or text or str(error), error.code) from error
        except OSError as error:
            raise NarthexError(f"{self.url} cannot be reached: {getattr(error, 'reason', error)}") from error


def _message(value: Any) -> str | None:
    """What an error says, in OpenAI's form."""
    error = value.get("error") if isinstance(value, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    return message if isinstance(message, str) else None
