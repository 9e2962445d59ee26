// What all parts of the page share: elements, words for screen readers, times, JSON as text.
// Knows neither the server nor agents. All text becomes text nodes, never markup.

export const at = (id) => document.getElementById(id);

export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "testid") element.dataset.testid = value;
    else if (name === "role" || name.startsWith("aria-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/// Says something to those who do not see it happen.
export function say(text) {
  at("status").textContent = text;
}

/// Shows what went wrong until it is closed.
export function showError(error) {
  at("error-text").textContent = error.message;
  at("error").hidden = false;
}

/// Does something when it is asked for, and shows what went wrong.
export const guarded = (action) => async (...given) => {
  try {
    await action(...given);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  }
};

export const clock = (ms) => new Date(ms).toLocaleTimeString();

export function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

/// JSON as it is, in a block that the keyboard can scroll.
export function block(value, label) {
  return make("pre", { textContent: pretty(value), tabIndex: 0, role: "group", "aria-label": label });
}

export function chip(status) {
  return make("span", { className: `chip ${status}`, textContent: status });
}

/// What a message says in words.
export function wordsOf(message) {
  const { content } = message;
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => part.text ?? `[${part.type}]`).join("\n");
}
