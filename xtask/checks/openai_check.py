"""The official openai client against a running `narthex serve`.

    pip install openai
    narthex serve bard-chat --project examples/bard --port 8000 &
    python xtask/checks/openai_check.py --base-url http://127.0.0.1:8000/v1 --model bard-chat
"""

import argparse
import sys

import openai

parser = argparse.ArgumentParser()
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--model", default="bard-chat")
parser.add_argument("--api-key", default="none")
options = parser.parse_args()
client = openai.OpenAI(base_url=options.base_url, api_key=options.api_key, max_retries=0)
model = options.model
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail)


def refused(name, kind, call):
    try:
        call()
        check(name, False, "was accepted")
    except kind as error:
        check(name, bool(error.message), f"{error.status_code} {error.code} param={error.param}: {error.body['message'] if isinstance(error.body, dict) else error.body}"[:150])


print(f"openai {openai.__version__}")
check("models.list", model in [m.id for m in client.models.list().data])
check("models.retrieve", client.models.retrieve(model).id == model)
messages = [{"role": "system", "content": "You are a player."}, {"role": "user", "content": "JULIET:\nO Romeo, Romeo! wherefore art thou Romeo?"}]
whole = client.chat.completions.create(model=model, messages=messages, max_completion_tokens=24, temperature=0, seed=1)
text = whole.choices[0].message.content
check("chat", bool(text) and whole.choices[0].finish_reason in ("stop", "length"), repr(text[:60]))
check("chat usage", whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens and 0 < whole.usage.completion_tokens <= 24)
stream = list(client.chat.completions.create(model=model, messages=messages, max_completion_tokens=24, temperature=0, stream=True, stream_options={"include_usage": True}))
joined = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
check("chat streamed is chat whole", joined == text, f"{len(stream)} chunks")
check("usage comes last in a stream", stream[-1].usage is not None and not stream[-1].choices and stream[-1].usage == whole.usage)
several = client.chat.completions.create(model=model, messages=messages, max_tokens=12, n=3, temperature=1.0, seed=7)
again = client.chat.completions.create(model=model, messages=messages, max_tokens=12, n=3, temperature=1.0, seed=7)
answers = [c.message.content for c in several.choices]
check("n = 3 answers differ", len(set(answers)) > 1)
check("a seed repeats", answers == [c.message.content for c in again.choices])
scored = client.chat.completions.create(model=model, messages=messages, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3)
content = scored.choices[0].logprobs.content
check("chat logprobs", len(content) == scored.usage.completion_tokens and all(len(t.top_logprobs) == 3 and t.logprob <= 0 for t in content))
check("greedy takes the most likely", all(t.token == t.top_logprobs[0].token for t in content))
plain = client.completions.create(model=model, prompt="ROMEO:\n", max_tokens=16, temperature=0)
check("completion", bool(plain.choices[0].text), repr(plain.choices[0].text[:40]))
parts = "".join(c.choices[0].text for c in client.completions.create(model=model, prompt="ROMEO:\n", max_tokens=16, temperature=0, stream=True))
check("completion streamed is completion whole", parts == plain.choices[0].text)
half = plain.choices[0].text[3:8]
stopped = client.completions.create(model=model, prompt="ROMEO:\n", max_tokens=16, temperature=0, stop=[half])
check("stop string", half not in stopped.choices[0].text and plain.choices[0].text.startswith(stopped.choices[0].text) and stopped.choices[0].finish_reason == "stop", repr(stopped.choices[0].text))
echo = client.completions.create(model=model, prompt="ROMEO:\nO", max_tokens=2, temperature=0, echo=True, logprobs=2)
scores = echo.choices[0].logprobs
check("echo with logprobs", echo.choices[0].text.startswith("ROMEO:\nO") and scores.token_logprobs[0] is None and len(scores.tokens) == echo.usage.total_tokens)
many = client.completions.create(model=model, prompt=["ROMEO:", "JULIET:"], max_tokens=4, temperature=0)
check("a list of prompts", [c.index for c in many.choices] == [0, 1])
refused("unknown model", openai.NotFoundError, lambda: client.chat.completions.create(model="nobody", messages=messages))
refused("temperature out of range", openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=messages, temperature=3))
refused("a prompt that does not fit", openai.BadRequestError, lambda: client.completions.create(model=model, prompt="word " * 5000))
refused("no messages", openai.BadRequestError, lambda: client.chat.completions.create(model=model, messages=[]))
with client.chat.completions.create(model=model, messages=messages, max_tokens=200, temperature=1.0, stream=True) as left:
    next(iter(left))
check("a client may leave a stream", True)
print(f"{failures} failed")
sys.exit(failures > 0)
