// The list of runs, and what one of them did as a tree: each call of a tool with its arguments, times and result below
// the message that asked for it, as it happens; and once it ends or waits, where its time and its tokens went.

import { at, block, chip, clock, guarded, make, wordsOf } from "./basics.js";
import { events, get } from "./server.js";
import { spanTree } from "./spans.js";

const SHOWN_MAX = 200;
const items = new Map(); // run id to its line
let stop = new AbortController();

/// A run as it is now.
export function keepRun(run) {
  const button = make("button", { className: "run-line", type: "button", testid: "run" }, chip(run.status), ` ${run.agent} `, make("span", { className: "faint", textContent: clock(run.changed_ms) }), make("span", { className: "run-title", textContent: run.title }));
  button.addEventListener("click", () => showTrace(run));
  const item = make("li", {}, button);
  const known = items.get(run.id);
  const focused = known?.contains(document.activeElement);
  if (known) known.replaceWith(item);
  else at("runs").prepend(item);
  items.set(run.id, item);
  if (focused) button.focus();
  at("runs-empty").hidden = true;
  if (items.size > SHOWN_MAX) {
    const [oldest, line] = items.entries().next().value;
    line.remove();
    items.delete(oldest);
  }
}

const showTrace = guarded(async (run) => {
  stop.abort();
  stop = new AbortController();
  const tree = make("ul", { className: "tree", role: "tree", "aria-label": `What ${run.id} did` });
  at("trace-title").textContent = `${run.agent} · ${run.id}`;
  at("trace-body").replaceChildren(tree);
  at("trace").hidden = false;
  at("close-trace").focus();
  const trace = new Trace(tree);
  const { signal } = stop;
  const place = `agents/runs/${encodeURIComponent(run.id)}`;
  for await (const told of events(`${place}/events`, signal)) trace.take(told);
  const spans = spanTree(await get(`${place}/trace?content=true`), `Times and tokens of ${run.id}`);
  // Another run may have been chosen in the meantime.
  if (spans && !signal.aborted) at("trace-body").append(make("h2", { textContent: "Times and tokens" }), spans);
});

class Trace {
  constructor(tree) {
    this.tree = tree;
    this.calls = new Map(); // call id to its node
    this.below = tree; // where calls of the last message go
  }

  node(parent, name, ms, detail) {
    const line = make("div", { className: "node" }, make("span", { className: "name", textContent: name }), make("span", { className: "what", textContent: ms ? clock(ms) : "" }));
    const item = make("li", { role: "treeitem" }, line);
    if (detail) item.append(detail);
    parent.append(item);
    return item;
  }

  group(item) {
    const group = make("ul", { role: "group" });
    item.append(group);
    return group;
  }

  take(told) {
    const { at_ms: ms } = told;
    if (told.type === "message") this.message(told.message, ms);
    else if (told.type === "tool_started") {
      const node = this.node(this.below, `calls ${told.tool}`, ms, block(told.arguments, `Arguments of ${told.tool}`));
      this.calls.set(told.call, { node, ms });
    } else if (told.type === "tool_progress") this.progress(told);
    else if (told.type === "waiting") {
      const { interrupt } = told;
      const detail = interrupt.call ? block(interrupt.call[1], `Arguments of ${interrupt.call[0]}`) : null;
      this.node(this.below, `waits: ${interrupt.question}`, ms, detail);
    } else if (told.type === "ended") {
      const reason = told.reason ? make("p", { className: "faint", textContent: told.reason }) : null;
      this.node(this.tree, `ended: ${told.status}`, ms, told.output === null ? reason : block(told.output, "Answer"));
    } else if (told.type === "working") this.node(this.tree, "works", ms);
  }

  message(message, ms) {
    const call = this.calls.get(message.tool_call_id);
    if (message.role === "tool" && call) {
      call.node.querySelector(".progress")?.remove();
      const took = `result after ${((ms - call.ms) / 1000).toFixed(2)} s`;
      this.node(this.group(call.node), took, ms, block(wordsOf(message), "Result"));
      return;
    }
    const words = wordsOf(message);
    const item = this.node(this.tree, message.role, ms, words ? make("p", { className: "text", textContent: words }) : null);
    this.below = message.role === "assistant" ? this.group(item) : this.tree;
  }

  progress(told) {
    const call = this.calls.get(told.call);
    if (!call) return;
    let line = call.node.querySelector(".progress");
    if (!line) {
      line = make("p", { className: "progress faint" });
      call.node.append(line);
    }
    line.textContent = `${told.done}${told.of ? ` of ${told.of}` : ""} ${told.word ?? ""}`;
  }
}

export function startRuns() {
  const close = () => {
    stop.abort();
    at("trace").hidden = true;
  };
  at("close-trace").addEventListener("click", close);
  document.addEventListener("keydown", (event) => event.key === "Escape" && !at("trace").hidden && close());
}
