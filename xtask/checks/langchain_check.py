"""LangChain's ChatOpenAI and OpenAI against a running `narthex serve`: chat completions and completions only.

    pip install langchain-openai
    narthex serve bard-chat --project examples/bard --port 8000 &
    python xtask/checks/langchain_check.py --base-url http://127.0.0.1:8000/v1 --model bard-chat
"""

import argparse
import asyncio
import json
import sys
import urllib.request
from importlib.metadata import version

import openai
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel

parser = argparse.ArgumentParser()
parser.add_argument("--base-url", default="http://127.0.0.1:8000/v1")
parser.add_argument("--model", default="bard-chat")
parser.add_argument("--api-key", default="none")
options = parser.parse_args()
failures = 0


def check(name, good, detail=""):
    global failures
    failures += not good
    print(("ok   " if good else "FAIL ") + name, detail)


def refused(name, kind, field, call):
    try:
        call()
        check(name, False, "was accepted")
    except kind as error:
        told = error.body["message"] if isinstance(error.body, dict) else str(error.body)
        check(name, error.param == field and bool(told), f"{error.status_code} {error.code} param={error.param}: {told}"[:150])


def chat(kind=ChatOpenAI, **more):
    greedy = {"temperature": 0, "seed": 1, "max_tokens": 24}
    return kind(model=options.model, base_url=options.base_url, api_key=options.api_key, max_retries=0, **{**greedy, **more})


def text_of(chunks):
    return "".join(chunk if isinstance(chunk, str) else chunk.content for chunk in chunks)


def count_tokens(text):
    """The server's own count: tiktoken knows OpenAI's vocabularies only."""
    url = options.base_url.removesuffix("/v1") + "/tokenize"
    headers = {"content-type": "application/json", "authorization": f"Bearer {options.api_key}"}
    request = urllib.request.Request(url, json.dumps({"model": options.model, "prompt": text}).encode(), headers)
    return json.load(urllib.request.urlopen(request))["tokens"]


class Speech(BaseModel):
    """A speech of a play."""

    speaker: str
    line: str


in_loop = asyncio.Runner().run  # One loop for all: the client keeps its connections.
print(f"langchain-openai {version('langchain-openai')}, langchain-core {version('langchain-core')}, openai {openai.__version__}")
question = "JULIET:\nO Romeo, Romeo! wherefore art thou Romeo?"
messages = [SystemMessage("You are a player."), HumanMessage(question)]
model = chat()

whole = model.invoke(messages)
text, usage, about = whole.content, whole.usage_metadata, whole.response_metadata
check("invoke", isinstance(whole, AIMessage) and bool(text), repr(text[:60]))
check("finish reason and model's name", about["finish_reason"] in ("stop", "length") and about["model_name"] == options.model and bool(about["system_fingerprint"]))
check("usage", usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] and 0 < usage["output_tokens"] <= 24, usage)
check("the same again", model.invoke(messages).content == text)
check("a string is a message", model.invoke(question).content == model.invoke([HumanMessage(question)]).content != "")
check("pairs are messages", model.invoke([("system", "You are a player."), ("human", question)]).content == text)

chunks = list(model.stream(messages, stream_usage=True))
check("stream", text_of(chunks) == text and len(chunks) > 3, f"{len(chunks)} chunks")
total = sum(chunks[1:], chunks[0])
check("usage of a stream", all(total.usage_metadata[key] == usage[key] for key in ("input_tokens", "output_tokens", "total_tokens")) and total.response_metadata["finish_reason"] == about["finish_reason"])
check("no usage unless asked for", not any(chunk.usage_metadata for chunk in model.stream(messages)))
check("streaming=True", chat(streaming=True).invoke(messages).content == text)


async def asynchronously():
    whole, batch = await model.ainvoke(messages), await model.abatch([question, messages])
    return whole.content, [chunk async for chunk in model.astream(messages, stream_usage=True)], [answer.content for answer in batch]


once, pieces, together = in_loop(asynchronously())
check("ainvoke", once == text)
check("astream", text_of(pieces) == text and sum(pieces[1:], pieces[0]).usage_metadata["total_tokens"] == usage["total_tokens"])
check("abatch", together == [model.invoke(question).content, text])

questions = ["ROMEO:\nWhat light through yonder window breaks?", question, "First Citizen:\nSpeak, speak.", "KING:\nNow is the winter."]
alone = [model.invoke(each).content for each in questions]
check("batch", [answer.content for answer in model.batch(questions, config={"max_concurrency": 4})] == alone)
several = model.generate([[HumanMessage(each)] for each in questions])
check("generate with several prompts", [answers[0].text for answers in several.generations] == alone)
check("usage of several prompts", several.llm_output["token_usage"]["total_tokens"] == sum(answers[0].message.usage_metadata["total_tokens"] for answers in several.generations))
three = chat(n=3, temperature=1.0, seed=7, max_tokens=12)
drawn = [[answer.text for answer in three.generate([messages]).generations[0]] for _ in range(2)]
check("n = 3 answers differ", len(drawn[0]) == 3 and len(set(drawn[0])) > 1)
check("a seed repeats", drawn[0] == drawn[1])
check("another seed gives another answer", chat(temperature=1.0, seed=7).invoke(messages).content != chat(temperature=1.0, seed=8).invoke(messages).content)

talk = [*messages, AIMessage("ROMEO:\nCall me but love."), HumanMessage("JULIET:\nWhat man art thou?")]
check("a talk of several turns", bool(model.invoke(talk).content) and model.invoke(talk).usage_metadata["input_tokens"] > usage["input_tokens"])
check("an answer goes back as it came", bool(model.invoke([*messages, whole, HumanMessage("And then?")]).content))
parts = [SystemMessage("You are a player."), HumanMessage([{"type": "text", "text": question}])]
check("content as parts", model.invoke(parts).content == text)
halves = [SystemMessage("You are a player."), HumanMessage([{"type": "text", "text": part} for part in question.split("\n")])]
check("parts are joined by line ends", model.invoke(halves).content == text)

piece = text[5:9]
for name, answer in [("stop", model.invoke(messages, stop=[piece])), ("stop bound", model.bind(stop=piece).invoke(messages)), ("stop of the model", chat(stop_sequences=[piece]).invoke(messages))]:
    check(name, answer.content == text[: text.index(piece)] and answer.response_metadata["finish_reason"] == "stop", repr(answer.content))
check("stop in a stream", text_of(model.stream(messages, stop=[piece])) == text[: text.index(piece)])
sent = model._get_request_payload(messages)
check("max_tokens goes as max_completion_tokens", sent.get("max_completion_tokens") == 24 and "max_tokens" not in sent, sorted(set(sent) - {"messages"}))
short = chat(max_tokens=5).invoke(messages)
check("max_tokens", short.usage_metadata["output_tokens"] == 5 and short.response_metadata["finish_reason"] == "length" and text.startswith(short.content))
tuned = chat(top_p=0.9, presence_penalty=0.5, frequency_penalty=0.5, temperature=0.8, logit_bias={"5": -100}, extra_body={"min_p": 0.05, "top_k": 20})
check("the other sampling options", bool(tuned.invoke(messages).content) and tuned.invoke(messages).content == tuned.invoke(messages).content)

scored = chat(logprobs=True, top_logprobs=3).invoke(messages)
content = scored.response_metadata["logprobs"]["content"]
check("logprobs", len(content) == scored.usage_metadata["output_tokens"] and all(len(t["top_logprobs"]) == 3 and t["logprob"] <= 0 for t in content))
check("greedy takes the most likely", all(t["token"] == t["top_logprobs"][0]["token"] for t in content))
streamed = [t for chunk in chat(logprobs=True, top_logprobs=3).stream(messages) for t in (chunk.response_metadata.get("logprobs") or {}).get("content", [])]
check("logprobs of a stream", streamed == content)

counting = chat(custom_get_token_ids=count_tokens)
check("get_num_tokens by the server's /tokenize", counting.get_num_tokens(question) == len(count_tokens(question)) > 5, counting.get_num_tokens(question))

chain = ChatPromptTemplate.from_messages([("system", "You are {role}."), ("human", "{line}")]) | model | StrOutputParser()
filled = {"role": "a player", "line": question}
check("chain", chain.invoke(filled) == text)
check("chain streamed", "".join(chain.stream(filled)) == text)
check("chain in a batch", chain.batch([filled] * 3) == [text] * 3)


async def events():
    return [event async for event in chain.astream_events(filled, version="v2")]


check("events of a chain", text_of(event["data"]["chunk"] for event in in_loop(events()) if event["event"] == "on_chat_model_stream") == text)

plain = chat(OpenAI, max_tokens=16)
continued = plain.invoke("ROMEO:\n")
check("OpenAI invoke", bool(continued), repr(continued[:40]))
check("OpenAI stream", "".join(plain.stream("ROMEO:\n")) == continued)
check("OpenAI batch", plain.batch(["ROMEO:\n", "JULIET:\n"])[0] == continued)
check("OpenAI stop", plain.invoke("ROMEO:\n", stop=[continued[3:7]]) == continued[: continued.index(continued[3:7])])
both = plain.generate(["ROMEO:\n", "JULIET:\n"])
check("OpenAI generate", both.generations[0][0].text == continued and both.llm_output["token_usage"]["completion_tokens"] <= 32, both.llm_output["token_usage"])
two = chat(OpenAI, n=2, best_of=2, temperature=1.0, max_tokens=16).generate(["ROMEO:\n", "JULIET:\n"])
check("OpenAI n = 2", [len(answers) for answers in two.generations] == [2, 2] and two.generations[0][0].text != two.generations[0][1].text)
scores = chat(OpenAI, logprobs=2, max_tokens=16).generate(["ROMEO:\n"]).generations[0][0].generation_info["logprobs"]
check("OpenAI logprobs", "".join(scores["tokens"]).startswith(continued) and all(len(top) == 2 for top in scores["top_logprobs"]))
check("OpenAI ainvoke", in_loop(plain.ainvoke("ROMEO:\n")) == continued)

wrong = ChatOpenAI(model="nobody", base_url=options.base_url, api_key=options.api_key, max_retries=0)
refused("unknown model", openai.NotFoundError, "model", lambda: wrong.invoke(question))
refused("unknown model, streamed", openai.NotFoundError, "model", lambda: list(wrong.stream(question)))
refused("unknown model, completions", openai.NotFoundError, "model", lambda: OpenAI(model="nobody", base_url=options.base_url, api_key=options.api_key, max_retries=0).invoke(question))
refused("temperature out of range", openai.BadRequestError, "temperature", lambda: chat(temperature=3).invoke(question))
refused("messages that do not fit", openai.BadRequestError, "messages", lambda: model.invoke("word " * 5000))
try:
    model.invoke("word " * 5000)
except Exception as error:  # By words in the message: the client leaves the code out of it.
    check("LangChain takes it for a ContextOverflowError", isinstance(error, ContextOverflowError), f"{type(error).__name__}: {error}")

# Not there yet: whoever asks must hear it.
tool = {"type": "function", "function": {"name": "speak", "description": "Speaks.", "parameters": {"type": "object", "properties": {}}}}
picture = HumanMessage([{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}])
refused("an image", openai.BadRequestError, "messages[0].content[1].type", lambda: model.invoke([picture]))
print(f"{failures} failed")
sys.exit(failures > 0)
