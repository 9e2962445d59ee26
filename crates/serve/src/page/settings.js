// The settings beside the conversation. What is not set is not sent, so that the model's own defaults hold.

import { at, kept, tell } from "./basics.js";

const STORED = "narthex-settings";
/// A field's id, the name under which it is kept, and where its slider stands while it is not set.
const FIELDS = [
  ["temperature", "temperature", "1"],
  ["top-p", "topP", "1"],
  ["min-p", "minP", "0"],
  ["top-k", "topK"],
  ["max-tokens", "maxTokens"],
  ["seed", "seed"],
  ["system-prompt", "system"],
  ["tools", "tools"],
  ["form", "form"],
  ["schema", "schema"],
];
const NUMBERS = {
  temperature: "temperature",
  topP: "top_p",
  minP: "min_p",
  topK: "top_k",
  maxTokens: "max_tokens",
  seed: "seed",
};
const DEFAULTS = { ...Object.fromEntries(FIELDS.map(([, name]) => [name, ""])), form: "text" };

export let settings = stored();

function stored() {
  const read = { ...DEFAULTS };
  try {
    for (const [name, value] of Object.entries(JSON.parse(kept("localStorage", STORED) ?? "{}"))) {
      if (name in DEFAULTS && typeof value === "string") read[name] = value;
    }
  } catch {
    // Damaged: as if nothing was kept.
  }
  return read;
}

/// The numbers that were set, by OpenAI's names.
export function numbers() {
  const set = Object.entries(NUMBERS).filter(([name]) => settings[name] !== "");
  return Object.fromEntries(set.map(([name, wire]) => [wire, Number(settings[name])]));
}

function parsed(text, what) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${what} is not JSON: ${error.message}`);
  }
}

/// The tools as OpenAI has them, undefined if there are none. Throws what is wrong, in words.
export function tools() {
  if (settings.tools.trim() === "") return undefined;
  const value = parsed(settings.tools, "What stands under Tools");
  const list = Array.isArray(value) ? value : [value];
  if (list.length === 0) return undefined;
  return list.map((tool) => {
    const full = tool?.function ? { type: "function", ...tool } : { type: "function", function: tool };
    if (typeof full.function?.name !== "string")
      throw new Error('Each tool needs a name: {"type": "function", "function": {"name": …}}');
    return full;
  });
}

/// The form that answers must have as OpenAI has it, undefined for any. Throws what is wrong, in words.
export function form() {
  if (settings.form === "text") return undefined;
  if (settings.form === "json_object") return { type: "json_object" };
  if (settings.schema.trim() === "") throw new Error("The JSON schema of answers is empty.");
  const value = parsed(settings.schema, "The schema of answers");
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw new Error("The schema of answers must be an object.");
  if (value.type === "json_schema" && value.json_schema) return value; // OpenAI's whole object
  const named = value.schema ? value : { schema: value }; // with a name, or the schema alone
  return { type: "json_schema", json_schema: { name: "answer", ...named } };
}

function showProblem(id, read) {
  let problem = "";
  try {
    read();
  } catch (error) {
    problem = error.message;
  }
  at(`${id}-problem`).textContent = problem;
  at(id).setAttribute("aria-invalid", String(problem !== ""));
}

function showField(id, name, unset) {
  const field = at(id);
  const isSet = settings[name] !== "";
  const shown = isSet ? settings[name] : (unset ?? "");
  if (field.value !== shown) field.value = shown;
  if (unset === undefined) return;
  const text = isSet ? Number(settings[name]).toFixed(2) : "model's own";
  field.classList.toggle("unset", !isSet);
  field.setAttribute("aria-valuetext", text);
  at(`${id}-value`).textContent = text;
  at(`${id}-unset`).hidden = !isSet;
}

function show() {
  for (const field of FIELDS) showField(...field);
  at("schema-field").hidden = settings.form !== "json_schema";
  showProblem("tools", tools);
  showProblem("schema", form);
  const used = [settings.tools.trim() && "tools", settings.form !== "text" && "JSON"].filter(Boolean);
  at("forms-used").textContent = used.join(", ");
  tell("settings");
}

function change(name, value) {
  settings[name] = value;
  kept("localStorage", STORED, JSON.stringify(settings));
  show();
}

export function startSettings() {
  for (const [id, name, unset] of FIELDS) {
    const field = at(id);
    field.addEventListener("input", () => change(name, field.value));
    if (unset === undefined) continue;
    // Where a slider that is not set would stand, a click moves nothing, but sets it.
    field.addEventListener("click", () => settings[name] === "" && change(name, field.value));
    at(`${id}-unset`).addEventListener("click", () => {
      change(name, "");
      field.focus();
    });
  }
  at("reset").addEventListener("click", () => {
    settings = { ...DEFAULTS };
    kept("localStorage", STORED, "{}");
    show();
  });
  show();
  at("forms").open = at("forms-used").textContent !== "";
}
