// Clients for JavaScript: openai, the AI SDK, LangChain, Anthropic's and Ollama's. A line for each flow, then totals.
//
//     (cd xtask/checks/clients && npm install)
//     node xtask/checks/clients/clients.mjs http://127.0.0.1:8000 MODEL
//
// CLIENTS_JS may name another folder that holds node_modules.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const LIMIT_MS = 180_000;
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { "api-key": { type: "string", default: "none" }, only: { type: "string", default: "" } },
});
const [BASE, MODEL] = positionals;
const [KEY, V1] = [values["api-key"], `${BASE}/v1`];
const home = createRequire(join(process.env.CLIENTS_JS ?? dirname(fileURLToPath(import.meta.url)), "x.js"));
const load = (name) => import(pathToFileURL(home.resolve(name)));

const { default: OpenAI, NotFoundError, BadRequestError, APIUserAbortError } = await load("openai");
const { zodResponseFormat, zodTextFormat, zodFunction } = await load("openai/helpers/zod");
const { z } = await load("zod");
const ai = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");
const { createOpenAI } = await load("@ai-sdk/openai");
const { ChatOpenAI } = await load("@langchain/openai");
const { HumanMessage, ToolMessage } = await load("@langchain/core/messages");
const { tool: langchainTool } = await load("@langchain/core/tools");
const { default: Anthropic } = await load("@anthropic-ai/sdk");
const { Ollama } = await load("ollama");
globalThis.AI_SDK_LOG_WARNINGS = false;

const flows = [];
const flow = (name, run) => flows.push([name, run]);
const QUESTION = "Tell me a short story of a fox and a hen.";
const MESSAGES = [
  { role: "system", content: "You are a helpful assistant." },
  { role: "user", content: QUESTION },
];
const Verdict = z.object({ mood: z.enum(["good", "bad", "mixed"]), urgent: z.boolean() });
const Weather = z.object({ city: z.enum(["Paris", "Rome", "Oslo"]) });
const WEATHER = {
  type: "object",
  properties: { city: { type: "string", enum: ["Paris", "Rome", "Oslo"] } },
  required: ["city"],
  additionalProperties: false,
};
const TOOLS = [{ type: "function", function: { name: "weather", description: "The weather.", parameters: WEATHER } }];
const openai = new OpenAI({ baseURL: V1, apiKey: KEY, maxRetries: 0 });
const SHORT = { model: MODEL, messages: MESSAGES, max_completion_tokens: 24, temperature: 0, seed: 1 };
const CALLING = {
  ...SHORT,
  max_completion_tokens: 200,
  tools: TOOLS,
  tool_choice: "required",
  parallel_tool_calls: false,
};
const chat = (more = {}) => openai.chat.completions.create({ ...SHORT, ...more });

async function gathered(stream, part) {
  let text = "";
  for await (const piece of stream) text += part(piece) ?? "";
  return text;
}

// ---- openai

flow("openai: chat, whole and streamed with usage", async () => {
  const whole = await chat();
  const text = whole.choices[0].message.content;
  assert.ok(text.length > 0);
  let usage;
  const stream = await chat({ stream: true, stream_options: { include_usage: true } });
  assert.equal(await gathered(stream, (c) => ((usage = c.usage ?? usage), c.choices[0]?.delta.content)), text);
  assert.equal(usage.total_tokens, whole.usage.total_tokens);
});

flow("openai: the stream helper", async () => {
  const stream = openai.chat.completions.stream(SHORT);
  const text = await gathered(stream, (c) => c.choices[0]?.delta.content);
  assert.equal(await stream.finalContent(), text);
  assert.equal(text, (await chat()).choices[0].message.content);
});

flow("openai: parse by zod, whole and streamed", async () => {
  const more = { ...SHORT, max_completion_tokens: 200, response_format: zodResponseFormat(Verdict, "verdict") };
  const { parsed } = (await openai.chat.completions.parse(more)).choices[0].message;
  Verdict.parse(parsed);
  const final = await openai.chat.completions.stream(more).finalChatCompletion();
  assert.deepEqual(final.choices[0].message.parsed, parsed);
});

flow("openai: tools required, and the result sent back", async () => {
  const { message, finish_reason } = (await chat(CALLING)).choices[0];
  assert.equal(finish_reason, "tool_calls");
  const [call] = message.tool_calls;
  Weather.parse(JSON.parse(call.function.arguments));
  const messages = [...MESSAGES, message, { role: "tool", tool_call_id: call.id, content: "sun" }];
  const last = await chat({ messages, tools: TOOLS, tool_choice: "none" });
  assert.ok(!last.choices[0].message.tool_calls);
});

flow("openai: streamed calls are the whole ones", async () => {
  const whole = (await chat(CALLING)).choices[0].message.tool_calls[0].function;
  const stream = openai.chat.completions.stream(CALLING);
  const { message } = (await stream.finalChatCompletion()).choices[0];
  assert.equal(message.tool_calls[0].function.arguments, whole.arguments);
});

flow("openai: zodFunction is parsed, runTools runs it", async () => {
  const tools = [zodFunction({ name: "weather", parameters: Weather, function: ({ city }) => `sun in ${city}` })];
  const parsed = await openai.chat.completions.parse({ ...CALLING, tools });
  Weather.parse(parsed.choices[0].message.tool_calls[0].function.parsed_arguments);
  const choice = { type: "function", function: { name: "weather" } };
  const runner = openai.chat.completions.runTools({ ...CALLING, tools, tool_choice: choice });
  assert.match(await runner.finalFunctionToolCallResult(), /^sun in /);
});

flow("openai: responses, whole, streamed, parsed, deleted", async () => {
  const asked = { model: MODEL, input: QUESTION, max_output_tokens: 24, temperature: 0 };
  const whole = await openai.responses.create(asked);
  const stream = await openai.responses.create({ ...asked, stream: true });
  const text = await gathered(stream, (e) => (e.type === "response.output_text.delta" ? e.delta : ""));
  assert.equal(text, whole.output_text);
  const format = zodTextFormat(Verdict, "verdict");
  const parsed = await openai.responses.parse({ ...asked, max_output_tokens: 200, text: { format } });
  Verdict.parse(parsed.output_parsed);
  const next = await openai.responses.create({ ...asked, input: "And then?", previous_response_id: whole.id });
  assert.ok(next.usage.input_tokens > whole.usage.input_tokens);
  await openai.responses.delete(whole.id);
  await assert.rejects(openai.responses.retrieve(whole.id), NotFoundError);
});

flow("openai: a file and a batch", async () => {
  const line = {
    custom_id: "a",
    method: "POST",
    url: "/v1/chat/completions",
    body: { ...SHORT, max_completion_tokens: 8 },
  };
  const file = await openai.files.create({
    file: new File([JSON.stringify(line) + "\n"], "a.jsonl"),
    purpose: "batch",
  });
  let batch = await openai.batches.create({ input_file_id: file.id, endpoint: line.url, completion_window: "24h" });
  while (!["completed", "failed"].includes(batch.status)) {
    await new Promise((done) => setTimeout(done, 200));
    batch = await openai.batches.retrieve(batch.id);
  }
  const output = JSON.parse(await (await openai.files.content(batch.output_file_id)).text());
  assert.equal(output.response.status_code, 200);
});

flow("openai: models, errors, a cancelled stream", async () => {
  const names = [];
  for await (const model of openai.models.list()) names.push(model.id);
  assert.ok(names.includes(MODEL));
  await assert.rejects(chat({ model: "nobody" }), (e) => e instanceof NotFoundError && e.param === "model");
  await assert.rejects(chat({ temperature: 3 }), (e) => e instanceof BadRequestError && e.param === "temperature");
  await assert.rejects(
    openai.embeddings.create({ model: MODEL, input: "x" }),
    (e) => e.status === 400 || e.status === 404,
  );
  const stream = await chat({ stream: true, max_completion_tokens: 4000 });
  for await (const _ of stream) break;
  const controller = new AbortController();
  const late = openai.chat.completions.create(
    { ...SHORT, max_completion_tokens: 4000, ignore_eos: true },
    { signal: controller.signal },
  );
  setTimeout(() => controller.abort(), 50);
  await assert.rejects(late, APIUserAbortError);
  await chat();
});

// ---- the AI SDK

// The compatible provider has no word for it; the model must not call on and on.
const serial = (body) => (body.tools ? { ...body, parallel_tool_calls: false } : body);
const compatible = createOpenAICompatible({
  name: "narthex",
  baseURL: V1,
  apiKey: KEY,
  supportsStructuredOutputs: true,
  includeUsage: true,
  transformRequestBody: serial,
})(MODEL);
const official = createOpenAI({ baseURL: V1, apiKey: KEY });
const asked = { prompt: QUESTION, temperature: 0, maxOutputTokens: 24, maxRetries: 0 };
const models = [
  ["compatible", compatible],
  ["openai.chat", official.chat(MODEL)],
  ["openai.responses", official.responses(MODEL)],
];
const providerOptions = { openai: { parallelToolCalls: false } };

for (const [name, model] of models) {
  flow(`ai ${name}: generateText, streamText`, async () => {
    const whole = await ai.generateText({ model, ...asked });
    assert.ok(whole.text.length > 0);
    assert.ok(["stop", "length"].includes(whole.finishReason), whole.finishReason);
    const stream = ai.streamText({ model, ...asked, onError: () => {} });
    assert.equal(await gathered(stream.textStream, (text) => text), whole.text);
    assert.equal((await stream.usage).totalTokens, whole.usage.totalTokens);
  });

  flow(`ai ${name}: an object by a schema, whole and streamed`, async () => {
    const more = { model, ...asked, maxOutputTokens: 200, output: ai.Output.object({ schema: Verdict }) };
    const { output } = await ai.generateText(more);
    Verdict.parse(output);
    const stream = ai.streamText({ ...more, onError: () => {} });
    let last;
    for await (const part of stream.partialOutputStream) last = part;
    assert.deepEqual(last, output);
  });

  flow(`ai ${name}: a loop of tools over three steps`, async () => {
    const tools = {
      weather: ai.tool({ description: "The weather.", inputSchema: Weather, execute: ({ city }) => `sun in ${city}` }),
      clock: ai.tool({
        description: "The time.",
        inputSchema: z.object({ zone: z.enum(["UTC", "CET"]) }),
        execute: () => "noon",
      }),
    };
    const prepareStep = ({ stepNumber }) => ({
      toolChoice: stepNumber < 2 ? { type: "tool", toolName: ["weather", "clock"][stepNumber] } : "none",
    });
    const more = {
      model,
      ...asked,
      maxOutputTokens: 200,
      tools,
      prepareStep,
      providerOptions,
      stopWhen: ai.stepCountIs(3),
    };
    const { steps } = await ai.generateText(more);
    const called = (list) => list.map((step) => step.toolCalls.map((call) => call.toolName));
    assert.deepEqual(called(steps), [["weather"], ["clock"], []]);
    assert.match(steps[0].toolResults[0].output, /^sun in /);
    const stream = ai.streamText({ ...more, onError: () => {} });
    await stream.consumeStream();
    assert.deepEqual(called(await stream.steps), called(steps));
  });
}

flow("ai: a refusal is an APICallError", async () => {
  const call = ai.generateText({ model: official.chat("nobody"), ...asked });
  await assert.rejects(call, (error) => ai.APICallError.isInstance(error) && error.statusCode === 404);
});

// ---- LangChain

const langchain = (more = {}) =>
  new ChatOpenAI({
    model: MODEL,
    apiKey: KEY,
    configuration: { baseURL: V1 },
    temperature: 0,
    maxTokens: 24,
    maxRetries: 0,
    ...more,
  });

flow("langchain: invoke, stream, batch", async () => {
  const whole = await langchain().invoke(QUESTION);
  assert.ok(whole.content.length > 0);
  assert.equal(await gathered(await langchain().stream(QUESTION), (c) => c.content), whole.content);
  assert.deepEqual(
    (await langchain().batch([QUESTION, QUESTION])).map((a) => a.content),
    [whole.content, whole.content],
  );
});

flow("langchain: bindTools, and the result sent back", async () => {
  const weather = langchainTool(({ city }) => `sun in ${city}`, {
    name: "weather",
    description: "The weather.",
    schema: Weather,
  });
  const model = langchain({ maxTokens: 200 }).bindTools([weather], {
    tool_choice: "weather",
    parallel_tool_calls: false,
  });
  const answer = await model.invoke(QUESTION);
  assert.equal(answer.tool_calls.length, 1);
  const result = await weather.invoke(answer.tool_calls[0]);
  assert.ok(result instanceof ToolMessage);
  const last = langchain().bindTools([weather], { tool_choice: "none" });
  assert.deepEqual((await last.invoke([new HumanMessage(QUESTION), answer, result])).tool_calls ?? [], []);
});

flow("langchain: withStructuredOutput, jsonSchema and functionCalling", async () => {
  for (const method of ["jsonSchema", "functionCalling"]) {
    Verdict.parse(
      await langchain({ maxTokens: 200 }).withStructuredOutput(Verdict, { name: "verdict", method }).invoke(QUESTION),
    );
  }
});

// ---- Anthropic

const anthropic = new Anthropic({ baseURL: BASE, apiKey: KEY, maxRetries: 0 });
const message = { model: MODEL, max_tokens: 24, temperature: 0, messages: [{ role: "user", content: QUESTION }] };

flow("anthropic: create, stream, count", async () => {
  const whole = await anthropic.messages.create(message);
  const stream = anthropic.messages.stream(message);
  assert.equal(await stream.finalText(), whole.content[0].text);
  const { input_tokens } = await anthropic.messages.countTokens({ model: MODEL, messages: message.messages });
  const cached = whole.usage.cache_read_input_tokens ?? 0;
  assert.equal(input_tokens, whole.usage.input_tokens + cached);
});

flow("anthropic: tools, and the result sent back", async () => {
  const tools = [{ name: "weather", description: "The weather.", input_schema: WEATHER }];
  const choice = { type: "any", disable_parallel_tool_use: true };
  const more = { ...message, max_tokens: 200, tools, tool_choice: choice };
  const whole = await anthropic.messages.create(more);
  const [call] = whole.content.filter((block) => block.type === "tool_use");
  Weather.parse(call.input);
  const final = await anthropic.messages.stream(more).finalMessage();
  assert.deepEqual(final.content.find((block) => block.type === "tool_use").input, call.input);
  const result = { type: "tool_result", tool_use_id: call.id, content: "sun" };
  const messages = [
    ...message.messages,
    { role: "assistant", content: whole.content },
    { role: "user", content: [result] },
  ];
  const last = await anthropic.messages.create({ ...message, messages, tools, tool_choice: { type: "none" } });
  assert.notEqual(last.stop_reason, "tool_use");
});

flow("anthropic: errors by class", async () => {
  await assert.rejects(anthropic.messages.create({ ...message, model: "nobody" }), Anthropic.NotFoundError);
  await assert.rejects(anthropic.messages.create({ ...message, temperature: 3 }), Anthropic.BadRequestError);
});

// ---- Ollama

const ollama = new Ollama({ host: BASE, headers: { Authorization: `Bearer ${KEY}` } });
const local = { model: MODEL, options: { temperature: 0, seed: 1, num_predict: 24 } };

flow("ollama: chat, generate, streamed", async () => {
  const messages = [{ role: "user", content: QUESTION }];
  const whole = (await ollama.chat({ ...local, messages })).message.content;
  assert.equal(
    await gathered(await ollama.chat({ ...local, messages, stream: true }), (p) => p.message.content),
    whole,
  );
  assert.equal((await ollama.generate({ ...local, prompt: QUESTION })).response, whole);
  assert.equal(
    await gathered(await ollama.generate({ ...local, prompt: QUESTION, stream: true }), (p) => p.response),
    whole,
  );
});

flow("ollama: a schema, the list, a refusal", async () => {
  const options = { ...local.options, num_predict: 200 };
  const format = {
    type: "object",
    properties: { mood: { enum: ["good", "bad"] } },
    required: ["mood"],
    additionalProperties: false,
  };
  const answer = await ollama.chat({ ...local, options, format, messages: [{ role: "user", content: QUESTION }] });
  assert.ok(["good", "bad"].includes(JSON.parse(answer.message.content).mood));
  assert.ok((await ollama.list()).models.length > 0);
  assert.ok((await ollama.show({ model: MODEL })).details);
  await assert.rejects(
    ollama.chat({ model: "nobody", messages: [] }),
    (error) => error.status_code === 404 && error.message.length > 10,
  );
});

// ---- running them

let [good, bad] = [0, 0];
process.on("unhandledRejection", () => {}); // A client's own promise that nobody waits for; the flow says what failed.
for (const [name, run] of flows) {
  if (!new RegExp(values.only).test(name)) continue;
  const began = Date.now();
  let clock;
  const late = new Promise(
    (_, fail) => (clock = setTimeout(() => fail(new Error(`took more than ${LIMIT_MS / 1000} s`)), LIMIT_MS)),
  );
  let said;
  try {
    await Promise.race([run(), late]);
    good += 1;
    said = `ok (${((Date.now() - began) / 1000).toFixed(1)} s)`;
  } catch (error) {
    bad += 1;
    const line = /clients\.mjs:(\d+)/.exec(error?.stack ?? "")?.[1];
    const text = `${error?.name}${line ? ` at clients.mjs:${line}` : ""}: ${error?.message}`;
    said = `FAILED ${text.replaceAll(/\s+/g, " ").slice(0, 300)}`;
  }
  clearTimeout(clock);
  console.log(`${"javascript".padEnd(18)} ${name.padEnd(58)} ${said}`);
}
console.log(`javascript: ${good} ok, ${bad} failed`);
process.exit(bad > 0 ? 1 : 0);
