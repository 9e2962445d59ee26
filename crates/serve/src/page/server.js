// Talking to the server that the page came from, and to nothing else. Knows no page.

import { kept } from "./basics.js";

const STORED = "narthex-key";

/// The API key, until the tab is closed.
export let key = kept("sessionStorage", STORED) ?? "";

export function useKey(value) {
  key = value;
  kept("sessionStorage", STORED, value);
}

export class ServerError extends Error {
  constructor(message, status, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export async function ask(path, options = {}) {
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
  const error = (await response.json().catch(() => null))?.error;
  throw new ServerError(
    error?.message ?? `The server answered with status ${response.status}.`,
    response.status,
    error?.code,
  );
}

export function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  return ask(path, { method: "POST", headers, body: JSON.stringify(body), signal });
}

/// The objects of an event stream, until [DONE].
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new ServerError("The answer broke off: the connection was closed.", 0);
    buffer += value;
    const parts = buffer.split(/\r?\n\r?\n/);
    buffer = parts.pop();
    for (const part of parts) {
      const data = part
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).trimStart());
      if (data.length === 0) continue; // a comment that keeps the connection open
      const text = data.join("\n");
      if (text === "[DONE]") return;
      const object = JSON.parse(text);
      if (object.error) throw new ServerError(object.error.message, 0, object.error.code);
      yield object;
    }
  }
}
