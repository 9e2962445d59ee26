"""What the checks of this folder ask: messages, schemas and tools that bring even a model without sense to an end.

Every value is chosen from a few, so that a constrained answer is short and certain in its form.
"""

import json
from typing import Literal

from pydantic import BaseModel, ConfigDict

from flows import Failed, one_of, valid

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
QUESTION = "Tell me a short story of a fox and a hen."
MESSAGES = [SYSTEM, {"role": "user", "content": QUESTION}]
GREEDY = {"temperature": 0, "seed": 1}


class Verdict(BaseModel):
    """A verdict on a story. Bounds and lengths are left out: some clients take them from the schema that they send."""

    model_config = ConfigDict(extra="forbid")
    mood: Literal["good", "bad", "mixed"]
    stars: Literal[1, 2, 3, 4, 5]
    urgent: bool


class Report(BaseModel):
    """Two verdicts, and what they were written in: an object within an object, a reference, a choice of types."""

    model_config = ConfigDict(extra="forbid")
    first: Verdict
    second: Verdict | None
    language: Literal["en", "fr"] | None


VERDICT = Verdict.model_json_schema()
REPORT = Report.model_json_schema()


class Weather(BaseModel):
    """Tells the weather of a city."""

    model_config = ConfigDict(extra="forbid")
    city: Literal["Paris", "Rome", "Oslo"]
    days: Literal[1, 2, 3, 4, 5, 6, 7]


class Clock(BaseModel):
    """Tells the time of a zone."""

    model_config = ConfigDict(extra="forbid")
    zone: Literal["UTC", "CET"]


SCHEMAS = {"weather": Weather.model_json_schema(), "clock": Clock.model_json_schema()}
ABOUT = {"weather": Weather.__doc__, "clock": Clock.__doc__}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": ABOUT[name], "parameters": SCHEMAS[name]}}
    for name in SCHEMAS
]
FLAT_TOOLS = [{"type": "function", "strict": True, **tool["function"]} for tool in TOOLS]


def weather(city: Literal["Paris", "Rome", "Oslo"], days: Literal[1, 2, 3]) -> str:
    """Tells the weather of a city."""
    return f"{days} days of sun in {city}"


def clock(zone: Literal["UTC", "CET"]) -> str:
    """Tells the time of a zone."""
    return f"It is noon in {zone}"


def object_of(text, what="arguments"):
    try:
        value = json.loads(text)
    except (TypeError, ValueError) as error:
        raise Failed(f"{what} are no JSON: {text!r}: {error}") from None
    if not isinstance(value, dict):
        raise Failed(f"{what} are no object: {text!r}")
    return value


def call_is_good(name, arguments, names=("weather", "clock")):
    """The call of a tool: one of `names`, and its arguments are as its schema wants them. Gives the arguments."""
    one_of(name, names, "the tool's name")
    arguments = object_of(arguments) if isinstance(arguments, str) else arguments
    return valid(arguments, SCHEMAS[name], f"arguments of {name}")
