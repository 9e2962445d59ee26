// A conversation with an agent, as it is said.

import { at, guarded, make, say, wordsOf } from "./basics.js";
import { keepApprovals } from "./approvals.js";
import { events, get, post } from "./server.js";

let agent = null;
let thread = null;
let run = null;
let stop = new AbortController();

export function chatWith(chosen) {
  stop.abort();
  agent = chosen;
  thread = null;
  run = null;
  at("title").textContent = chosen.name;
  at("messages").replaceChildren();
  at("stop").hidden = true;
  at("send").disabled = false;
  at("input").focus();
}

function line(role, name) {
  const text = make("div", { className: "text" });
  const item = make("li", { className: "message", testid: `message-${role}` }, make("span", { className: "hidden-label", textContent: `${name}: ` }), text);
  item.dataset.role = role;
  at("messages").append(item);
  item.scrollIntoView({ block: "nearest" });
  return text;
}

/// Shows what the run does behind an event, and what it waits for.
async function follow(after) {
  stop = new AbortController();
  const { signal } = stop;
  at("stop").hidden = false;
  at("send").disabled = true;
  let text = null;
  for await (const told of events(`agents/runs/${encodeURIComponent(run)}/events?after=${after}`, signal)) {
    if (told.type === "said" && told.delta.text) {
      text ??= line("assistant", agent.name);
      text.textContent += told.delta.text;
    } else if (told.type === "message" && told.message.role === "assistant") {
      const words = wordsOf(told.message);
      if (words) (text ?? line("assistant", agent.name)).textContent = words;
      text = null;
    } else if (told.type === "tool_started") {
      line("tool", "Tool").textContent = `${told.tool} ${JSON.stringify(told.arguments)}`;
    } else if (told.type === "ended" && told.status !== "done") {
      line("tool", "Run").textContent = `${told.status}: ${told.reason ?? ""}`;
    }
  }
  if (signal.aborted) return;
  const now = await get(`agents/runs/${encodeURIComponent(run)}`);
  keepApprovals(now);
  at("stop").hidden = now.status !== "waiting";
  at("send").disabled = now.status === "waiting";
  say(now.status === "waiting" ? "The agent waits for approval" : "The agent has answered");
}

const send = guarded(async () => {
  const words = at("input").value.trim();
  if (!words || !agent || at("send").disabled) return;
  const body = { agent: agent.name, say: words };
  if (thread) body.thread = thread;
  const started = await post("agents/runs", body);
  at("input").value = "";
  line("user", "You").textContent = words;
  ({ id: run, thread } = started);
  await follow(0);
});

export function startChat() {
  at("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    send();
  });
  at("input").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
  const cancel = guarded(() => post(`agents/runs/${encodeURIComponent(run)}/cancel`, {}).then(keepApprovals));
  at("stop").addEventListener("click", async () => {
    await cancel();
    at("stop").hidden = true;
    at("send").disabled = false;
  });
  // An answered run goes on where it was seen last.
  document.addEventListener("answered", guarded(async ({ detail }) => {
    if (detail !== run) return;
    const { status, interrupts } = await get(`agents/runs/${encodeURIComponent(run)}`);
    if (status === "waiting" && interrupts.length > 0) return;
    at("messages").querySelectorAll('[data-run="now"]').forEach((item) => item.remove());
    await again();
  }));
}

/// The run from its beginning: what was shown of it is shown anew, with what came since.
async function again() {
  const users = [...at("messages").children].filter((item) => item.dataset.role === "user");
  const last = users.at(-1);
  while (last && at("messages").lastChild !== last) at("messages").lastChild.remove();
  await follow(0);
}
