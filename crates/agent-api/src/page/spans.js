// A run as a tree of spans: requests to models, calls of tools, and the runs of other agents below the calls that asked
// for them; each with its time, its tokens, what it was given and what it gave. Knows OTLP's JSON and no server.

import { block, make } from "./basics.js";

function valueOf(value) {
  if (value.intValue !== undefined) return Number(value.intValue);
  if (value.arrayValue) return value.arrayValue.values.map(valueOf);
  return value.stringValue ?? value.doubleValue ?? value.boolValue;
}

/// A text as data, where it is that.
function dataOf(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const CONTENTS = [
  ["gen_ai.tool.call.arguments", "Arguments"],
  ["gen_ai.tool.call.result", "Result"],
  ["gen_ai.input.messages", "Messages"],
  ["gen_ai.output.messages", "Answer"],
];

function spansOf(request) {
  const all = (request.resourceSpans ?? []).flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans));
  return all.map((span) => {
    const [start, end] = [span.startTimeUnixNano, span.endTimeUnixNano].map((time) => Number(BigInt(time) / 1000000n) / 1000);
    const attributes = new Map(span.attributes.map(({ key, value }) => [key, valueOf(value)]));
    return { id: span.spanId, parent: span.parentSpanId, name: span.name, start, end, attributes, failed: span.status?.code === 2, why: span.status?.message };
  });
}

/// When it began, counted from the beginning of the whole, and how long it took.
function line(span, begun) {
  const parts = [`at ${(span.start - begun).toFixed(2)} s`, `${(span.end - span.start).toFixed(2)} s`];
  const tokens = ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"].map((key) => span.attributes.get(key));
  if (tokens.every((count) => count !== undefined)) parts.push(`${tokens.join(" + ")} tokens`);
  const status = span.attributes.get("narthex.run.status");
  if (status) parts.push(status);
  const name = make("span", { className: "name", textContent: span.name });
  const what = make("span", { className: "what", textContent: parts.join(" · ") });
  const failed = span.failed ? [make("span", { className: "chip failed", textContent: span.attributes.get("error.type") ?? "failed" })] : [];
  return make("div", { className: "node" }, name, what, ...failed);
}

function contents(span) {
  const blocks = CONTENTS.filter(([key]) => span.attributes.has(key)).map(([key, label]) => make("div", {}, make("p", { className: "faint", textContent: label }), block(dataOf(span.attributes.get(key)), `${label} of ${span.name}`)));
  if (span.why) blocks.unshift(make("p", { className: "faint", textContent: span.why }));
  return blocks.length === 0 ? [] : [make("details", {}, make("summary", { className: "faint", textContent: "Contents" }), ...blocks)];
}

/// The tree; nothing where there are no spans.
export function spanTree(request, label) {
  const spans = spansOf(request).sort((one, other) => one.start - other.start);
  if (spans.length === 0) return null;
  const ids = new Set(spans.map(({ id }) => id));
  const begun = spans[0].start;
  const below = grouped(spans);
  const item = (span) => {
    const children = (below.get(span.id) ?? []).map(item);
    const group = children.length === 0 ? [] : [make("ul", { role: "group" }, ...children)];
    return make("li", { role: "treeitem" }, line(span, begun), ...contents(span), ...group);
  };
  const tops = spans.filter(({ parent }) => !ids.has(parent));
  return make("ul", { className: "tree", role: "tree", testid: "spans", "aria-label": label }, ...tops.map(item));
}

function grouped(spans) {
  const below = new Map();
  for (const span of spans) below.set(span.parent, [...(below.get(span.parent) ?? []), span]);
  return below;
}
