// The page of the agents: puts its parts together. It talks to the server it came from and to nothing else.

import { at, guarded, make, showError } from "./basics.js";
import { keepApprovals } from "./approvals.js";
import { chatWith, startChat } from "./chat.js";
import { keepRun, startRuns } from "./runs.js";
import { events, get, useKey } from "./server.js";

function agentButton(agent) {
  const button = make("button", { type: "button", className: "agent", testid: "agent" }, make("span", { className: "name", textContent: agent.name }), make("span", { className: "what", textContent: agent.description }), make("span", { className: "what", textContent: agent.tools.map(({ name }) => name).join(", ") }));
  button.addEventListener("click", () => {
    for (const other of at("agents").querySelectorAll("button")) other.setAttribute("aria-pressed", String(other === button));
    chatWith(agent);
  });
  return make("li", {}, button);
}

async function watch() {
  for await (const run of events("agents/events", new AbortController().signal)) {
    keepRun(run);
    keepApprovals(run);
  }
}

async function load() {
  try {
    const { agents } = await get("agents");
    at("key-form").hidden = true;
    at("agents").replaceChildren(...agents.map(agentButton));
    at("agents").querySelector("button")?.click();
    // The stream of runs begins with the last ones; what waits may be older.
    const { runs } = await get("agents/runs?status=waiting&limit=100");
    runs.forEach(keepApprovals);
    guarded(watch)();
  } catch (error) {
    if (error.status !== 401) return showError(error);
    at("key-form").hidden = false;
    at("api-key").focus();
  }
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  useKey(at("api-key").value.trim());
  load();
});
at("close-error").addEventListener("click", () => (at("error").hidden = true));
startChat();
startRuns();
load();
