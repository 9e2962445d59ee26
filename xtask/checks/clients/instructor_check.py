"""Instructor: pydantic models by tools, by schemas and by the Responses API; partial, iterable, async, retries.

    python xtask/checks/clients/instructor_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio
from typing import Literal

import anthropic
import instructor
import openai
from instructor.core import InstructorRetryException
from pydantic import BaseModel, field_validator

from flows import BASE, KEY, MODEL, V1, Failed, flow, in_loop, kind, refused, run_all, same
from samples import GREEDY, MESSAGES, Report, Verdict

raw = openai.OpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120)
ASKED = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "max_retries": 1, **GREEDY}
MODES = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA)


def serial(mode):
    """No parallel calls where there are tools: Instructor wants one."""
    return {} if mode is instructor.Mode.JSON_SCHEMA else {"parallel_tool_calls": False}


for mode in MODES:

    @flow(f"{mode.value}: create")
    def _(mode=mode):
        client = instructor.from_openai(raw, mode=mode)
        for wanted in (Verdict, Report):
            kind(client.chat.completions.create(response_model=wanted, **ASKED, **serial(mode)), wanted)

    @flow(f"{mode.value}: create_with_completion")
    def _(mode=mode):
        client = instructor.from_openai(raw, mode=mode)
        answer, completion = client.chat.completions.create_with_completion(
            response_model=Verdict, **ASKED, **serial(mode)
        )
        kind(answer, Verdict)
        same(completion.usage.total_tokens > 0, True, "usage")


for mode in (instructor.Mode.TOOLS, instructor.Mode.JSON_SCHEMA):

    @flow(f"{mode.value}: create_partial streams to a whole")
    def _(mode=mode):
        client = instructor.from_openai(raw, mode=mode)
        parts = list(client.chat.completions.create_partial(response_model=Verdict, **ASKED, **serial(mode)))
        Verdict.model_validate(parts[-1].model_dump())
        same(len(parts) > 1, True, f"parts: {len(parts)}")


@flow("simple types: Literal, bool, list")
def _():
    client = instructor.from_openai(raw)
    more = {**ASKED, "parallel_tool_calls": False}
    same(client.chat.completions.create(response_model=Literal["red", "blue"], **more) in ("red", "blue"), True)
    kind(client.chat.completions.create(response_model=bool, **more), bool)


@flow("async: create and create_partial")
@in_loop
async def _():
    client = instructor.from_openai(openai.AsyncOpenAI(base_url=V1, api_key=KEY, max_retries=0, timeout=120))
    more = {**ASKED, "parallel_tool_calls": False}
    answers = await asyncio.gather(*(client.chat.completions.create(response_model=Verdict, **more) for _ in range(3)))
    same(len({answer.model_dump_json() for answer in answers}), 1, "different answers")
    parts = [part async for part in client.chat.completions.create_partial(response_model=Verdict, **more)]
    Verdict.model_validate(parts[-1].model_dump())


@flow("retries: what the validator refused goes back as a tool's result")
def _():
    seen = []

    class Picky(BaseModel):
        """A colour."""

        colour: Literal["red", "blue"]

        @field_validator("colour")
        @classmethod
        def second_time(cls, value):
            seen.append(value)
            if len(seen) < 2:
                raise ValueError("say it again")
            return value

    client = instructor.from_openai(raw)
    more = {**ASKED, "max_retries": 3, "parallel_tool_calls": False}
    kind(client.chat.completions.create(response_model=Picky, **more), Picky)
    same(len(seen), 2, "tries")


@flow("responses_tools: create")
def _():
    client = instructor.from_openai(raw, mode=instructor.Mode.RESPONSES_TOOLS)
    more = {"model": MODEL, "input": "Tell me of a fox.", "max_output_tokens": 200, "temperature": 0, "max_retries": 1}
    kind(client.responses.create(response_model=Verdict, **more), Verdict)


@flow("from_provider: by name")
def _():
    client = instructor.from_provider(f"openai/{MODEL}", base_url=V1, api_key=KEY)
    more = {key: value for key, value in ASKED.items() if key != "model"}
    kind(client.chat.completions.create(response_model=Verdict, **more, parallel_tool_calls=False), Verdict)


@flow("anthropic_tools: create over the Anthropic API")
def _():
    client = instructor.from_anthropic(anthropic.Anthropic(base_url=BASE, api_key=KEY, max_retries=0))
    more = {"model": MODEL, "messages": MESSAGES[1:], "max_tokens": 200, "max_retries": 1}
    kind(client.messages.create(response_model=Verdict, **more), Verdict)


@flow("errors: a refusal comes through")
def _():
    client = instructor.from_openai(raw)
    wanted = (InstructorRetryException, openai.NotFoundError)
    error = refused(
        wanted, lambda: client.chat.completions.create(response_model=Verdict, **{**ASKED, "model": "nobody"})
    )
    if "nobody" not in str(error):
        raise Failed(f"the error does not name the model: {error}")


if __name__ == "__main__":
    run_all("instructor")
