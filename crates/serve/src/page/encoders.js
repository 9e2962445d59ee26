// The page of a model that writes no text: vectors and their likeness, ranked documents, or classes.

import { at, fit, make, quietButton, say, when } from "./basics.js";
import { model, taskOf } from "./model.js";
import { post } from "./server.js";

const TEXTS_MAX = 24; // of a table that one can still read

/// By task: what stands above the fields, and what is done with them.
const KINDS = {
  embed: {
    title: "How alike are these texts?",
    help: "Each text becomes a vector; the table shows the cosine of each two.",
    texts: "Text",
    action: "Compare",
    run: compare,
    least: 2,
    examples: ["The mill stands by the river.", "Water drives the old mill.", "She plays the violin."],
  },
  score: {
    title: "Which text answers best?",
    help: "The documents are put in the order of their scores.",
    texts: "Document",
    action: "Rank",
    run: rank,
    least: 1,
    hasQuery: true,
    examples: ["The mill stands by the river.", "She plays the violin."],
  },
  classify: {
    title: "What kind of text is it?",
    help: "Each text gets the probability of every label.",
    texts: "Text",
    action: "Classify",
    run: classify,
    least: 1,
    examples: [""],
  },
};

let kind = null;
const labels = []; // by number, as far as answers told them

function field(text = "") {
  const number = at("bench-texts").children.length + 1;
  const area = make("textarea", {
    value: text,
    rows: 1,
    testid: "bench-text",
    "aria-label": `${kind.texts} ${number}`,
    placeholder: kind.texts,
  });
  area.addEventListener("input", () => fit(area));
  const remove = quietButton(
    "✕",
    () => {
      item.remove();
      [...at("bench-texts").querySelectorAll("textarea")].forEach((one, index) =>
        one.setAttribute("aria-label", `${kind.texts} ${index + 1}`),
      );
      at("bench-add").hidden = false;
      at("bench-add").focus();
    },
    { testid: "bench-remove", name: `Remove this ${kind.texts.toLowerCase()}` },
  );
  const item = make("li", {}, area, remove);
  at("bench-texts").append(item);
  at("bench-add").hidden = number >= TEXTS_MAX;
  return area;
}

function show() {
  const wanted = KINDS[taskOf(model)] ?? null;
  at("bench").hidden = wanted === null;
  if (wanted === kind || wanted === null) return;
  kind = wanted;
  labels.length = 0;
  at("bench-title").textContent = kind.title;
  at("bench-help").textContent = kind.help;
  at("bench-run").textContent = kind.action;
  at("bench-add").textContent = `Add a ${kind.texts.toLowerCase()}`;
  at("bench-query-field").hidden = !kind.hasQuery;
  at("bench-texts").replaceChildren();
  at("bench-result").replaceChildren();
  kind.examples.forEach(field);
  (kind.hasQuery ? at("bench-query") : at("bench-texts").querySelector("textarea")).focus();
}

async function run(event) {
  event.preventDefault();
  const texts = [...at("bench-texts").querySelectorAll("textarea")]
    .map(({ value }) => value)
    .filter((text) => text.trim() !== "");
  const result = at("bench-result");
  if (texts.length < kind.least || (kind.hasQuery && at("bench-query").value.trim() === "")) {
    const needs = kind.hasQuery ? "a question and a document" : `${kind.least === 1 ? "a text" : "two texts"}`;
    return result.replaceChildren(problem(`This needs ${needs} at least.`));
  }
  at("bench-run").disabled = true;
  try {
    result.replaceChildren(...(await kind.run(texts)));
    say("The result is there");
  } catch (error) {
    result.replaceChildren(problem(error.message));
  }
  at("bench-run").disabled = false;
}

const problem = (message) =>
  make("p", { className: "error", textContent: message, role: "alert", testid: "error-text" });

function table(caption, head, rows) {
  const cells = head.map((text) => make("th", { scope: "col", textContent: text }));
  const made = make(
    "table",
    { testid: "bench-table" },
    make("caption", { textContent: caption }),
    make("thead", {}, make("tr", {}, ...cells)),
    make("tbody", {}, ...rows),
  );
  return make("div", { className: "table", tabIndex: 0, role: "group", "aria-label": caption }, made);
}

const tokens = (usage) => `${usage?.prompt_tokens ?? usage?.total_tokens ?? "?"} tokens`;

/// A number with a bar behind it, as long as the share says.
function bar(text, share) {
  const made = make("td", { className: "number" }, make("span", { textContent: text }));
  made.style.setProperty("--share", `${Math.round(100 * Math.min(1, Math.max(0, share)))}%`);
  made.classList.add("bar");
  return made;
}

async function compare(texts) {
  const { data, usage } = await (await post("v1/embeddings", { model: model.id, input: texts })).json();
  const vectors = [...data].sort((a, b) => a.index - b.index).map(({ embedding }) => embedding);
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  const cosine = (a, b) => dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
  const rows = vectors.map((one, index) => {
    const name = make(
      "th",
      { scope: "row", title: texts[index] },
      make("span", { className: "number", textContent: `${index + 1} ` }),
      texts[index],
    );
    const cells = vectors.map((other) => {
      const value = cosine(one, other);
      const cell = make("td", {
        className: "number shade",
        textContent: Number.isFinite(value) ? value.toFixed(3) : "—",
      });
      cell.style.setProperty("--share", `${Math.round(45 * Math.max(0, value || 0))}%`);
      return cell;
    });
    return make("tr", {}, name, ...cells);
  });
  const caption = `Cosines · ${vectors[0].length} dimensions · ${tokens(usage)}`;
  return [table(caption, ["Text", ...vectors.map((_, index) => String(index + 1))], rows)];
}

async function rank(documents) {
  const body = { model: model.id, query: at("bench-query").value, documents };
  const { results, usage } = await (await post("v1/rerank", body)).json();
  const scores = results.map(({ relevance_score }) => relevance_score);
  const [least, most] = [Math.min(0, ...scores), Math.max(1e-9, ...scores)];
  const rows = results.map(({ index, relevance_score: score }, place) => {
    const shown = score !== 0 && Math.abs(score) < 0.001 ? score.toExponential(1) : score.toFixed(3);
    return make(
      "tr",
      {},
      make("td", { className: "number", textContent: place + 1 }),
      bar(shown, (score - least) / (most - least)),
      make("td", { textContent: documents[index] }),
    );
  });
  return [table(`Documents by score · ${tokens(usage)}`, ["Place", "Score", "Document"], rows)];
}

async function classify(texts) {
  const { data, usage } = await (await post("classify", { model: model.id, input: texts })).json();
  // An answer names the likeliest label only; others are known from the model or from earlier answers.
  (model.labels ?? []).forEach((name, index) => (labels[index] = name));
  for (const { label, probs } of data) labels[probs.indexOf(Math.max(...probs))] = label;
  return data.map(({ index, probs }) => {
    const order = probs
      .map((share, number) => ({ share, name: labels[number] ?? `Label ${number}` }))
      .sort((a, b) => b.share - a.share);
    const rows = order.map(({ share, name }) =>
      make("tr", {}, make("th", { scope: "row", textContent: name }), bar(`${(100 * share).toFixed(1)} %`, share)),
    );
    return table(
      data.length > 1 ? `Text ${index + 1}: ${texts[index]}` : `Labels · ${tokens(usage)}`,
      ["Label", "Probability"],
      rows,
    );
  });
}

export function startEncoders() {
  when("model", show);
  at("bench").addEventListener("submit", run);
  at("bench").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.localName === "textarea") {
      event.preventDefault();
      at("bench").requestSubmit();
    }
  });
  at("bench-add").addEventListener("click", () => field().focus());
}
