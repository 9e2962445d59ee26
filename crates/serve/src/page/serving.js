// The section "Serving": figures from the server's /metrics, read only while someone sees them.

import { at, make } from "./basics.js";
import { baseName } from "./model.js";
import { ServerError, ask } from "./server.js";

const SCRAPE_MS = 2_000;
const TIMEOUT_MS = 10_000;
const RATE_MS = 10_000; // tokens/s are a mean over so long
const WINDOW_MS = 60_000; // percentiles and hit rate count what came in so long
const LINE_MS = 120_000; // lines go back so far
const GAP_MS = 3 * SCRAPE_MS; // points further apart are not joined

// Every row has one figure, or some under one name that share their line's scale. `of` gives
// {value} or null, `as` its text; `top` is the line's upper end where that is fixed.
const ROWS = [
  latency("first-token", "Time to first token", "vllm:time_to_first_token_seconds"),
  latency("inter-token", "Inter-token latency", "vllm:inter_token_latency_seconds"),
  { label: "Running requests", figures: [{ id: "running", of: () => gauge("vllm:num_requests_running"), as: count }] },
  { label: "Waiting requests", figures: [{ id: "waiting", of: () => gauge("vllm:num_requests_waiting"), as: count }] },
  { label: "Prefill", figures: [{ id: "prefill", of: () => rate("vllm:prompt_tokens_total"), as: tokensPerSecond }] },
  { label: "Decode", figures: [{ id: "decode", of: () => rate("vllm:generation_tokens_total"), as: tokensPerSecond }] },
  { label: "KV cache use", figures: [{ id: "kv-cache", of: () => gauge("vllm:kv_cache_usage_perc"), as: percent }], top: 1 },
  { label: "Prefix cache hit rate", figures: [{ id: "prefix-hits", of: hitRate, as: percent }], top: 1 },
];

let scrapes = []; // of the last WINDOW_MS, oldest first, all of one run of one model
let points = []; // {time, figures: by id} of the last LINE_MS
let timer = null;
let asking = false;

// From the server's text to figures. One that can't be told (yet) is null.

/// Prometheus' text format: values by name, and by histogram its [bound, count up to it].
function parse(text, time) {
  const scrape = { time, model: null, values: new Map(), histograms: new Map() };
  for (const line of text.split("\n")) {
    const [, name, labels = "", number] = /^([\w:]+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    const value = Number(number);
    if (!Number.isFinite(value)) continue; // comments and empty lines too
    const model = /model_name="((?:[^"\\]|\\.)*)"/.exec(labels)?.[1].replace(/\\(.)/g, (_, one) => (one === "n" ? "\n" : one));
    scrape.model ??= baseName() ?? model;
    if (model !== scrape.model) continue; // of another model that is served
    const bound = /(?:^|,)le="([^"]*)"/.exec(labels)?.[1];
    if (bound === undefined) {
      scrape.values.set(name, value);
    } else {
      const histogram = name.replace(/_bucket$/, "");
      if (!scrape.histograms.has(histogram)) scrape.histograms.set(histogram, []);
      scrape.histograms.get(histogram).push([bound === "+Inf" ? Infinity : Number(bound), value]);
    }
  }
  return scrape;
}

/// Whether counters began anew: another model, or the server was started again.
function restarted(before, after) {
  const counters = [...before.values].filter(([name]) => /_(total|count|sum)$/.test(name));
  return before.model !== after.model || counters.some(([name, value]) => after.values.get(name) < value);
}

/// The first and the last scrape of the newest `spanMs`; null if that is only one.
function span(spanMs) {
  const last = scrapes.at(-1);
  const first = scrapes.find(({ time }) => last.time - time <= spanMs);
  return first === last ? null : { first, last };
}

const known = (value) => (Number.isFinite(value) ? { value } : null);
const increase = ({ first, last }, name) => last.values.get(name) - first.values.get(name);

function gauge(name) {
  return known(scrapes.at(-1).values.get(name));
}

function rate(name) {
  const window = span(RATE_MS);
  return window && known((1000 * increase(window, name)) / (window.last.time - window.first.time));
}

function hitRate() {
  const window = span(WINDOW_MS);
  const queries = window && increase(window, "vllm:prefix_cache_queries_total");
  return window && known(increase(window, "vllm:prefix_cache_hits_total") / queries);
}

/// As Prometheus' histogram_quantile: linear within a bucket, of which the first begins at 0; of
/// what lies beyond all bounds, the highest. There, only one bound is known: `limit` tells it.
function quantile(share, name) {
  const window = span(WINDOW_MS);
  const before = new Map(window?.first.histograms.get(name));
  const after = window?.last.histograms.get(name) ?? [];
  const buckets = after.map(([bound, sum]) => [bound, sum - (before.get(bound) ?? 0)]);
  const rank = share * (buckets.at(-1)?.[1] ?? 0);
  const index = buckets.findIndex(([, sum]) => sum >= rank);
  if (!(rank > 0) || index < 0) return null;
  const [upper, sum] = buckets[index];
  const [lower, below] = buckets[index - 1] ?? [0, 0];
  if (upper === Infinity) return { value: lower, limit: `> ${seconds(lower)}` };
  const value = lower + ((upper - lower) * (rank - below)) / (sum - below);
  return index === 0 ? { value, limit: `< ${seconds(upper)}` } : { value };
}

// Figures as text

function latency(id, label, name) {
  const as = ({ value, limit }) => limit ?? seconds(value);
  const figure = ([part, share]) => ({ id: `${id}-${part}`, part, of: () => quantile(share, name), as });
  return { label, figures: Object.entries({ p50: 0.5, p90: 0.9, p99: 0.99 }).map(figure) };
}

function short(value) {
  return String(value >= 100 ? Math.round(value) : Number(value.toPrecision(2)));
}

function seconds(value) {
  return value < 1 ? `${short(1000 * value)} ms` : `${short(value)} s`;
}

function count({ value }) {
  return String(value);
}

function tokensPerSecond({ value }) {
  return `${short(value)} tokens/s`;
}

function percent({ value }) {
  return `${value < 0.1 ? Number((100 * value).toFixed(1)) : Math.round(100 * value)}%`;
}

// The section

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function build() {
  for (const { label, figures } of ROWS) {
    const element = make("div", { className: figures.length > 1 ? "parts" : "" }, make("dt", { textContent: label }));
    for (const figure of figures) {
      figure.text = make("span", { className: "value", textContent: "—", testid: `serving-${figure.id}` });
      figure.title = svg("title", {});
      figure.line = svg("path", {});
      const frame = { role: "img", viewBox: "0 0 100 20", preserveAspectRatio: "none" };
      const drawing = svg("svg", frame, figure.title, figure.line);
      const part = figure.part ? [make("span", { className: "part", textContent: figure.part }), " "] : [];
      element.append(make("dd", {}, ...part, figure.text, " ", drawing));
    }
    at("serving-figures").append(element);
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show() {
  const newest = scrapes.length > 0 ? points.at(-1).figures : new Map();
  for (const { label, figures, top } of ROWS) {
    const highest = figures.map(({ id }) => highestOf(id));
    const scale = top ?? Math.max(...highest.map((one) => one?.value ?? 0));
    for (const [index, { id, part, as, text, title, line }] of figures.entries()) {
      setText(text, newest.get(id) ? as(newest.get(id)) : "—");
      line.setAttribute("d", path(id, scale));
      const most = highest[index] ? `highest of 2 minutes: ${as(highest[index])}` : "nothing yet";
      setText(title, `${label}${part ? ` ${part}` : ""}, ${most}`);
    }
  }
}

function highestOf(id) {
  const figures = points.map((point) => point.figures.get(id)).filter(Boolean);
  return figures.reduce((most, one) => (most && most.value >= one.value ? most : one), null);
}

function path(id, scale) {
  const now = performance.now();
  let text = "";
  let before = -Infinity;
  for (const { time, figures } of points) {
    if (!figures.get(id)) continue;
    const x = 100 * (1 - (now - time) / LINE_MS);
    const y = 19 - (scale > 0 ? (18 * figures.get(id).value) / scale : 0);
    const place = `${x.toFixed(2)} ${y.toFixed(2)}`;
    text += time - before <= GAP_MS ? `L${place}` : `M${place}h0`;
    before = time;
  }
  return text;
}

// Reading, again and again

function take(text) {
  const now = performance.now();
  const scrape = parse(text, now);
  if (scrapes.length > 0 && restarted(scrapes.at(-1), scrape)) {
    scrapes = [];
    points = [];
  }
  scrapes.push(scrape);
  forgetOld();
  const figures = ROWS.flatMap((row) => row.figures);
  points.push({ time: now, figures: new Map(figures.map(({ id, of }) => [id, of()])) });
}

function forgetOld() {
  const now = performance.now();
  scrapes = scrapes.filter(({ time }) => now - time <= WINDOW_MS);
  points = points.filter(({ time }) => now - time <= LINE_MS);
}

async function scrape() {
  let text = null;
  let problem = "";
  try {
    text = await (await ask("metrics", { signal: AbortSignal.timeout(TIMEOUT_MS) })).text();
  } catch (error) {
    problem = `${error instanceof ServerError ? error.message : "The server's answer broke off."} Trying again.`;
  }
  if (text === null) forgetOld();
  else take(text);
  setText(at("serving-problem"), problem);
  at("serving-figures").classList.toggle("stale", text === null);
  show();
}

/// Whether someone can see the section: on a small screen, the panel may be away.
function isSeen() {
  return at("serving").checkVisibility?.({ visibilityProperty: true }) ?? true;
}

async function tick() {
  timer = null;
  if (!at("serving").open || document.hidden) return;
  const start = performance.now();
  asking = true;
  if (isSeen()) await scrape();
  asking = false;
  timer = setTimeout(tick, Math.max(0, SCRAPE_MS - (performance.now() - start)));
}

function wake() {
  if (timer === null && !asking) tick();
}

build();
show();
at("serving").addEventListener("toggle", wake);
document.addEventListener("visibilitychange", wake);
