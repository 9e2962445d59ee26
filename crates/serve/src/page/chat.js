// The conversation: sends, streams, stops, cuts what the model's context cannot hold, and shows it all.

import { at, fit, notice, say, tell } from "./basics.js";
import { model } from "./model.js";
import { body, path, prompt, roomWanted } from "./request.js";
import { events, post } from "./server.js";
import * as store from "./store.js";
import { AnswerView, errorView, forgottenView, userView } from "./views.js";

/// The conversation that is shown.
export let chat = store.lastOpen() ?? store.fresh();

let running = null; // {controller, chat} of the answer under way
let failed = () => {}; // what to do about an error that is not of one answer alone

// Showing

/// Changes the page, and stays at the end where it was there.
function follow(change) {
  const scroll = at("scroll");
  const atEnd = scroll.scrollHeight - scroll.scrollTop - scroll.clientHeight < 60;
  change();
  if (atEnd) scroll.scrollTop = scroll.scrollHeight;
}

const toEnd = () => (at("scroll").scrollTop = at("scroll").scrollHeight);
const isShown = (own) => own === chat;

export function showError(message, again) {
  at("welcome").hidden = true;
  follow(() => at("messages").append(errorView(message, again)));
}

function clearErrors() {
  at("messages")
    .querySelectorAll(".error")
    .forEach((error) => error.remove());
}

/// What tools said, by the id of the call, of the calls in the answer at this place.
function resultsAfter(index) {
  const results = {};
  for (let at = index + 1; chat.messages[at]?.role === "tool"; at += 1)
    results[chat.messages[at].tool_call_id] = chat.messages[at].content;
  return results;
}

const lastAnswer = () => (chat.messages.at(-1)?.role === "assistant" ? chat.messages.at(-1) : null);

const doing = {
  edit(message, content) {
    cutAt(message);
    submit(content);
  },
  again(message) {
    cutAt(message);
    showChat();
    answer();
  },
  goOn: (message) => answer(message),
  give(results) {
    chat.messages.push(...results);
    showChat();
    answer();
  },
};

/// Takes a message out, and all behind it.
function cutAt(message) {
  stop();
  chat.messages.length = Math.max(0, chat.messages.indexOf(message));
  if (chat.start >= chat.messages.length) chat.start = 0;
}

/// Builds the whole conversation anew.
export function showChat() {
  const { messages } = chat;
  const list = at("messages");
  list.replaceChildren();
  messages.forEach((message, index) => {
    if (index === chat.start && index > 0) list.append(forgottenView(model?.max_model_len ?? ""));
    if (message.role === "user") {
      list.append(userView(message, doing));
    } else if (message.role === "assistant") {
      const view = new AnswerView(message, doing);
      view.finish(resultsAfter(index), message === lastAnswer() && running?.chat !== chat);
      list.append(view.element);
    }
  });
  at("welcome").hidden = messages.length > 0;
  at("title").textContent = store.titleOf(chat);
  toEnd();
}

function setRunning(now) {
  running = now;
  const here = running?.chat === chat;
  at("send").hidden = here;
  at("stop").hidden = !here;
  at("scroll").setAttribute("aria-busy", String(here));
}

function keep(own, isChanged = true) {
  const problem = own.messages.length > 0 ? store.save(own, isChanged) : "";
  if (problem) notice(problem);
  store.keepOpen(chat.id);
  tell("chats");
}

// Figures under an answer

/// Counts tokens and time while an answer arrives.
class Figures {
  constructor(before = 0) {
    this.start = performance.now();
    this.first = null;
    this.last = null;
    this.before = before; // of an answer that goes on
    this.tokens = 0;
    this.prompt = 0;
  }
  add() {
    this.last = performance.now();
    this.first ??= this.last;
    this.tokens += 1; // near enough until the server tells the true number
  }
  take(usage) {
    this.tokens = usage.completion_tokens;
    this.prompt = usage.prompt_tokens;
  }
  text(end) {
    const all = this.before + this.tokens;
    const parts = [`${all} ${all === 1 ? "token" : "tokens"}`];
    const seconds = (this.last - this.first) / 1000;
    if (this.tokens > 1 && seconds > 0) parts.push(`${((this.tokens - 1) / seconds).toFixed(1)} tokens/s`);
    if (this.first !== null) parts.push(`first after ${((this.first - this.start) / 1000).toFixed(2)} s`);
    if (end) parts.push(end);
    return parts.join(" · ");
  }
}

function endingText(end, figures) {
  if (end === "stopped") return "stopped";
  if (end === "failed") return "broke off";
  if (end !== "length") return null;
  const isFull = figures.prompt > 0 && figures.prompt + figures.tokens >= model.max_model_len;
  return isFull ? `cut off: the context of ${model.max_model_len} tokens is full` : "cut off: token limit";
}

// The context

/// Where turns begin: at the first question behind an answer.
function turns(messages) {
  const places = messages.map((_, index) => index);
  return places.filter((index) => messages[index].role === "user" && messages[index - 1]?.role !== "user");
}

function dropTo(own, start) {
  if (start === own.start) return;
  own.start = start;
  if (!isShown(own)) return;
  at("messages")
    .querySelectorAll(".forgotten-note")
    .forEach((note) => note.remove());
  if (start === 0) return;
  const before = own.messages.slice(0, start).filter(({ role }) => role !== "tool").length;
  at("messages").querySelectorAll(".message")[before]?.before(forgottenView(model.max_model_len));
  say("The oldest turns are not sent any more: the context is full.");
}

/// Leaves out as few of the oldest turns as the context asks for, before the request.
async function makeRoom(own, history, goesOn, signal) {
  if (own.startOf !== model.id) dropTo(own, 0);
  own.startOf = model.id;
  const starts = turns(history);
  const most = model.max_model_len - roomWanted();
  const fits = async (place) => {
    const reply = await post("tokenize", prompt(history.slice(starts[place]), goesOn), signal);
    return (await reply.json()).count <= most;
  };
  let low = Math.max(0, starts.indexOf(own.start));
  let high = starts.length - 1; // the last turn is sent in any case
  try {
    if (high <= low || (await fits(low))) return;
    low += 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (await fits(middle)) high = middle;
      else low = middle + 1;
    }
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return; // what is wrong with the messages, the request itself will tell
  }
  dropTo(own, starts[low]);
}

/// The server found the context full all the same: one turn more is left out, if there is one.
function dropOne(own, history) {
  const next = turns(history).find((start) => start > own.start);
  if (next === undefined) return false;
  dropTo(own, next);
  return true;
}

// Answering

/// Adds a piece of an answer to a message; whether there was anything in it.
function take(message, choice) {
  const delta = choice?.delta ?? {};
  const content = delta.content ?? choice?.text ?? "";
  const thoughts = delta.reasoning_content ?? delta.reasoning ?? "";
  message.content += content;
  if (thoughts) message.reasoning_content = (message.reasoning_content ?? "") + thoughts;
  for (const piece of delta.tool_calls ?? []) {
    message.tool_calls ??= [];
    const call = (message.tool_calls[piece.index] ??= {
      id: "",
      type: "function",
      function: { name: "", arguments: "" },
    });
    if (piece.id) call.id = piece.id;
    call.function.name += piece.function?.name ?? "";
    call.function.arguments += piece.function?.arguments ?? "";
  }
  return content !== "" || thoughts !== "" || Boolean(delta.tool_calls?.length);
}

/// Draws what arrives, but never spends more than a fifth of the time on it.
class Painter {
  constructor(paint) {
    this.paint = paint;
    this.ready = 0;
    this.timer = null;
  }
  ask() {
    const now = performance.now();
    if (now >= this.ready) this.draw();
    else this.timer ??= setTimeout(() => this.draw(), this.ready - now);
  }
  draw() {
    this.end();
    const start = performance.now();
    this.paint();
    const cost = performance.now() - start;
    this.ready = cost > 2 ? start + 5 * cost : 0;
  }
  end() {
    clearTimeout(this.timer);
    this.timer = null;
  }
}

/// Asks for the next answer, or for more of one.
async function answer(more = null) {
  if (!model) return failed();
  clearErrors();
  const own = chat;
  try {
    body([], more !== null);
  } catch (error) {
    return showError(error.message, () => answer(more));
  }
  const history = more ? own.messages : [...own.messages];
  const shape = model.chat && body([], false).response_format ? { shape: "json" } : {};
  const message = more ?? { role: "assistant", content: "", ...shape };
  if (!more) own.messages.push(message);
  own.model = model.id;
  const controller = new AbortController();
  const me = { controller, chat: own, message, more: more !== null };
  setRunning(me);
  showChat();
  const view = new AnswerView(message, doing);
  [...at("messages").querySelectorAll(".message")].at(-1).replaceWith(view.element);
  view.update();
  toEnd();
  keep(own);
  say("The model is answering");
  const figures = new Figures(more ? (message.tokens ?? 0) : 0);
  const painter = new Painter(() =>
    follow(() => {
      view.update();
      view.showFigures(figures.text());
    }),
  );
  let end = "failed";
  let problem = null;
  try {
    await makeRoom(own, history, more !== null, controller.signal);
    for (let isAsked = false; !isAsked;) {
      try {
        const asked = {
          ...body(history.slice(own.start), more !== null),
          stream: true,
          stream_options: { include_usage: true },
        };
        for await (const event of events(await post(path(), asked, controller.signal))) {
          if (event.usage) figures.take(event.usage);
          const choice = event.choices?.[0];
          if (choice?.finish_reason) end = choice.finish_reason;
          if (!take(message, choice)) continue;
          figures.add();
          if (isShown(own)) painter.ask();
        }
        isAsked = true;
      } catch (error) {
        if (error.code !== "context_length_exceeded" || !dropOne(own, history)) throw error;
      }
    }
  } catch (error) {
    if (error.name === "AbortError") end = "stopped";
    else problem = error;
  }
  painter.end();
  finish(me, view, figures, end, problem);
}

/// What remains to do when an answer has ended, however it did.
function finish(me, view, figures, end, problem) {
  const { chat: own, message, more } = me;
  const isEmpty = message.content === "" && !message.reasoning_content && !message.tool_calls?.length;
  const isMine = running === me;
  if (isMine) setRunning(null);
  const index = own.messages.indexOf(message);
  if (isEmpty && (end === "failed" || end === "stopped")) {
    if (index >= 0) own.messages.splice(index, 1);
    view.element.remove();
  } else if (more && figures.tokens === 0 && end !== "stop") {
    view.finish({}, message === lastAnswer()); // nothing was added: it stands as it stood
  } else {
    // A call that was cut off cannot be answered, and no template takes it.
    if (end !== "tool_calls" && end !== "stop")
      message.tool_calls = message.tool_calls?.filter((call) => isWhole(call));
    Object.assign(message, {
      end,
      tokens: figures.before + figures.tokens,
      figures: figures.text(endingText(end, figures)),
    });
    if (isShown(own) && index >= 0) follow(() => view.finish({}, message === lastAnswer()));
  }
  if (index >= 0) keep(own);
  if (problem?.status === 401) failed(problem);
  else if (problem) showError(problem.message, isShown(own) ? () => retry(me) : null);
  if (!isShown(own) || !isMine) return;
  say(problem ? "The answer failed" : `The answer has ended: ${message.figures ?? "stopped"}`);
  const box = view.calls.querySelector("textarea");
  if (document.activeElement === document.body || at("composer").contains(document.activeElement))
    (box ?? at("input")).focus();
}

function isWhole({ function: called }) {
  try {
    JSON.parse(called.arguments || "{}");
    return called.name !== "";
  } catch {
    return false;
  }
}

/// Asks again for what failed: a broken answer is taken back first, but not one that was only to go on.
function retry({ message, more }) {
  if (more && chat.messages.includes(message)) return answer(message);
  if (chat.messages.includes(message)) cutAt(message);
  showChat();
  if (chat.messages.length) answer();
}

function submit(text) {
  chat.messages.push({ role: "user", content: text });
  showChat();
  keep(chat);
  answer();
}

export function send() {
  const text = at("input").value;
  if (running?.chat === chat || text.trim() === "") return;
  const open = at("messages").querySelector("[data-testid=tool-result]");
  if (open) {
    notice("The model waits for the result of a tool: give it first, or edit an earlier message.");
    return open.focus();
  }
  at("input").value = "";
  fit(at("input"));
  submit(text);
}

export function stop() {
  running?.controller.abort();
}

/// Shows another conversation, or a new one. An answer under way is stopped.
export function open(other = null) {
  stop();
  setRunning(null);
  chat = other ?? store.fresh();
  store.keepOpen(chat.id);
  showChat();
  tell("chats");
  at("input").focus();
}

/// `whenFailed`: called without an error where the model is not known, or with one that asks for a key.
export function startChat(whenFailed) {
  failed = whenFailed;
  // Whoever leaves while an answer arrives keeps what came.
  window.addEventListener("pagehide", () => {
    if (!running) return;
    running.message.end = "stopped";
    running.message.figures ??= "stopped";
    if (running.message.content === "" && !running.message.reasoning_content) running.chat.messages.pop();
    store.save(running.chat);
  });
  showChat();
}
