#!/usr/bin/env python3
"""What every A2A 1.0 agent must do, asked with bare HTTP over both bindings: a2a_cases.py BASE_URL

Needs httpx. The agent behaves as the first word of the text says (`tck-complete-task`, `tck-message-response`,
`tck-multi-turn`, `tck-cancel`, `tck-task-failure`, `tck-stream-basic`, `tck-long-running`), as the example `tck-sut`
does. Prints what failed, with counts; exits 1 if anything did.
"""

import json
import sys

import httpx

VERSION = {"A2A-Version": "1.0"}
CODES = {"TASK_NOT_FOUND": -32001, "TASK_NOT_CANCELABLE": -32002, "UNSUPPORTED_OPERATION": -32004,
         "CONTENT_TYPE_NOT_SUPPORTED": -32005, "INVALID_PARAMS": -32602}
RESULTS = []


class Failure(Exception):
    """An error of the agent's, by its reason."""


def reason_of(details):
    return next((d["reason"] for d in details or [] if "reason" in d), None)


class JsonRpc:
    def __init__(self, http, url):
        self.http, self.url = http, url

    def call(self, method, params):
        body = {"jsonrpc": "2.0", "id": "one", "method": method, "params": params}
        answer = self.http.post(self.url, json=body, headers=VERSION).json()
        assert answer["jsonrpc"] == "2.0" and answer["id"] == "one", answer
        if "error" in answer:
            reason = reason_of(answer["error"]["data"])
            assert CODES[reason] == answer["error"]["code"], answer
            assert isinstance(answer["error"]["message"], str)
            raise Failure(reason)
        return answer["result"]

    def stream(self, method, params):
        body = {"jsonrpc": "2.0", "id": "one", "method": method, "params": params}
        events = events_of(self.http, "POST", self.url, body)
        assert all(event["jsonrpc"] == "2.0" and event["id"] == "one" for event in events), events
        if "error" in events[0]:
            raise Failure(reason_of(events[0]["error"]["data"]))
        return [event["result"] for event in events]


class HttpJson:
    PATHS = {
        "SendMessage": ("POST", "/message:send"), "GetTask": ("GET", "/tasks/{id}"), "ListTasks": ("GET", "/tasks"),
        "CancelTask": ("POST", "/tasks/{id}:cancel"), "SendStreamingMessage": ("POST", "/message:stream"),
        "SubscribeToTask": ("POST", "/tasks/{id}:subscribe"),
    }

    def __init__(self, http, url):
        self.http, self.url = http, url

    def request(self, method, params):
        verb, path = self.PATHS[method]
        path = self.url + path.format(id=params.get("id", ""))
        left = {key: value for key, value in params.items() if "{" + key + "}" not in self.PATHS[method][1]}
        return verb, path, left

    def call(self, method, params):
        verb, path, left = self.request(method, params)
        if verb == "GET":
            query = {key: str(value).lower() if isinstance(value, bool) else value for key, value in left.items()}
            answer = self.http.get(path, params=query, headers=VERSION)
        else:
            answer = self.http.request(verb, path, json=left, headers=VERSION)
        if answer.status_code >= 400:
            error = answer.json()["error"]
            assert error["code"] == answer.status_code and isinstance(error["message"], str), error
            raise Failure(reason_of(error["details"]))
        return answer.json()

    def stream(self, method, params):
        verb, path, left = self.request(method, params)
        events = events_of(self.http, verb, path, left)
        if "error" in events[0]:
            raise Failure(reason_of(events[0]["error"]["details"]))
        return events


def events_of(http, verb, url, body):
    with http.stream(verb, url, json=body, headers={**VERSION, "Accept": "text/event-stream"}) as answer:
        if not answer.headers["content-type"].startswith("text/event-stream"):
            answer.read()
            return [answer.json()]
        return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]


def said(text, **more):
    return {"message": {"role": "ROLE_USER", "parts": [{"text": text}], **more}}


def state(task):
    return task["status"]["state"].removeprefix("TASK_STATE_")


def sent(api, text, **more):
    return api.call("SendMessage", said(text, **more))["task"]


def begun(api, text):
    return api.call("SendMessage", {**said(text), "configuration": {"returnImmediately": True}})["task"]


def fails(reason, call, *arguments):
    try:
        call(*arguments)
    except Failure as failure:
        assert str(failure) == reason, f"{failure} instead of {reason}"
        return
    raise AssertionError(f"no error instead of {reason}")


def cases(api):
    """Each with a name; a case that raises has failed."""
    none = "00000000-0000-0000-0000-000000000000"
    yield "a message is completed", lambda: state(sent(api, "tck-complete-task")) == "COMPLETED"
    yield "a message may be answered directly", lambda: direct(api)
    yield "a completed task takes no message", lambda: fails(
        "UNSUPPORTED_OPERATION", api.call, "SendMessage",
        said("tck-complete-task", taskId=sent(api, "tck-complete-task")["id"]))
    yield "a task is shown as it is", lambda: same_task(api)
    yield "no history where none is asked for", lambda: not api.call(
        "GetTask", {"id": sent(api, "tck-complete-task")["id"], "historyLength": 0}).get("history")
    yield "a task under way is cancelled", lambda: state(
        api.call("CancelTask", {"id": begun(api, "tck-cancel")["id"]})) == "CANCELED"
    yield "a completed task is not", lambda: fails(
        "TASK_NOT_CANCELABLE", api.call, "CancelTask", {"id": sent(api, "tck-complete-task")["id"]})
    yield "a failed task says why", lambda: (
        lambda task: state(task) == "FAILED" and task["status"]["message"]["parts"])(sent(api, "tck-task-failure"))
    yield "an unknown media type is refused", lambda: fails(
        "CONTENT_TYPE_NOT_SUPPORTED", api.call, "SendMessage",
        {"message": {"role": "ROLE_USER", "parts": [{"data": {"a": 1}, "mediaType": "application/x-unsupported"}]}})
    yield "lists leave artifacts out, and end with an empty token", lambda: lists(api)
    for method in ("GetTask", "CancelTask"):
        yield f"{method} of no task", lambda method=method: fails("TASK_NOT_FOUND", api.call, method, {"id": none})
    yield "subscribing to no task", lambda: fails("TASK_NOT_FOUND", api.stream, "SubscribeToTask", {"id": none})
    yield "subscribing to a completed task", lambda: fails(
        "UNSUPPORTED_OPERATION", api.stream, "SubscribeToTask", {"id": sent(api, "tck-complete-task")["id"]})
    yield "a message to no task", lambda: fails("TASK_NOT_FOUND", api.call, "SendMessage", said("hello", taskId=none))
    yield "a conversation of several turns", lambda: turns(api)
    yield "another context than the task's", lambda: fails(
        "INVALID_PARAMS", api.call, "SendMessage",
        said("done", taskId=sent(api, "tck-multi-turn")["id"], contextId="wrong-context-id"))
    yield "a stream begins with the task and ends with its end", lambda: streams(api)
    yield "a subscription begins with the task", lambda: subscribes(api)
    yield "fields have no other names", lambda: "context_id" not in json.dumps(sent(api, "tck-complete-task"))


def direct(api):
    answer = api.call("SendMessage", said("tck-message-response"))
    return "task" not in answer and answer["message"]["role"] == "ROLE_AGENT" and "taskId" not in answer["message"]


def same_task(api):
    task = sent(api, "tck-complete-task")
    got = api.call("GetTask", {"id": task["id"]})
    return (got["id"], got["contextId"], state(got)) == (task["id"], task["contextId"], "COMPLETED")


def lists(api):
    task = sent(api, "tck-complete-task")
    page = api.call("ListTasks", {"contextId": task["contextId"], "includeArtifacts": False})
    (found,) = page["tasks"]
    return found["id"] == task["id"] and "artifacts" not in found and page["nextPageToken"] == ""


def turns(api):
    first = sent(api, "tck-multi-turn")
    second = sent(api, "here is more input", taskId=first["id"], contextId=first["contextId"])
    third = sent(api, "done", taskId=first["id"])
    assert [state(task) for task in (first, second, third)] == ["INPUT_REQUIRED", "INPUT_REQUIRED", "COMPLETED"]
    return first["contextId"] == third["contextId"] and first["id"] == third["id"]


def streams(api):
    events = api.stream("SendStreamingMessage", said("tck-stream-basic"))
    assert "task" in events[0] and any("artifactUpdate" in event for event in events), events
    return state(events[-1]["statusUpdate"]) == "COMPLETED"


def subscribes(api):
    events = api.stream("SubscribeToTask", {"id": begun(api, "tck-long-running")["id"]})
    return "task" in events[0] and state(events[-1]["statusUpdate"]) == "COMPLETED"


def envelope(http, url):
    """What only JSON-RPC has."""
    def post(body, **headers):
        content = body if isinstance(body, str) else json.dumps(body)
        return http.post(url, content=content, headers={"Content-Type": "application/json", **VERSION, **headers})

    def code(body, **headers):
        answer = post(body, **headers)
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("application/json")
        return answer.json()["error"]["code"]

    call = {"jsonrpc": "2.0", "id": 1, "method": "GetTask", "params": {"id": "none"}}
    yield "an unknown method", lambda: code({**call, "method": "Sing"}) == -32601
    yield "no JSON", lambda: code("{this is no JSON") == -32700
    yield "no method", lambda: code({"jsonrpc": "2.0", "id": 1, "params": {}}) in (-32600, -32602)
    yield "another version", lambda: code(call, **{"A2A-Version": "99.0"}) == -32009
    yield "details have a type", lambda: all("@type" in d for d in post(call).json()["error"]["data"])
    yield "with a slash", lambda: http.post(url + "/", json=call, headers=VERSION).json()["error"]["code"] == -32001


def run(what, check):
    try:
        passed, why = check() is not False, ""
    except Exception as error:  # whatever it was, the case has failed
        passed, why = False, f"{type(error).__name__}: {error}"
    RESULTS.append(passed)
    if not passed:
        print("FAIL", what, why)


def main():
    with httpx.Client(timeout=30) as http:
        card = http.get(sys.argv[1].rstrip("/") + "/.well-known/agent-card.json").json()
        urls = {entry["protocolBinding"]: entry["url"] for entry in card["supportedInterfaces"]}
        for name, kind in (("JSONRPC", JsonRpc), ("HTTP+JSON", HttpJson)):
            for what, check in cases(kind(http, urls[name])):
                run(f"{name}: {what}", check)
        for what, check in envelope(http, urls["JSONRPC"]):
            run(f"JSONRPC: {what}", check)
    print(f"{sum(RESULTS)} of {len(RESULTS)} passed")
    sys.exit(0 if all(RESULTS) else 1)


main()
