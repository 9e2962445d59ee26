// Conversations, kept in the browser, each under a name of its own; the oldest leave when there are too many.
// Knows neither the page nor the server.
//
// A conversation: {id, title, named, created, changed, model, start, messages}. `start`: the first message that is
// still sent to the model `startOf`. A message is OpenAI's, with more of ours: `end` (how an answer ended), `figures`,
// `shape` ("json" where an answer in JSON was asked for), `tokens`.

const PREFIX = "narthex-chat:";
const CURRENT = "narthex-current";
const TOTAL_MAX = 2_000_000; // characters of all; browsers keep about five million
const COUNT_MAX = 200;
const TITLE_MAX = 60;

const chats = new Map(); // by id
const sizes = new Map(); // characters as kept, by id

function readAll() {
  try {
    for (const name of Object.keys(localStorage)) if (name.startsWith(PREFIX)) read(name);
  } catch {
    // Storage may be switched off: conversations last as long as the page.
  }
}

function read(name) {
  const text = localStorage.getItem(name);
  let chat = null;
  try {
    chat = JSON.parse(text);
  } catch {
    // Not ours, or damaged: left alone.
  }
  const isMessage = (one) => ["user", "assistant", "tool"].includes(one?.role) && typeof one.content === "string";
  if (!Array.isArray(chat?.messages) || !chat.messages.every(isMessage) || name !== PREFIX + chat.id) return;
  chats.set(chat.id, chat);
  sizes.set(chat.id, text.length);
}

export function fresh() {
  // Not randomUUID: it needs TLS on pages of other machines.
  const id = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { id, title: "", named: false, created: Date.now(), changed: Date.now(), model: null, start: 0, messages: [] };
}

/// All that are kept, newest first.
export function all() {
  return [...chats.values()].sort((a, b) => b.changed - a.changed);
}

export const get = (id) => chats.get(id) ?? null;

export function titleOf(chat) {
  if (chat.title) return chat.title;
  const words = (chat.messages.find(({ role }) => role === "user")?.content ?? "").trim().replace(/\s+/g, " ");
  return (words.length > TITLE_MAX ? `${words.slice(0, TITLE_MAX - 1)}…` : words) || "New chat";
}

/// Keeps a conversation. What could not be done, and which others had to leave for it, in words; "" if all is well.
export function save(chat, isChanged = true) {
  if (isChanged) chat.changed = Date.now();
  const text = JSON.stringify(chat);
  chats.set(chat.id, chat);
  if (text.length > TOTAL_MAX) {
    forget(chat.id);
    return "This conversation is too long to be kept: export it before you leave.";
  }
  sizes.set(chat.id, text.length);
  const gone = [];
  const dropOldest = () => {
    const oldest = all().at(-1);
    if (oldest === chat) return false;
    gone.push(titleOf(oldest));
    remove(oldest.id);
    return true;
  };
  const total = () => [...sizes.values()].reduce((sum, size) => sum + size, 0);
  while ((total() > TOTAL_MAX || chats.size > COUNT_MAX) && dropOldest());
  for (;;) {
    try {
      localStorage.setItem(PREFIX + chat.id, text);
      break;
    } catch (error) {
      if (error.name === "QuotaExceededError" && dropOldest()) continue;
      return "This browser keeps nothing: the conversation is lost when you leave the page.";
    }
  }
  if (gone.length === 0) return "";
  const names = gone.map((title) => `“${title}”`).join(", ");
  return `Only so much is kept here. To make room, the oldest left: ${names}.`;
}

function forget(id) {
  sizes.delete(id);
  try {
    localStorage.removeItem(PREFIX + id);
  } catch {
    // Nothing was kept.
  }
}

export function remove(id) {
  chats.delete(id);
  forget(id);
}

/// The conversation that was open last, if it is kept.
export function lastOpen() {
  try {
    return get(localStorage.getItem(CURRENT));
  } catch {
    return null;
  }
}

export function keepOpen(id) {
  try {
    localStorage.setItem(CURRENT, id);
  } catch {
    // The page opens with a new one then.
  }
}

/// Calls `action` when another tab changed a conversation.
export function watch(action) {
  window.addEventListener("storage", ({ key, newValue }) => {
    if (!key?.startsWith(PREFIX)) return;
    if (newValue === null) chats.delete(key.slice(PREFIX.length));
    else read(key);
    action();
  });
}

readAll();
