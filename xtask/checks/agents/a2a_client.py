#!/usr/bin/env python3
"""Asks an A2A agent through the official Python client: a2a_client.py BASE_URL [KEY.pem]

Needs `pip install 'a2a-sdk[http-server,signing]'`. The agent must answer any text at once, ask for input where the
message id begins with `tck-input-required`, and stream where it begins with `tck-stream-artifact-chunked`, as the
example `tck-sut` does. Prints one line a check and exits 1 if one failed.
"""

import asyncio
import sys
import uuid

import httpx
from a2a.client import A2ACardResolver, ClientConfig, ClientFactory
from a2a.types import (
    CancelTaskRequest,
    GetTaskRequest,
    ListTasksRequest,
    Message,
    Part,
    Role,
    SendMessageRequest,
    SubscribeToTaskRequest,
    TaskPushNotificationConfig,
    TaskState,
)

FAILED = []
URLS = [
    "http://127.0.0.1:{port}/",
    "http://localhost:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://[::1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://169.254.169.254/latest/meta-data/",
    "http://user@127.0.0.1:{port}/",
]


def check(what, passed, detail=""):
    print("ok  " if passed else "FAIL", what, detail if not passed else "")
    if not passed:
        FAILED.append(what)


def asks(prefix, text="hello", task=None):
    message = Message(message_id=f"{prefix}-{uuid.uuid4().hex}", role=Role.ROLE_USER, parts=[Part(text=text)])
    if task:
        message.task_id = task
    return SendMessageRequest(message=message)


async def last(stream):
    return [event async for event in stream]


async def refused(what, awaitable):
    try:
        await awaitable
        check(what, False, "no error")
    except Exception as error:  # whichever the client raises
        check(what, True)
        return error


async def one_binding(card, binding, port, connects):
    async with httpx.AsyncClient(timeout=30) as http:
        def client(streaming):
            config = ClientConfig(streaming=streaming, httpx_client=http, supported_protocol_bindings=[binding])
            return ClientFactory(config).create(card)

        plain, streaming = client(False), client(True)
        sent = (await last(plain.send_message(asks("tck-complete-task"))))[-1].task
        check(f"{binding} send", sent.status.state == TaskState.TASK_STATE_COMPLETED and len(sent.artifacts) == 1)
        got = await plain.get_task(GetTaskRequest(id=sent.id, history_length=1))
        check(f"{binding} get", got.id == sent.id and len(got.history) == 1)
        events = await last(streaming.send_message(asks("tck-stream-artifact-chunked")))
        kinds = [event.WhichOneof("payload") for event in events]
        pieces = [event.artifact_update.artifact for event in events if event.HasField("artifact_update")]
        text = "".join(part.text for artifact in pieces for part in artifact.parts)
        check(f"{binding} stream", kinds[0] == "task" and text == "chunk-1 chunk-2", f"{kinds} {text!r}")
        check(f"{binding} stream ends", events[-1].status_update.status.state == TaskState.TASK_STATE_COMPLETED)
        asked = (await last(plain.send_message(asks("tck-input-required"))))[-1].task
        check(f"{binding} input required", asked.status.state == TaskState.TASK_STATE_INPUT_REQUIRED)

        async def answer():
            await asyncio.sleep(0.3)
            return (await last(plain.send_message(asks("tck-complete-task", "done", asked.id))))[-1].task

        (events, answered) = await asyncio.gather(
            last(streaming.subscribe(SubscribeToTaskRequest(id=asked.id))), answer()
        )
        check(f"{binding} answered", answered.status.state == TaskState.TASK_STATE_COMPLETED)
        check(f"{binding} subscribe", events[0].HasField("task") and len(events) > 1)
        asked = (await last(plain.send_message(asks("tck-input-required"))))[-1].task
        cancelled = await plain.cancel_task(CancelTaskRequest(id=asked.id))
        check(f"{binding} cancel", cancelled.status.state == TaskState.TASK_STATE_CANCELED)
        await refused(f"{binding} cancel of a completed task", plain.cancel_task(CancelTaskRequest(id=sent.id)))
        await refused(f"{binding} unknown task", plain.get_task(GetTaskRequest(id="none")))
        found, token, pages = set(), "", 0
        while True:
            page = await plain.list_tasks(ListTasksRequest(page_size=2, page_token=token))
            found.update(task.id for task in page.tasks)
            token, pages = page.next_page_token, pages + 1
            if not token or pages > 1000:
                break
        check(f"{binding} list", {sent.id, asked.id} <= found and len(found) == page.total_size, f"{len(found)}")
        none = await plain.list_tasks(ListTasksRequest(context_id="none"))
        check(f"{binding} list of none", len(none.tasks) == 0 and none.total_size == 0)
        for url in URLS:
            config = TaskPushNotificationConfig(task_id=sent.id, url=url.format(port=port))
            await refused(f"{binding} push to {url}", plain.create_task_push_notification_config(config))
        check(f"{binding} nobody was connected to", connects == [], str(connects))


async def main():
    base = sys.argv[1].rstrip("/")
    connects = []

    async def count(reader, writer):
        connects.append(writer.get_extra_info("peername"))
        writer.close()

    listener = await asyncio.start_server(count, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with httpx.AsyncClient() as http:
        card = await A2ACardResolver(http, base).get_agent_card()
        raw = await http.get(f"{base}/.well-known/agent-card.json")
        check("card", bool(card.name) and len(card.supported_interfaces) >= 2)
        check("card is cached", "max-age" in raw.headers.get("cache-control", "") and "etag" in raw.headers)
        if len(sys.argv) > 2:
            from a2a.utils.signing import create_signature_verifier

            key = open(sys.argv[2], "rb").read()
            verify = create_signature_verifier(lambda kid, jku: key, ["ES256"])
            verify(card)
            check("card is signed", True)
            changed = type(card)()
            changed.CopyFrom(card)
            changed.description = "another"
            try:
                verify(changed)
                check("a changed card is not", False)
            except Exception:
                check("a changed card is not", True)
        url = card.supported_interfaces[0].url
        body = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "none"}}
        without = await http.post(url, json=body)
        check("no version is refused", without.json()["error"]["code"] == -32009, without.text)
        without = await http.get(f"{url}/tasks/none")
        check("no version is refused by HTTP+JSON", without.status_code == 400, without.text)
    for binding in ("JSONRPC", "HTTP+JSON"):
        await one_binding(card, binding, port, connects)
    print(f"{len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


asyncio.run(main())
