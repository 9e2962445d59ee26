// What is asked of the server: bodies of requests from messages and settings, and the same for a shell.

import { at } from "./basics.js";
import { model, taskOf } from "./model.js";
import { key } from "./server.js";
import { form, numbers, settings, tools } from "./settings.js";

const CONTINUATION_TOKENS = 256; // of a model without a chat template, which need not ever stop

/// Where answers come from.
export const path = () => (model.chat ? "v1/chat/completions" : "v1/completions");

/// Messages as the server takes them, behind the system prompt. Two questions in a row, of which the first was never
/// answered, become one: templates want turns.
export function toSend(messages) {
  const sent = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  for (const { role, content, reasoning_content, tool_calls, tool_call_id } of messages) {
    const last = sent.at(-1);
    if (role === "user" && last?.role === "user")
      sent[sent.length - 1] = { role, content: `${last.content}\n${content}` };
    else if (role === "tool") sent.push({ role, tool_call_id, content });
    else
      sent.push({
        role,
        content,
        ...(reasoning_content && { reasoning_content }),
        ...(tool_calls?.length && { tool_calls }),
      });
  }
  return sent;
}

/// The part of a request from which its prompt is made. `goesOn`: the last message is to be continued.
export function prompt(messages, goesOn = false) {
  if (!model.chat) return { model: model.id, prompt: messages.map(({ content }) => content).join("") };
  const flags = goesOn ? { continue_final_message: true, add_generation_prompt: false } : {};
  const offered = tools();
  return { model: model.id, messages: toSend(messages), ...(offered && { tools: offered }), ...flags };
}

/// A whole request. Throws what is wrong with the settings, in words.
export function body(messages, goesOn = false) {
  const shape = model.chat && !goesOn ? form() : undefined;
  const limit = model.chat ? {} : { max_tokens: CONTINUATION_TOKENS };
  return { ...prompt(messages, goesOn), ...limit, ...numbers(), ...(shape && { response_format: shape }) };
}

/// How many tokens an answer should find room for.
export function roomWanted() {
  const context = model.max_model_len;
  const most = Number(numbers().max_tokens ?? (model.chat ? 1024 : CONTINUATION_TOKENS));
  return Math.min(most > 0 ? most : 1, Math.floor(context / 4));
}

function example() {
  switch (taskOf(model)) {
    case "embed":
      return ["v1/embeddings", { model: model.id, input: ["A first text", "A second text"] }];
    case "score":
      return ["v1/rerank", { model: model.id, query: "A question", documents: ["A text", "Another text"] }];
    case "classify":
      return ["classify", { model: model.id, input: ["A text"] }];
    default:
      return [path(), body([{ role: "user", content: "Hello" }])];
  }
}

export function showCurl() {
  if (!model) return;
  let made;
  try {
    made = example();
  } catch {
    return; // the settings say what is wrong with them
  }
  const text = JSON.stringify(made[1], null, 2).replaceAll("'", "'\\''");
  const lines = [`curl ${new URL(made[0], location.href)}`, "-H 'Content-Type: application/json'"];
  if (key) lines.push(`-H "Authorization: Bearer $API_KEY"`);
  at("curl").textContent = [...lines, `-d '${text}'`].join(" \\\n  ");
}
