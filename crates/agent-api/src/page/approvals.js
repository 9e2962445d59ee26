// What runs wait for: the exact tool and arguments, and the answers of a person.

import { at, block, guarded, make, pretty, say } from "./basics.js";
import { post } from "./server.js";

const waiting = new Map(); // run id to run

/// A run as it is now: what it waits for is shown, or not any more.
export function keepApprovals(run) {
  if (run.status === "waiting") waiting.set(run.id, run);
  else waiting.delete(run.id);
  show();
}

function show() {
  const list = at("approvals");
  const items = [...waiting.values()].flatMap((run) => run.interrupts.map((interrupt) => [run, interrupt]));
  const names = new Set(items.map(([run, { id }]) => `${run.id} ${id}`));
  // What is being edited stays as it is.
  const known = new Map([...list.children].map((child) => [child.dataset.name, child]));
  for (const [name, child] of known) if (!names.has(name)) child.remove();
  for (const [run, interrupt] of items) {
    if (!known.has(`${run.id} ${interrupt.id}`)) list.append(card(run, interrupt));
  }
  const before = at("approvals-count").textContent;
  at("approvals-count").textContent = items.length ? String(items.length) : "";
  at("approvals-empty").hidden = items.length > 0;
  if (items.length > Number(before)) say(`${items.length} waiting for approval`);
}

function card(run, interrupt) {
  const item = make("li", { className: "call", testid: "approval" });
  item.dataset.name = `${run.id} ${interrupt.id}`;
  const title = make("p", { className: "call-name" }, `${run.agent} · `, make("span", {}, interrupt.question));
  item.append(title);
  if (interrupt.call) {
    const [tool, args] = interrupt.call;
    item.append(make("p", {}, make("code", { textContent: tool })), block(args, `Arguments of ${tool}`));
  }
  const line = make("div", { className: "line" });
  const what = interrupt.call ? interrupt.call[0] : "the question";
  const answer = (body) =>
    guarded(async () => {
      const buttons = [...item.querySelectorAll("button")];
      for (const button of buttons) button.disabled = true;
      try {
        keepApprovals(await post(`agents/runs/${encodeURIComponent(run.id)}/answers`, { interrupt: interrupt.id, ...body() }));
        say("Answered");
        document.dispatchEvent(new CustomEvent("answered", { detail: run.id }));
      } finally {
        for (const button of buttons) button.disabled = false;
      }
    });
  const button = (text, name, onclick, className = "") =>
    line.append(make("button", { type: "button", textContent: text, "aria-label": name, onclick, className }));
  if (interrupt.call) {
    button("Approve", `Approve ${what}`, answer(() => ({ approve: true })), "primary");
    if (!interrupt.form) button("Edit", `Edit the arguments of ${what}`, () => edit(item, line, interrupt, answer));
    button("Refuse", `Refuse ${what}`, () => refuse(item, line, what, answer));
  }
  if (interrupt.form) button("Answer", `Answer ${what}`, () => respond(item, line, interrupt, answer));
  item.append(line);
  return item;
}

/// A field below the buttons, with one that sends it.
function form(item, line, { label, value, rows, send, body, answer }) {
  item.querySelector("form")?.remove();
  const area = make("textarea", { className: "mono", rows, value, spellcheck: false });
  const problem = make("p", { className: "problem", role: "alert" });
  const fields = make("form", {}, make("label", {}, label, area), problem, make("button", { className: "primary", textContent: send }));
  fields.addEventListener("submit", (event) => {
    event.preventDefault();
    let read;
    try {
      read = body(area.value);
    } catch (error) {
      problem.textContent = error.message;
      area.setAttribute("aria-invalid", "true");
      return;
    }
    answer(() => read)();
  });
  fields.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    fields.remove();
    line.querySelector("button").focus();
  });
  item.append(fields);
  area.focus();
}

function edit(item, line, interrupt, answer) {
  const body = (text) => {
    const args = JSON.parse(text);
    if (args === null || typeof args !== "object" || Array.isArray(args)) throw new Error("Arguments are a JSON object");
    return { edit: args };
  };
  const [tool, args] = interrupt.call;
  form(item, line, { label: `Arguments of ${tool} instead`, value: pretty(args), rows: 6, send: "Approve as edited", body, answer });
}

function refuse(item, line, what, answer) {
  form(item, line, { label: `Why ${what} is refused; the agent reads it`, value: "", rows: 2, send: "Refuse", body: (refuse) => ({ refuse }), answer });
}

function respond(item, line, interrupt, answer) {
  item.querySelector(".form-schema")?.remove();
  const schema = block(interrupt.form, "Form of the answer");
  schema.className = "form-schema";
  item.append(schema);
  form(item, line, { label: "Answer, as JSON", value: "{}", rows: 4, send: "Send", body: (text) => ({ say: JSON.parse(text) }), answer });
}
