// The chat page: talks to the server it came from and to nothing else. All text from the model,
// the server or the user becomes text nodes, never markup.
"use strict";

const at = (id) => document.getElementById(id);

// Settings: what is not set is not sent, so that the model's own defaults hold.
const DEFAULTS = { temperature: "", topP: "", maxTokens: "", seed: "", system: "" };
const STORED = "narthex-settings";
const CONTINUATION_TOKENS = 256; // of a model without a chat template, which need not ever stop

let model = null; // as /v1/models gives it
let messages = []; // {role, content} of this conversation
let forgotten = 0; // how many of the oldest messages are not sent any more
let running = null; // AbortController of the answer under way
let key = stored(sessionStorage, "narthex-key") ?? "";
let settings = storedSettings();

function stored(storage, name, value) {
  try {
    if (value === undefined) return storage.getItem(name);
    storage.setItem(name, value);
  } catch {
    // Storage may be switched off; the page works without it.
  }
  return null;
}

function storedSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(stored(localStorage, STORED) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "testid") element.dataset.testid = value;
    else if (name === "role") element.setAttribute("role", value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

// Talking to the server

class ServerError extends Error {
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not answer. Is it still running?", 0);
  }
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw new ServerError(body?.error?.message ?? `The server answered with status ${response.status}.`, response.status, body?.error?.code);
}

/// The objects of an event stream, until [DONE].
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ServerError("The answer broke off: the connection was closed.", 0);
    buffer += value;
    const parts = buffer.split("\n\n");
    buffer = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data:")).map((line) => line.slice(5).trimStart());
      if (data.length === 0) continue; // a comment that keeps the connection open
      const text = data.join("\n");
      if (text === "[DONE]") return;
      const object = JSON.parse(text);
      if (object.error) throw new ServerError(object.error.message, 0);
      yield object;
    }
  }
}

// The model and where it comes from

async function loadModel() {
  try {
    model = (await (await ask("v1/models")).json()).data[0];
    if (!at("key-form").hidden) at("input").focus();
    at("key-form").hidden = true;
    showModel();
    showProvenance(await (await ask("v1/provenance")).json());
  } catch (error) {
    if (error.status === 401) return askForKey(key ? error.message : "");
    showError(error.message, loadModel);
  }
}

function askForKey(message) {
  at("key-form").hidden = false;
  at("key-error").textContent = message;
  at("api-key").focus();
}

function showModel() {
  at("model-name").textContent = model.id;
  at("title").textContent = model.id;
  document.title = `${model.id} · Narthex`;
  at("context").textContent = `context ${model.max_model_len}`;
  at("context").hidden = false;
  at("max-tokens").max = model.max_model_len;
  if (!model.chat) {
    at("system-field").hidden = true;
    at("max-tokens").placeholder = String(CONTINUATION_TOKENS);
    at("input").placeholder = "Write the beginning of a text";
    at("welcome-title").textContent = "Begin a text, the model goes on";
    at("welcome-text").textContent = "This model has no chat template: it does not answer, it continues what you write.";
  }
  showCurl();
}

function licenseChip(license) {
  const name = license ? license.replace(/LicenseRef-/g, "") : "licence undeclared";
  return make("span", { className: license ? "chip license" : "chip undeclared", textContent: name, title: license ?? "" });
}

function showProvenance(provenance) {
  if (provenance.license !== undefined) {
    at("license").replaceWith(Object.assign(licenseChip(provenance.license), { id: "license" }));
    at("license").dataset.testid = "license";
  }
  if (provenance.license && model.chat) {
    const name = at("license").textContent;
    at("welcome-text").textContent = `Licensed ${name}. What it was made from, and under which licences, is in the panel.`;
  }
  if (provenance.openness) {
    const { class_name: name, reasons } = provenance.openness;
    at("openness").textContent = name ? `${name} (Model Openness Framework)` : "No class of the Model Openness Framework";
    at("openness").title = reasons.join("\n");
    at("openness").hidden = false;
  }
  if (provenance.digest) {
    at("manifest").href = `v1/models/${encodeURIComponent(model.id)}/manifest`;
    at("manifest").hidden = Boolean(key); // a link carries no key
    at("digest").textContent = provenance.digest.slice(0, 12);
    at("digest").title = `The model's digest: ${provenance.digest}`;
    at("digest").hidden = false;
  }
  if (provenance.lineage) {
    at("lineage-tree").replaceChildren(make("ul", { className: "tree" }, treeNode(provenance.lineage)));
    at("lineage").hidden = false;
  }
  const components = provenance.components ?? [];
  at("component-list").replaceChildren(...components.map(componentItem));
  at("components").hidden = components.length === 0;
}

function treeNode(node) {
  const used = node.role && ![node.kind, "from"].includes(node.role) ? ` as ${node.role}` : "";
  const what = make("div", { className: "what" }, `${node.kind}${used} · `);
  what.append(make("span", { className: "digest", textContent: node.digest?.slice(0, 12) ?? "", title: node.digest ?? "" }));
  const name = make("span", { className: "name", textContent: node.name });
  const item = make("li", { testid: "lineage-node" }, make("div", { className: "node" }, name, licenseChip(node.license)), what);
  if (node.parents?.length) item.append(make("ul", {}, ...node.parents.map(treeNode)));
  return item;
}

function componentItem(component) {
  const item = make("li", { testid: "component" });
  item.append(make("span", { className: "name", textContent: component.name }), licenseChip(component.license));
  const origin = component.origin ?? "";
  const text = /^https?:\/\//.test(origin)
    ? make("a", { href: origin, textContent: origin, target: "_blank", rel: "noopener noreferrer" })
    : origin;
  const kind = (component.kind ?? "").replaceAll("-", " ");
  item.append(make("div", { className: "origin" }, kind, kind && origin ? " · " : "", text));
  return item;
}

// Settings

const FIELDS = [["temperature", "temperature"], ["top-p", "topP"], ["max-tokens", "maxTokens"], ["seed", "seed"], ["system-prompt", "system"]];

function showSettings() {
  for (const [id, name] of FIELDS) {
    const slider = at(id).type === "range";
    at(id).value = settings[name] === "" && slider ? "1" : settings[name];
    if (slider) at(`${id}-value`).textContent = settings[name] === "" ? "model's own" : Number(settings[name]).toFixed(2);
  }
  showCurl();
}

function changeSetting(id, name) {
  settings[name] = at(id).value;
  stored(localStorage, STORED, JSON.stringify(settings));
  if (at(id).type === "range") at(`${id}-value`).textContent = Number(settings[name]).toFixed(2);
  showCurl();
}

function requestBody(conversation) {
  const body = { model: model.id };
  if (model.chat) {
    const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
    body.messages = [...system, ...conversation];
  } else {
    body.prompt = conversation.map((message) => message.content).join("");
    body.max_tokens = CONTINUATION_TOKENS;
  }
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.topP !== "") body.top_p = Number(settings.topP);
  if (settings.maxTokens !== "") body.max_tokens = Number(settings.maxTokens);
  if (settings.seed !== "") body.seed = Number(settings.seed);
  return body;
}

const path = () => (model.chat ? "v1/chat/completions" : "v1/completions");

function showCurl() {
  if (!model) return;
  const body = JSON.stringify(requestBody([{ role: "user", content: "Hello" }]), null, 2).replaceAll("'", "'\\''");
  const lines = [`curl ${new URL(path(), location.href)}`, "-H 'Content-Type: application/json'"];
  if (key) lines.push(`-H "Authorization: Bearer $API_KEY"`);
  at("curl").textContent = [...lines, `-d '${body}'`].join(" \\\n  ");
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without TLS, browsers have no clipboard for pages of other machines.
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const label = button.textContent;
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = label === "Copied" ? "Copy" : label), 1200);
}

// The conversation

function follow(change) {
  const scroll = at("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  change();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

function addMessage(role, content) {
  at("welcome").hidden = true;
  const text = make("div", { className: "text", textContent: content, testid: `${role}-text` });
  const item = make("li", { className: "message", testid: "message" }, text);
  item.dataset.role = role;
  item.setAttribute("aria-label", role === "user" ? "You" : "The model");
  at("messages").append(item);
  at("scroll").scrollTop = at("scroll").scrollHeight;
  return { item, text };
}

function showError(message, again) {
  at("welcome").hidden = true;
  const line = make("span", { textContent: message, testid: "error-text" });
  const item = make("li", { className: "error", role: "alert", testid: "error" }, line);
  if (again) {
    const retry = () => {
      item.remove();
      again();
    };
    item.append(make("button", { type: "button", textContent: "Try again", onclick: retry, testid: "retry" }));
  }
  follow(() => at("messages").append(item));
}

function setRunning(controller) {
  running = controller;
  at("send").hidden = controller !== null;
  at("stop").hidden = controller === null;
  at("messages").setAttribute("aria-busy", String(controller !== null));
}

/// Counts tokens and time while an answer arrives.
class Figures {
  constructor() {
    this.start = performance.now();
    this.first = null;
    this.last = null;
    this.tokens = 0;
  }
  add() {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += 1; // near enough until the server tells the true number
  }
  text(end) {
    const parts = [`${this.tokens} ${this.tokens === 1 ? "token" : "tokens"}`];
    const seconds = (this.last - this.first) / 1000;
    if (this.tokens > 1 && seconds > 0) parts.push(`${((this.tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.first !== null) parts.push(`first after ${((this.first - this.start) / 1000).toFixed(2)} s`);
    if (end) parts.push(end);
    return parts.join(" · ");
  }
}

const ENDS = { length: "cut off: token limit", stopped: "stopped", failed: "broke off" };

async function answer() {
  if (!model) return loadModel();
  const controller = new AbortController();
  const conversation = messages;
  setRunning(controller);
  const { item, text } = addMessage("assistant", "");
  const under = make("div", { className: "under" });
  const numbers = make("span", { testid: "figures" });
  under.append(numbers);
  item.append(under);
  item.classList.add("streaming");
  const figures = new Figures();
  const node = document.createTextNode("");
  text.append(node);
  let end = "failed";
  try {
    const body = { ...requestBody(conversation.slice(forgotten)), stream: true, stream_options: { include_usage: true } };
    const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: controller.signal };
    for await (const event of events(await ask(path(), options))) {
      if (event.usage) figures.tokens = event.usage.completion_tokens;
      const choice = event.choices[0];
      const piece = choice?.delta?.content ?? choice?.text;
      if (choice?.finish_reason) end = choice.finish_reason;
      if (!piece) continue;
      figures.add();
      follow(() => {
        node.appendData(piece);
        numbers.textContent = figures.text();
      });
    }
  } catch (error) {
    if (error.code === "context_length_exceeded" && conversation === messages && conversation.length - forgotten > 2) {
      item.remove();
      forgetTurn();
      return answer();
    }
    if (error.name === "AbortError") end = "stopped";
    else if (error.status === 401) askForKey(error.message);
    else showError(error.message, conversation === messages ? retry : null);
  }
  item.classList.remove("streaming");
  if (running === controller) setRunning(null);
  if (conversation !== messages) return; // a new chat began meanwhile
  if (node.data === "" && (end === "failed" || end === "stopped")) {
    item.remove();
  } else {
    const button = make("button", { className: "quiet", type: "button", textContent: "Copy", testid: "copy-answer" });
    button.onclick = () => copy(node.data, button);
    follow(() => {
      numbers.textContent = figures.text(ENDS[end]);
      under.append(button);
    });
    messages.push({ role: "assistant", content: node.data });
  }
  at("input").focus();
}

/// The conversation has outgrown the model's context: its oldest turn is sent no more.
function forgetTurn() {
  forgotten += 2;
  document.querySelectorAll(".forgotten-note").forEach((note) => note.remove());
  const text = "The conversation is longer than the model's context: what stands above is forgotten.";
  const note = make("li", { className: "forgotten-note", textContent: text, testid: "forgotten" });
  at("messages").querySelectorAll(".message")[forgotten]?.before(note);
}

/// Asks again for what failed: a broken answer is taken back first.
function retry() {
  while (messages.length && messages.at(-1).role === "assistant") {
    messages.pop();
    [...at("messages").querySelectorAll(".message")].at(-1)?.remove();
  }
  if (messages.length) answer();
}

function send(event) {
  event.preventDefault();
  const text = at("input").value;
  if (running || text.trim() === "") return;
  at("messages").querySelectorAll(".error").forEach((error) => error.remove());
  // An answer that never came leaves two questions in a row: templates want turns, so they become one.
  if (model?.chat && messages.at(-1)?.role === "user") messages.at(-1).content += `\n${text}`;
  else messages.push({ role: "user", content: text });
  addMessage("user", text);
  at("input").value = "";
  fitInput();
  answer();
}

function newChat() {
  running?.abort();
  setRunning(null);
  messages = [];
  forgotten = 0;
  at("messages").replaceChildren();
  at("welcome").hidden = false;
  at("input").focus();
}

function fitInput() {
  const input = at("input");
  input.style.height = "auto";
  input.style.height = `${input.scrollHeight}px`;
}

function openSide(open) {
  at("side").classList.toggle("open", open);
  at("shade").hidden = !open;
  at("open-side").setAttribute("aria-expanded", String(open));
  (open ? at("close-side") : at("input")).focus();
}

at("composer").addEventListener("submit", send);
at("input").addEventListener("input", fitInput);
at("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) send(event);
});
at("stop").addEventListener("click", () => running?.abort());
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (at("side").classList.contains("open")) openSide(false);
  else running?.abort();
});
at("new-chat").addEventListener("click", newChat);
at("reset").addEventListener("click", () => {
  settings = { ...DEFAULTS };
  stored(localStorage, STORED, "{}");
  showSettings();
});
for (const [id, name] of FIELDS) at(id).addEventListener("input", () => changeSetting(id, name));
at("copy-curl").addEventListener("click", (event) => copy(at("curl").textContent, event.currentTarget));
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("api-key").value;
  stored(sessionStorage, "narthex-key", key);
  loadModel();
});
at("open-side").addEventListener("click", () => openSide(true));
at("close-side").addEventListener("click", () => openSide(false));
at("shade").addEventListener("click", () => openSide(false));

showSettings();
loadModel();
