// Messages as elements. What their buttons do is told by `doing`: {edit, again, goOn, give}. Knows neither the server
// nor what is kept.

import { copy, fit, make, prettyJson, quietButton } from "./basics.js";
import { Rendering } from "./rendering.js";

function item(role, name) {
  const element = make("li", { className: "message", testid: "message", "aria-label": name });
  element.dataset.role = role;
  return element;
}

function copyButton(text, testid, name) {
  const button = quietButton("Copy", () => copy(text(), button), { testid, name });
  return button;
}

// A message of the person who writes

export function userView(message, doing) {
  const element = item("user", "You");
  const text = make("div", { className: "text", textContent: message.content, testid: "user-text" });
  const edit = quietButton("Edit", () => element.replaceChildren(editor(message, doing, restore)), {
    testid: "edit",
    name: "Edit the message",
  });
  const under = make(
    "div",
    { className: "under" },
    edit,
    copyButton(() => message.content, "copy-message", "Copy the message"),
  );
  function restore() {
    element.replaceChildren(text, under);
    edit.focus();
  }
  element.append(text, under);
  return element;
}

function editor(message, doing, restore) {
  const area = make("textarea", { value: message.content, testid: "edit-text", "aria-label": "Edit the message" });
  const send = make("button", { className: "primary", type: "submit", textContent: "Send", testid: "edit-send" });
  const cancel = make("button", { type: "button", textContent: "Cancel", onclick: restore });
  const note = make("small", { textContent: "The conversation goes on from here; what came after it is removed." });
  const form = make("form", { className: "editor" }, area, make("div", { className: "line" }, note, cancel, send));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (area.value.trim() !== "") doing.edit(message, area.value);
  });
  area.addEventListener("input", () => fit(area));
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      restore();
    }
  });
  requestAnimationFrame(() => {
    fit(area);
    area.focus();
  });
  return form;
}

// An answer

export class AnswerView {
  constructor(message, doing) {
    this.message = message;
    this.doing = doing;
    this.text = make("div", { className: "answer", testid: "assistant-text" });
    this.thinkingText = make("div", { className: "answer" });
    this.summary = make("summary", { textContent: "Thinking…" });
    this.thinking = make(
      "details",
      { className: "thinking", testid: "thinking", hidden: true },
      this.summary,
      this.thinkingText,
    );
    this.calls = make("div", { className: "calls" });
    this.figures = make("span", { testid: "figures", textContent: " " });
    this.buttons = make("span", { className: "buttons" });
    this.under = make("div", { className: "under" }, this.figures, this.buttons);
    this.element = item("assistant", "The model");
    this.element.append(this.thinking, this.text, this.calls, this.under);
    this.rendering = new Rendering(this.text);
    this.thinkingRendering = new Rendering(this.thinkingText);
  }

  /// What there is so far, while more may come.
  update() {
    const { content, reasoning_content: thoughts, tool_calls: calls, shape } = this.message;
    this.element.classList.add("streaming");
    if (thoughts) {
      this.thinking.hidden = false;
      this.thinkingRendering.show(thoughts, true);
      if (content) this.summary.textContent = "Thought";
    }
    if (shape === "json") this.showRaw();
    else this.rendering.show(content, true);
    this.text.hidden = content === "" && Boolean(thoughts || calls?.length);
    calls?.forEach((call, index) => {
      const card = this.calls.children[index];
      if (!card) this.calls.append(callCard(call));
      else card.querySelector("pre").textContent = call.function.arguments;
    });
  }

  /// The whole answer. `results`: what tools said, by the call's id. `isLast`: nothing came after it.
  finish(results, isLast, figures = this.message.figures ?? "") {
    const { content, reasoning_content: thoughts, tool_calls: calls, shape } = this.message;
    this.element.classList.remove("streaming");
    this.thinking.hidden = !thoughts;
    if (thoughts) {
      this.thinkingRendering.show(thoughts, false);
      this.summary.textContent = "Thought";
    }
    const pretty = shape === "json" ? prettyJson(content) : null;
    if (pretty !== null) this.showJson(pretty);
    else if (shape === "json") this.showRaw();
    else this.rendering.show(content, false);
    this.text.hidden = content === "" && Boolean(thoughts || calls?.length);
    this.showCalls(results, isLast);
    this.showFigures(figures);
    this.showButtons(isLast);
  }

  showFigures(text) {
    this.figures.firstChild.data = text;
  }

  showRaw() {
    const pre =
      this.text.querySelector("pre") ??
      make("pre", { className: "json", testid: "json", tabIndex: 0, "aria-label": "Answer in JSON", role: "group" });
    if (pre.textContent !== this.message.content) pre.textContent = this.message.content;
    if (!pre.isConnected) this.text.replaceChildren(pre);
  }

  showJson(pretty) {
    this.text.replaceChildren();
    this.showRaw();
    const pre = this.text.querySelector("pre");
    pre.textContent = pretty;
    const toggle = quietButton(
      "Raw text",
      () => {
        const isRaw = toggle.getAttribute("aria-pressed") === "true";
        pre.textContent = isRaw ? pretty : this.message.content;
        toggle.setAttribute("aria-pressed", String(!isRaw));
      },
      { testid: "raw" },
    );
    toggle.setAttribute("aria-pressed", "false");
    this.text.prepend(make("div", { className: "code-head" }, make("span", { textContent: "JSON" }), toggle));
  }

  showCalls(results, isLast) {
    const calls = this.message.tool_calls ?? [];
    const isOpen = isLast && calls.some(({ id }) => results[id] === undefined);
    const cards = calls.map((call, index) => callCard(call, results[call.id], isOpen ? index : null));
    if (!isOpen) return this.calls.replaceChildren(...cards);
    const go = make("button", {
      className: "primary",
      type: "submit",
      textContent: calls.length > 1 ? "Send the results" : "Send the result",
      testid: "give-result",
    });
    const form = make("form", {}, ...cards, go);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.doing.give(
        calls.map(({ id }, index) => ({
          role: "tool",
          tool_call_id: id,
          content: form.querySelectorAll("textarea")[index].value,
        })),
      );
    });
    this.calls.replaceChildren(form);
  }

  showButtons(isLast) {
    const { message, doing } = this;
    const buttons = [];
    if (message.content) buttons.push(copyButton(() => message.content, "copy-answer", "Copy the answer"));
    if (isLast)
      buttons.push(quietButton("Again", () => doing.again(message), { testid: "again", name: "Answer again" }));
    // A grammar begins anew with each request, and calls are whole: neither can go on.
    const isCut = ["length", "stopped", "failed"].includes(message.end);
    if (isLast && isCut && message.content && message.shape !== "json" && !message.tool_calls?.length) {
      buttons.push(
        quietButton("Continue", () => doing.goOn(message), { testid: "continue", name: "Continue the answer" }),
      );
    }
    this.buttons.replaceChildren(...buttons);
  }
}

/// A call of a tool; with what it said, or a box for it where `box` is its number.
function callCard({ function: called }, result, box = null) {
  const { name = "", arguments: written = "" } = called ?? {};
  const card = make("div", { className: "call", testid: "tool-call" });
  card.append(
    make("div", { className: "call-name" }, "Calls ", make("code", { textContent: name, testid: "tool-name" })),
    make("pre", {
      className: "json",
      textContent: prettyJson(written) ?? written,
      testid: "tool-arguments",
      tabIndex: 0,
      role: "group",
      "aria-label": `Arguments of ${name}`,
    }),
  );
  if (box !== null) {
    const area = make("textarea", {
      rows: 2,
      testid: "tool-result",
      "aria-label": `Result of ${name}`,
      placeholder: "What the tool says",
    });
    card.append(area);
  } else if (result !== undefined) {
    card.append(
      make("div", { className: "call-name", textContent: "The tool said" }),
      make("pre", {
        className: "json",
        textContent: prettyJson(result) ?? result,
        testid: "tool-said",
        tabIndex: 0,
        role: "group",
        "aria-label": `Result of ${name}`,
      }),
    );
  }
  return card;
}

// Lines between messages

export function errorView(message, again) {
  const element = make("li", { className: "error", testid: "error" });
  const line = make("span", { textContent: message, testid: "error-text", role: "alert" });
  element.append(line);
  if (again) {
    const retry = () => {
      element.remove();
      again();
    };
    element.append(make("button", { type: "button", textContent: "Try again", onclick: retry, testid: "retry" }));
  }
  return element;
}

export function forgottenView(context) {
  const long = `The conversation is longer than the model's context of ${context} tokens`;
  const text = `${long}: what stands above is not sent any more.`;
  return make("li", { className: "forgotten-note", textContent: text, testid: "forgotten" });
}
