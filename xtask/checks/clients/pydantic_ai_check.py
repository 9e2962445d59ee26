"""Pydantic AI: text, typed outputs three ways, tools over three steps, streams, history, the Responses API.

    python xtask/checks/clients/pydantic_ai_check.py http://127.0.0.1:8000 MODEL
"""

import asyncio
from dataclasses import dataclass

from pydantic_ai import Agent, ModelHTTPError, NativeOutput, PromptedOutput, ToolOutput, UnexpectedModelBehavior
from pydantic_ai.capabilities import AbstractCapability
from pydantic_ai.direct import model_request_sync
from pydantic_ai.messages import ModelRequest, ToolCallPart, ToolReturnPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.ollama import OllamaModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.ollama import OllamaProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition

from flows import KEY, MODEL, V1, flow, in_loop, kind, refused, run_all, same
from samples import QUESTION, SCHEMAS, Report, Verdict, call_is_good, clock, weather


def chat_model(name=MODEL):
    profile = {"supports_json_schema_output": True, "supports_json_object_output": True}
    return OpenAIChatModel(name, provider=OpenAIProvider(base_url=V1, api_key=KEY), profile=profile)


def responses_model():
    return OpenAIResponsesModel(MODEL, provider=OpenAIProvider(base_url=V1, api_key=KEY))


SHORT = {"temperature": 0.0, "max_tokens": 24}
LONG = {"temperature": 0.0, "max_tokens": 200, "parallel_tool_calls": False}


@dataclass
class Forcing(AbstractCapability):
    """Says which tool is called in which step: the model has no sense."""

    def get_model_settings(self):
        return lambda context: {"tool_choice": {1: ["weather"], 2: ["clock"]}.get(context.run_step, "none")}


@flow("run_sync: text and usage")
def _():
    result = Agent(chat_model(), instructions="You are helpful.").run_sync(QUESTION, model_settings=SHORT)
    same(kind(result.output, str) != "", True, "there is text")
    usage = result.usage() if callable(result.usage) else result.usage
    same(usage.input_tokens > 0 and 0 < usage.output_tokens <= 24, True, f"usage {usage}")


@flow("run_stream: is the whole")
@in_loop
async def _():
    agent = Agent(chat_model())
    whole = (await agent.run(QUESTION, model_settings=SHORT)).output
    async with agent.run_stream(QUESTION, model_settings=SHORT) as stream:
        text = "".join([piece async for piece in stream.stream_text(delta=True, debounce_by=None)])
    same(text, whole)


@flow("message_history: a second question")
def _():
    agent = Agent(chat_model())
    first = agent.run_sync(QUESTION, model_settings=SHORT)
    second = agent.run_sync("And then?", message_history=first.all_messages(), model_settings=SHORT)
    same(len(second.all_messages()), 4, "messages")
    same(len(second.new_messages()), 2, "new messages")


for kind_of_output in (NativeOutput, ToolOutput):

    @flow(f"{kind_of_output.__name__}: run and run_stream")
    @in_loop
    async def _(kind_of_output=kind_of_output):
        for wanted in (Verdict, Report):
            agent = Agent(chat_model(), output_type=kind_of_output(wanted), retries=0)
            answer = kind((await agent.run(QUESTION, model_settings=LONG)).output, wanted)
            async with agent.run_stream(QUESTION, model_settings=LONG) as stream:
                same(await stream.get_output(), answer, "streamed")


@flow("ToolOutput: one of two")
def _():
    agent = Agent(chat_model(), output_type=[ToolOutput(Verdict, name="a"), ToolOutput(Report, name="b")], retries=0)
    kind(agent.run_sync(QUESTION, model_settings=LONG).output, (Verdict, Report))


@flow("PromptedOutput: a JSON object, or a clean end")
def _():
    agent = Agent(chat_model(), output_type=PromptedOutput(Verdict), retries=0)
    try:
        kind(agent.run_sync(QUESTION, model_settings={**SHORT, "max_tokens": 64}).output, Verdict)
    except UnexpectedModelBehavior:
        pass  # The object need not be a verdict: nothing but the prompt asks for one.


@flow("tools: two tools over three steps")
def _():
    agent = Agent(chat_model(), tools=[weather, clock], capabilities=[Forcing()], retries=0)
    result = agent.run_sync(QUESTION, model_settings=LONG)
    parts = [part for message in result.all_messages() for part in message.parts]
    same([part.tool_name for part in parts if isinstance(part, ToolCallPart)], ["weather", "clock"], "calls")
    returned = [part.content for part in parts if isinstance(part, ToolReturnPart)]
    same(("days of sun" in returned[0], "noon" in returned[1]), (True, True), f"results {returned}")
    kind(result.output, str)


@flow("tools: events of a streamed run")
@in_loop
async def _():
    agent = Agent(chat_model(), tools=[weather, clock], capabilities=[Forcing()], retries=0)
    async with agent.iter(QUESTION, model_settings=LONG) as run:
        names = []
        async for node in run:
            if Agent.is_model_request_node(node):
                async with node.stream(run.ctx) as stream:
                    async for _ in stream:
                        pass
            if Agent.is_call_tools_node(node):
                names += [part.tool_name for part in node.model_response.parts if isinstance(part, ToolCallPart)]
    same(names, ["weather", "clock"], "calls")


@flow("direct: one request with tools required")
def _():
    defined = [ToolDefinition(name=name, parameters_json_schema=schema) for name, schema in SCHEMAS.items()]
    parameters = ModelRequestParameters(function_tools=defined, allow_text_output=False)
    asked = [ModelRequest.user_text_prompt(QUESTION)]
    answer = model_request_sync(
        chat_model(), asked, model_request_parameters=parameters, model_settings={**LONG, "tool_choice": "required"}
    )
    [call] = [part for part in answer.parts if isinstance(part, ToolCallPart)]
    call_is_good(call.tool_name, call.args_as_dict())


@flow("responses: text, typed, tools")
@in_loop
async def _():
    whole = (await Agent(responses_model()).run(QUESTION, model_settings=SHORT)).output
    async with Agent(responses_model()).run_stream(QUESTION, model_settings=SHORT) as stream:
        same(await stream.get_output(), whole, "streamed")
    for kind_of_output in (NativeOutput, ToolOutput):
        agent = Agent(responses_model(), output_type=kind_of_output(Verdict), retries=0)
        kind((await agent.run(QUESTION, model_settings=LONG)).output, Verdict)
    agent = Agent(responses_model(), tools=[weather, clock], capabilities=[Forcing()], retries=0)
    kind((await agent.run(QUESTION, model_settings=LONG)).output, str)


@flow("OllamaModel: text and typed")
def _():
    model = OllamaModel(MODEL, provider=OllamaProvider(base_url=V1, api_key=KEY))
    kind(Agent(model).run_sync(QUESTION, model_settings=SHORT).output, str)
    kind(
        Agent(model, output_type=NativeOutput(Verdict), retries=0).run_sync(QUESTION, model_settings=LONG).output,
        Verdict,
    )


@flow("async: three at once")
@in_loop
async def _():
    agent = Agent(chat_model(), output_type=NativeOutput(Verdict), retries=0)
    results = await asyncio.gather(*(agent.run(QUESTION, model_settings=LONG) for _ in range(3)))
    same(len({result.output.model_dump_json() for result in results}), 1, "different answers")


@flow("errors: ModelHTTPError with the status")
def _():
    refused(ModelHTTPError, lambda: Agent(chat_model("nobody")).run_sync("x"), status_code=404)
    refused(
        ModelHTTPError, lambda: Agent(chat_model()).run_sync("x", model_settings={"temperature": 3.0}), status_code=400
    )


if __name__ == "__main__":
    run_all("pydantic_ai")
