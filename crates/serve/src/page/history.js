// The list of conversations: opens, renames, exports and deletes them.

import { at, download, make, notice, quietButton, say, when } from "./basics.js";
import { chat, open } from "./chat.js";
import { toSend } from "./request.js";
import { settings } from "./settings.js";
import * as store from "./store.js";

const SURE_MS = 5_000; // so long a button asks whether to delete

function show() {
  const chats = store.all();
  at("history").replaceChildren(...chats.map(row));
  at("history-empty").hidden = chats.length > 0;
  at("title").textContent = store.titleOf(chat);
}

function row(one) {
  const isOpen = one.id === chat.id;
  const title = store.titleOf(one);
  const button = make("button", {
    className: "chat-title",
    type: "button",
    textContent: title,
    title,
    testid: "chat",
    onclick: () => open(one),
  });
  const item = make("li", { className: isOpen ? "open" : "" }, button);
  if (!isOpen) return item;
  button.setAttribute("aria-current", "true");
  const rename = quietButton("Rename", () => item.replaceChildren(renamer(one)), {
    testid: "rename",
    name: `Rename “${title}”`,
  });
  const save = quietButton("Export", () => exportChat(one), { testid: "export", name: `Export “${title}” as JSON` });
  item.append(make("div", { className: "chat-tools" }, rename, save, deleter(one, title)));
  return item;
}

function renamer(one) {
  const field = make("input", {
    type: "text",
    value: store.titleOf(one),
    maxLength: 120,
    testid: "rename-text",
    "aria-label": "Name of the conversation",
  });
  const form = make("form", { className: "renamer" }, field, make("button", { type: "submit", textContent: "Save" }));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    one.title = field.value.trim();
    store.save(one, false);
    show();
    at("history").querySelector("[aria-current]")?.focus();
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    show();
  });
  requestAnimationFrame(() => field.select());
  return form;
}

/// A first click asks, a second deletes.
function deleter(one, title) {
  let isSure = false;
  const button = quietButton(
    "Delete",
    () => {
      if (isSure) {
        store.remove(one.id);
        one.messages.length = 0; // an answer under way shall not bring it back
        say(`Deleted “${title}”`);
        return open();
      }
      isSure = true;
      button.classList.add("danger");
      button.textContent = "Really delete?";
      button.setAttribute("aria-label", `Really delete “${title}”?`);
      setTimeout(() => button.isConnected && show(), SURE_MS);
    },
    { testid: "delete", name: `Delete “${title}”` },
  );
  return button;
}

function exportChat(one) {
  const { id, created, changed, model, messages } = one;
  const { system, tools, form, schema, ...sampling } = settings;
  const set = Object.fromEntries(Object.entries(sampling).filter(([, value]) => value !== ""));
  const content = {
    format: "narthex-conversation",
    version: 1,
    id,
    title: store.titleOf(one),
    model,
    created: new Date(created).toISOString(),
    changed: new Date(changed).toISOString(),
    settings: { ...set, tools, form, schema },
    messages: toSend(messages), // as OpenAI's API takes them
    answers: messages.filter(({ role }) => role === "assistant").map(({ end, figures }) => ({ end, figures })),
  };
  const name = store
    .titleOf(one)
    .replace(/[^\p{L}\p{N}]+/gu, "-")
    .replace(/^-|-$/g, "")
    .toLowerCase()
    .slice(0, 40);
  download(`${name || "conversation"}.json`, `${JSON.stringify(content, null, 2)}\n`);
}

export function startHistory() {
  when("chats", show);
  store.watch(() => {
    show();
    // Another tab wrote to the conversation that is open here.
    const other = store.get(chat.id);
    if (other && other !== chat && at("stop").hidden) {
      open(other);
      notice("This conversation was changed in another tab.");
    }
  });
  show();
}
