"""OpenAI's Python client against agents: chat, responses, streams, approvals.

    pip install openai
    python agents_openai.py BASE_URL
"""

import sys
from importlib.metadata import version

import openai

BASE = sys.argv[1].rstrip("/")
client = openai.OpenAI(base_url=f"{BASE}/v1", api_key="none", max_retries=0)
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


def said(text):
    return [{"role": "user", "content": text}]


print("openai", version("openai"))
check("models", "echo" in [model.id for model in client.models.list()])
answer = client.chat.completions.create(model="looker", messages=said("a"))
check("chat", answer.choices[0].message.content == "let me look\n\nit is a cat", answer.choices[0].message.content)
stream = list(client.chat.completions.create(model="echo", messages=said("a b"), stream=True))
pieces = [chunk.choices[0].delta.content for chunk in stream if chunk.choices[0].delta.content]
check("chat stream", pieces == ["you ", "said: ", "a ", "b"] and stream[-1].choices[0].finish_reason == "stop", pieces)
answer = client.chat.completions.create(model="mailer", messages=said("a"))
ours = answer.model_extra["narthex"]
check("chat waits", ours["status"] == "waiting" and ours["interrupts"][0]["call"][0] == "mail.send", ours)
more = {"narthex": {"run": ours["run"], "answers": [{"interrupt": ours["interrupts"][0]["id"], "approve": True}]}}
answer = client.chat.completions.create(model="mailer", messages=[], extra_body=more)
check("chat goes on", answer.choices[0].message.content == "that is all", answer.choices[0].message.content)
keyed = [client.chat.completions.create(model="echo", messages=said("k"), extra_headers={"Idempotency-Key": "k1"}) for _ in range(2)]
check("one key, one run", keyed[0].model_extra["narthex"]["run"] == keyed[1].model_extra["narthex"]["run"])
for name, kind, call in [
    ("unknown agent", openai.NotFoundError, lambda: client.chat.completions.create(model="none", messages=said("a"))),
    ("failed run", openai.UnprocessableEntityError, lambda: client.chat.completions.create(model="failing", messages=said("a"))),
    ("tools", openai.BadRequestError, lambda: client.chat.completions.create(model="echo", messages=said("a"), tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}])),
    ("unknown response", openai.NotFoundError, lambda: client.responses.retrieve("resp_none_0")),
]:
    try:
        call()
        check(name, False, "was accepted")
    except kind as error:
        check(name, bool(error.message), error.message)

response = client.responses.create(model="looker", input="a")
check("responses", response.output_text.endswith("it is a cat") and response.status == "completed", response.output_text)
check("responses show calls", [item.type for item in response.output] == ["reasoning", "message", "mcp_call", "message"])
check("responses retrieve", client.responses.retrieve(response.id).output == response.output)
kinds, text = [], ""
for event in client.responses.create(model="looker", input="a", stream=True):
    kinds.append(event.type)
    text += event.delta if event.type == "response.output_text.delta" else ""
check("responses stream", kinds[0] == "response.created" and kinds[-1] == "response.completed" and text == "let me lookit is a cat", text)
with client.responses.stream(model="echo", input="a b") as stream:
    final = stream.get_final_response() if not [None for _ in stream] else stream.get_final_response()
check("responses stream helper", final.output_text == "you said: a b", final.output_text)
first = client.responses.create(model="mailer", input="a")
request = next(item for item in first.output if item.type == "mcp_approval_request")
check("responses wait", request.name == "mail.send" and first.output_text.startswith("The run"), request.arguments)
given = [{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": True}]
second = client.responses.create(model="mailer", previous_response_id=first.id, input=given)
check("responses go on", second.output_text == "that is all", second.output_text)
third = client.responses.create(model="echo", previous_response_id=second.id, input="more")
check("responses previous", third.output_text == "you said: more" and third.previous_response_id == second.id)
conversation = client.conversations.create()
fourth = client.responses.create(model="former", conversation=conversation.id, input="x")
check("conversation, data", fourth.output_text == '{"colour":"red"}', fourth.output_text)
background = client.responses.create(model="slow", input="x", background=True)
check("background", background.status == "in_progress" and client.responses.cancel(background.id).status == "cancelled")
failed = client.responses.create(model="failing", input="x")
check("failed response", failed.status == "failed" and failed.error.message == "the model is gone", failed.error)
sys.exit(failures > 0)
