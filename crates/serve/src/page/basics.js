// What all parts of the page share: elements, signals between parts, storage, the clipboard, JSON as text.
// Knows neither the server nor conversations. All text becomes text nodes, never markup.

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

/// A small button; `name` is what a screen reader says where the text alone does not tell enough.
export function quietButton(text, onclick, { testid, name } = {}) {
  const button = make("button", { className: "quiet", type: "button", textContent: text, onclick });
  if (testid) button.dataset.testid = testid;
  if (name) button.setAttribute("aria-label", name);
  return button;
}

// Parts tell each other that something changed, so that none has to know the others.

const signals = new EventTarget();
export const tell = (name) => signals.dispatchEvent(new Event(name));
export const when = (name, action) => signals.addEventListener(name, action);

/// Says something to those who do not see it happen.
export function say(text) {
  at("status").textContent = text;
}

/// Shows a line above the composer for a while.
export function notice(text) {
  const line = at("notice");
  line.textContent = text;
  line.hidden = false;
  clearTimeout(notice.timer);
  notice.timer = setTimeout(() => (line.hidden = true), 12_000);
}

/// Reads a kept value, or keeps one. Storage may be switched off; the page works without it.
export function kept(storage, name, value) {
  try {
    if (value === undefined) return window[storage].getItem(name);
    window[storage].setItem(name, value);
  } catch {
    // Nothing is kept then.
  }
  return null;
}

export async function copy(text, button) {
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
  say("Copied");
  const name = button.getAttribute("aria-label");
  button.textContent = "Copied";
  button.removeAttribute("aria-label");
  setTimeout(() => {
    button.textContent = "Copy";
    if (name) button.setAttribute("aria-label", name);
  }, 1200);
}

export function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  make("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/// Grows a text field with what stands in it.
export function fit(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + area.offsetHeight - area.clientHeight}px`;
}

/// JSON on indented lines; null if it is none. Numbers and repeated names stay as they were written.
export function prettyJson(text) {
  try {
    JSON.parse(text);
  } catch {
    return null;
  }
  let out = "";
  let depth = 0;
  const line = () => `\n${"  ".repeat(depth)}`;
  const parts = text.match(/"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g) ?? [];
  parts.forEach((part, index) => {
    const before = parts[index - 1];
    if (part === "}" || part === "]") {
      depth -= 1;
      out += before === "{" || before === "[" ? part : line() + part;
    } else {
      if (before === "{" || before === "[" || before === ",") out += line();
      out += part === ":" ? ": " : part;
      if (part === "{" || part === "[") depth += 1;
    }
  });
  return out;
}
