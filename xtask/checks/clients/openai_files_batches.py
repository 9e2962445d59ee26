"""The official `openai` client's files and batches: upload, list, read, delete, run, wait, cancel, fail.

    python xtask/checks/clients/openai_files_batches.py http://127.0.0.1:8000 MODEL
"""

import asyncio
import io
import json
import time

import openai
from openai.types.chat import ChatCompletion

from flows import KEY, MODEL, V1, Failed, flow, in_loop, kind, one_of, refused, run_all, same, valid
from samples import GREEDY, MESSAGES, TOOLS, VERDICT, call_is_good

client = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)
CHAT = "/v1/chat/completions"
ENDED = ("completed", "failed", "expired", "cancelled")
WAIT_S = 120


def line(custom_id, url=CHAT, **body):
    body = {"model": MODEL, "max_tokens": 8, **GREEDY, **body}
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def upload(lines, name="batch.jsonl"):
    text = lines if isinstance(lines, str) else "".join(json.dumps(each) + "\n" for each in lines)
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="batch")


def run(lines, endpoint=CHAT, **more):
    batch = client.batches.create(input_file_id=upload(lines).id, endpoint=endpoint, completion_window="24h", **more)
    return waited(batch)


def waited(batch):
    until = time.monotonic() + WAIT_S
    while batch.status not in ENDED:
        if time.monotonic() > until:
            raise Failed(f"after {WAIT_S} s the batch is {batch.status}")
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def rows(file_id):
    return {row["custom_id"]: row for row in map(json.loads, client.files.content(file_id).text.splitlines())}


@flow("files: create, retrieve, content, list, delete")
def _():
    text = json.dumps(line("a", messages=MESSAGES)) + "\n"
    file = upload(text, "ünicode name.jsonl")
    same(
        (file.object, file.bytes, file.filename, file.purpose),
        ("file", len(text.encode()), "ünicode name.jsonl", "batch"),
    )
    same(file.id.startswith("file-"), True, f"id {file.id}")
    same(abs(file.created_at - time.time()) < 300, True, "created now")
    same(client.files.retrieve(file.id).id, file.id)
    same(client.files.content(file.id).read(), text.encode(), "content")
    same(file.id in {each.id for each in client.files.list()}, True, "listed")
    gone = client.files.delete(file.id)
    same((gone.id, gone.deleted, gone.object), (file.id, True, "file"))
    for call in (client.files.retrieve, client.files.content, client.files.delete):
        refused(openai.NotFoundError, lambda: call(file.id), status_code=404)


@flow("files: pages, order and purpose of a list")
def _():
    made = [upload([line(str(n), messages=MESSAGES)]).id for n in range(3)]
    listed = [each.id for each in client.files.list(limit=2, order="asc")]
    same([each for each in listed if each in made], made, "rising, over pages of two")
    same(len(listed), len(set(listed)), "no file twice")
    falling = [each.id for each in client.files.list(order="desc")]
    same([each for each in falling if each in made], made[::-1], "falling")
    same({each.purpose for each in client.files.list(purpose="batch")}, {"batch"}, "purposes")
    for each in made:
        client.files.delete(each)


@flow("files: what is wrong is refused")
def _():
    refused(
        openai.BadRequestError,
        lambda: client.files.create(file=("a.jsonl", b"{}\n"), purpose="nonsense"),
        param="purpose",
    )
    refused(openai.NotFoundError, lambda: client.files.retrieve("file-nobody"), status_code=404)


@flow("batches: answers are those of single requests")
def _():
    lines = [line(f"n{n}", messages=[{"role": "user", "content": f"Count to {n}."}]) for n in range(4)]
    batch = run(lines, metadata={"a": "b"})
    same(batch.status, "completed", f"status, with errors {batch.errors}")
    counts = batch.request_counts
    same((counts.total, counts.completed, counts.failed), (4, 4, 0), "counts")
    same((batch.object, batch.endpoint, batch.completion_window, batch.metadata), ("batch", CHAT, "24h", {"a": "b"}))
    same(batch.created_at <= batch.completed_at, True, "times")
    found = rows(batch.output_file_id)
    same(set(found), {f"n{n}" for n in range(4)}, "custom ids")
    for each in lines:
        row = found[each["custom_id"]]
        same((row["response"]["status_code"], row["error"]), (200, None))
        kind(row["response"]["request_id"], str, "request_id")
        answer = ChatCompletion.model_validate(row["response"]["body"])
        alone = client.chat.completions.create(**each["body"])
        same(answer.choices[0].message.content, alone.choices[0].message.content)
    same(client.files.retrieve(batch.output_file_id).purpose, "batch_output")


@flow("batches: schemas and tools inside")
def _():
    form = {"type": "json_schema", "json_schema": {"name": "verdict", "schema": VERDICT, "strict": True}}
    calling = {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    found = rows(
        run(
            [
                line("schema", messages=MESSAGES, response_format=form, max_tokens=200),
                line("tools", messages=MESSAGES, max_tokens=200, **calling),
            ]
        ).output_file_id
    )
    said = {name: row["response"]["body"]["choices"][0]["message"] for name, row in found.items()}
    valid(json.loads(said["schema"]["content"]), VERDICT)
    [call] = said["tools"]["tool_calls"]
    call_is_good(call["function"]["name"], call["function"]["arguments"])


@flow("batches: a bad request fails alone")
def _():
    batch = run([line("good", messages=MESSAGES), line("bad", messages=MESSAGES, temperature=9)])
    same(batch.status, "completed")
    same((batch.request_counts.completed, batch.request_counts.failed), (1, 1), "counts")
    same(set(rows(batch.output_file_id)), {"good"}, "output")
    bad = rows(batch.error_file_id)["bad"]
    same(bad["response"]["status_code"], 400, "status")
    same(bad["response"]["body"]["error"]["param"], "temperature", "param")


@flow("batches: completions and responses")
def _():
    batch = run([line("a", "/v1/completions", prompt="Once upon a time")], "/v1/completions")
    same(rows(batch.output_file_id)["a"]["response"]["body"]["object"], "text_completion")
    asked = {"custom_id": "a", "method": "POST", "url": "/v1/responses"}
    batch = run([{**asked, "body": {"model": MODEL, "input": "Hello", "max_output_tokens": 16}}], "/v1/responses")
    same(rows(batch.output_file_id)["a"]["response"]["body"]["object"], "response")


@flow("batches: a file that is none ends as failed, with its lines")
def _():
    for text in (
        "no json\n",
        json.dumps({"custom_id": "a"}) + "\n",
        json.dumps(line("a", messages=MESSAGES)) * 1 + "\n" + json.dumps(line("a", messages=MESSAGES)) + "\n",
    ):
        try:
            batch = run(text)
        except openai.BadRequestError as error:
            same(len(str(error)) > 20, True, f"says why: {error}")
            continue
        same(batch.status, "failed", f"status for {text[:60]!r}")
        same(bool(batch.errors and batch.errors.data[0].message), True, "says why")


@flow("batches: cancel, list, retrieve")
def _():
    long = [line(str(n), messages=MESSAGES, max_tokens=400, ignore_eos=True) for n in range(40)]
    batch = client.batches.create(input_file_id=upload(long).id, endpoint=CHAT, completion_window="24h")
    same(batch.id.startswith("batch_"), True, f"id {batch.id}")
    one_of(batch.status, ("validating", "in_progress"))
    one_of(client.batches.cancel(batch.id).status, ("cancelling", "cancelled"))
    same(waited(client.batches.retrieve(batch.id)).status, "cancelled")
    listed = [each.id for each in client.batches.list(limit=2)]
    same(batch.id in listed, True, "listed")
    same(len(listed), len(set(listed)), "no batch twice")


@flow("batches: what is wrong is refused")
def _():
    file = upload([line("a", messages=MESSAGES)]).id
    make = client.batches.create
    unknown = (openai.NotFoundError, openai.BadRequestError)
    refused(
        unknown,
        lambda: make(input_file_id="file-nobody", endpoint=CHAT, completion_window="24h"),
        param="input_file_id",
    )
    refused(
        openai.BadRequestError,
        lambda: make(input_file_id=file, endpoint="/v1/nothing", completion_window="24h"),
        param="endpoint",
    )
    refused(openai.NotFoundError, lambda: client.batches.retrieve("batch_nobody"), status_code=404)
    refused(openai.NotFoundError, lambda: client.batches.cancel("batch_nobody"), status_code=404)


@flow("async: a batch from upload to output")
@in_loop
async def _():
    async with openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120) as waiting:
        text = json.dumps(line("a", messages=MESSAGES)) + "\n"
        file = await waiting.files.create(file=("a.jsonl", text.encode()), purpose="batch")
        batch = await waiting.batches.create(input_file_id=file.id, endpoint=CHAT, completion_window="24h")
        until = time.monotonic() + WAIT_S
        while batch.status not in ENDED and time.monotonic() < until:
            await asyncio.sleep(0.2)
            batch = await waiting.batches.retrieve(batch.id)
        same(batch.status, "completed")
        content = await waiting.files.content(batch.output_file_id)
        same(json.loads(content.text)["response"]["status_code"], 200)


if __name__ == "__main__":
    run_all("openai batches")
