// Talking to the server that the page came from, and to nothing else. Knows no page.

const STORED = "narthex-key";

function kept(value) {
  try {
    if (value === undefined) return sessionStorage.getItem(STORED);
    sessionStorage.setItem(STORED, value);
  } catch {
    // Storage may be switched off: the key holds until the page is closed.
  }
  return null;
}

let key = kept() ?? "";

export function useKey(value) {
  key = value;
  kept(value);
}

export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
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
  throw new ServerError(error?.message ?? `The server answered with status ${response.status}.`, response.status);
}

export const get = async (path) => (await ask(path)).json();

export async function post(path, body) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

/// The events of a stream: {event, id, data}, until it ends.
async function* read(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const parts = buffer.split(/\r?\n\r?\n/);
    buffer = parts.pop();
    for (const part of parts) {
      const field = (name) => {
        const line = part.split(/\r?\n/).find((known) => known.startsWith(`${name}:`));
        return line?.slice(name.length + 1).trimStart();
      };
      const data = field("data");
      if (data !== undefined) yield { event: field("event"), id: field("id"), data: JSON.parse(data) };
    }
  }
}

const WAITS_MS = [500, 1000, 2000, 5000, 10000];

/// The same, begun again behind the last event where the line is cut, until an event `end` comes or `signal` says so.
export async function* events(path, signal) {
  let last = "";
  for (let failures = 0; !signal.aborted; failures += 1) {
    try {
      const headers = last ? { "Last-Event-ID": last } : {};
      for await (const told of read(await ask(path, { headers, signal }))) {
        failures = 0;
        last = told.id ?? last;
        if (told.event === "end") return;
        if (told.event === "error") throw new ServerError(told.data.error?.message ?? "The run cannot be read.", 1);
        yield told.data;
      }
    } catch (error) {
      if (error.name === "AbortError") return;
      if (error.status > 0) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, WAITS_MS[Math.min(failures, WAITS_MS.length - 1)]));
  }
}
