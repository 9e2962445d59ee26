"""What the checks of this folder share: how a flow is declared, run, judged and told of. Knows no client."""

import argparse
import asyncio
import functools
import os
import pathlib
import re
import signal
import sys
import time
import traceback
import warnings

import jsonschema

warnings.simplefilter("ignore")
os.environ.update(LANGSMITH_TRACING="false", LITELLM_LOG="ERROR", DO_NOT_TRACK="1", LITELLM_LOCAL_MODEL_COST_MAP="True")
for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):  # The server is here.
    os.environ.pop(proxy, None)
    os.environ.pop(proxy.lower(), None)

parser = argparse.ArgumentParser()
parser.add_argument("base_url", help="such as http://127.0.0.1:8000, without /v1")
parser.add_argument("model", help="the name that the server has for its one chat model")
parser.add_argument("--api-key", default="none")
parser.add_argument("--only", default="", help="run the flows whose name has this regular expression")
parser.add_argument("--limit-s", type=int, default=180, help="seconds that one flow may take")
parser.add_argument("--traces", action="store_true", help="print where a flow failed, in full")
options = parser.parse_args()
BASE = options.base_url.rstrip("/")
V1 = BASE + "/v1"
MODEL = options.model
KEY = options.api_key
flows = []


class Failed(AssertionError):
    """Something is not as it should be, said in words."""


class TooLong(BaseException):
    """A flow took too long. No `Exception`, so that no client takes it for a fault to try again."""


def flow(name):
    """Declares a function to be a flow."""

    def declare(function):
        flows.append((name, function))
        return function

    return declare


def same(actual, wanted, what="it"):
    if actual != wanted:
        raise Failed(f"{what} is {short(actual)}, not {short(wanted)}")


def one_of(actual, wanted, what="it"):
    if actual not in wanted:
        raise Failed(f"{what} is {short(actual)}, none of {short(wanted)}")


def kind(value, wanted, what="it"):
    if not isinstance(value, wanted):
        raise Failed(f"{what} is {short(value)}, of type {type(value).__name__}")
    return value


def valid(instance, schema, what="it"):
    try:
        jsonschema.validate(instance, schema)
    except jsonschema.ValidationError as error:
        raise Failed(f"{what} is {short(instance)}: {error.message}") from None
    return instance


def refused(wanted, call, **attributes):
    """A call must raise `wanted`, with these attributes, and say why in words. Gives the error."""
    try:
        answer = call()
    except wanted as error:
        for name, value in attributes.items():
            actual = getattr(error, name, None)
            allowed = value if isinstance(value, tuple) else (value,)
            if actual not in allowed:
                raise Failed(f"{type(error).__name__}.{name} is {actual!r}, not {value!r}: {short(error)}") from None
        if len(str(error)) < 15:
            raise Failed(f"the error says too little: {error}") from None
        return error
    raise Failed(f"was not refused: {short(answer)}")


def short(value, most=140):
    text = re.sub(r"\s+", " ", str(value) if isinstance(value, BaseException) else repr(value))
    return text if len(text) <= most else text[:most] + "…"


def reason(error):
    if isinstance(error, Failed):
        return re.sub(r"\s+", " ", str(error))[:300]
    if isinstance(error, TooLong):
        return f"took more than {options.limit_s} s"
    here = pathlib.Path(__file__).parent
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if pathlib.Path(frame.filename).parent == here
    ]
    places = " < ".join(f"{pathlib.Path(frame.filename).name}:{frame.lineno}" for frame in frames[:0:-1] or frames)
    return re.sub(r"\s+", " ", f"{type(error).__name__} at {places}: {error}")[:300]


def tell(client, name, said):
    print(f"{client:<18} {name:<58} {said}", flush=True)


def run_all(client):
    """Runs all declared flows of a client, prints a line for each and the totals, and ends the program."""

    def late(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    good = bad = 0
    for name, function in flows:
        if not re.search(options.only, name):
            continue
        begun = time.monotonic()
        signal.alarm(options.limit_s)
        try:
            function()
        except (Exception, TooLong, asyncio.CancelledError) as error:
            signal.alarm(0)
            bad += 1
            tell(client, name, f"FAILED {reason(error)}")
            if options.traces:
                traceback.print_exception(error)
        else:
            signal.alarm(0)
            good += 1
            tell(client, name, f"ok ({time.monotonic() - begun:.1f} s)")
    print(f"{client}: {good} ok, {bad} failed", flush=True)
    sys.stdout.flush()
    os._exit(bad > 0)  # Threads of a client that wait for nothing hold nobody up.


runner = asyncio.Runner()


def in_loop(function):
    """A flow written as a coroutine. All run in one loop: some clients keep connections between flows."""

    @functools.wraps(function)
    def run():
        global runner
        try:
            return runner.run(function())
        except TooLong:
            runner = asyncio.Runner()  # The old loop is in the midst of something.
            raise

    return run
