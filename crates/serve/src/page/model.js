// The model: which there are, which one is chosen, and where it comes from.

import { at, kept, make, tell } from "./basics.js";
import { ServerError, ask, key } from "./server.js";

const STORED = "narthex-model";

let models = []; // as /v1/models gives them
let provenance = {}; // of the chosen one's base model, with that of its adapters

/// The model that is chosen, as /v1/models gives it; null before it is known.
export let model = null;

/// What a model does: generate, embed, score or classify.
export const taskOf = (model) => model?.task ?? "generate";

/// Reads what there is. Throws if the server refuses or does not answer.
export async function loadModels() {
  models = (await (await ask("v1/models")).json()).data;
  const wanted = kept("localStorage", STORED);
  model = models.find(({ id }) => id === wanted) ?? models[0] ?? null;
  if (model === null) throw new ServerError("The server has no model.", 0);
  showChoice();
  showModel();
  await loadPapers();
}

/// The name of the model below an adapter, or of the model itself; null before it is known.
export const baseName = () => model && (model.parent ?? model.id);

async function loadPapers() {
  const shown = model;
  const found = await (await ask(`v1/provenance?model=${encodeURIComponent(baseName())}`)).json();
  if (shown !== model) return; // another was chosen meanwhile
  provenance = found;
  await showPapers();
}

function showChoice() {
  const options = models.map(({ id, parent }) =>
    make("option", { value: id, textContent: parent ? `${id} (adapter)` : id }),
  );
  at("model-choice").replaceChildren(...options);
  at("model-choice").value = model.id;
  at("model-choice-field").hidden = models.length < 2;
}

async function choose(id) {
  model = models.find((one) => one.id === id) ?? model;
  kept("localStorage", STORED, model.id);
  showModel();
  await loadPapers();
}

function showModel() {
  at("model-name").textContent = model.id;
  document.title = `${model.id} · Narthex`;
  const what = { embed: "embeddings", score: "scores pairs", classify: "sorts texts" }[taskOf(model)];
  at("task").textContent = what ?? (model.chat ? "chat" : "continues texts");
  at("task").hidden = false;
  at("context").textContent = `context ${model.max_model_len}`;
  at("context").hidden = false;
  at("parent").textContent = model.parent ? `Adapter of ${model.parent}` : "";
  at("parent").hidden = !model.parent;
  at("max-tokens").max = model.max_model_len;
  tell("model");
}

// Licence, openness, lineage

/// The name of a licence, as it is shown.
export const licenseName = (license) => (license ? license.replace(/LicenseRef-/g, "") : "licence undeclared");

/// The licence of the chosen model; null if it is not known.
export const licenseOf = () => own().license ?? null;

const own = () => (model.parent ? (provenance.adapters?.[model.id] ?? {}) : provenance);

function licenseChip(license) {
  return make("span", {
    className: license ? "chip license" : "chip undeclared",
    textContent: licenseName(license),
    title: license ?? "",
  });
}

async function showPapers() {
  const shown = model;
  const { license, openness, digest, components = [] } = own();
  const chip = Object.assign(licenseChip(license), { id: "license", hidden: license === undefined });
  chip.dataset.testid = "license";
  at("license").replaceWith(chip);
  at("openness").hidden = !openness;
  if (openness) {
    const { class_name: name, reasons = [] } = openness;
    at("openness-class").textContent = name
      ? `${name} (Model Openness Framework)`
      : "No class of the Model Openness Framework";
    at("openness-reasons").replaceChildren(...reasons.map((reason) => make("li", { textContent: reason })));
    at("openness-more").hidden = reasons.length === 0;
  }
  at("digest-line").hidden = !digest;
  at("digest").textContent = digest?.slice(0, 12) ?? "";
  at("digest").title = digest ?? "";
  at("manifest").href = `v1/models/${encodeURIComponent(model.id)}/manifest`;
  at("manifest").hidden = !digest || Boolean(key); // a link carries no key
  at("component-list").replaceChildren(...components.map(componentItem));
  at("components").hidden = components.length === 0;
  showLineage(own().lineage);
  tell("papers");
  if (!model.parent) return;
  // What an adapter and the model below it come from, as one tree.
  const whole = await (await ask(`v1/models/${encodeURIComponent(model.id)}`)).json().catch(() => null);
  if (shown === model && whole?.lineage) showLineage(whole.lineage);
}

function showLineage(lineage) {
  at("lineage-tree").replaceChildren(...(lineage ? [make("ul", { className: "tree" }, treeNode(lineage))] : []));
  at("lineage").hidden = !lineage;
}

function treeNode(node) {
  const used = node.role && ![node.kind, "from"].includes(node.role) ? ` as ${node.role}` : "";
  const what = make("div", { className: "what" }, `${node.kind}${used}`);
  if (node.digest)
    what.append(" · ", make("span", { className: "mono", textContent: node.digest.slice(0, 12), title: node.digest }));
  const name = make("span", { className: "name", textContent: node.name });
  const item = make(
    "li",
    { testid: "lineage-node" },
    make("div", { className: "node" }, name, licenseChip(node.license)),
    what,
  );
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

export function startModel(failed) {
  at("model-choice").addEventListener("change", (event) => choose(event.target.value).catch(failed));
}
