"""LangChain's ChatOpenAI over agents, with chat and with responses.

    pip install langchain-openai
    python agents_langchain.py BASE_URL
"""

import sys
from importlib.metadata import version

from langchain_openai import ChatOpenAI

BASE = sys.argv[1].rstrip("/")
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, str(detail)[:200])


print("langchain-openai", version("langchain-openai"))
for responses in (False, True):
    kind = "responses" if responses else "chat"
    model = ChatOpenAI(model="looker", base_url=f"{BASE}/v1", api_key="none", use_responses_api=responses, max_retries=0)
    answer = model.invoke("a")
    check(f"{kind} invoke", answer.text.endswith("it is a cat") and not answer.tool_calls, repr(answer.text))
    pieces = [chunk.text for chunk in model.stream("a")]
    check(f"{kind} stream", "".join(pieces).endswith("it is a cat") and len([p for p in pieces if p]) > 2, pieces)
    turns = model.invoke([("system", "be kind"), ("user", "a"), ("ai", "b"), ("user", "c")])
    check(f"{kind} turns", turns.text.endswith("it is a cat"))
    waits = ChatOpenAI(model="mailer", base_url=f"{BASE}/v1", api_key="none", use_responses_api=responses).invoke("a")
    check(f"{kind} waits", "waits for an answer" in waits.text, repr(waits.text))
sys.exit(failures > 0)
