// The section "Serving": figures from the server's /metrics, read only while someone sees them.
// A module, so that its names stay its own; `at`, `make` and `ask` are page.js's.

const SCRAPE_MS = 2_000;
const TIMEOUT_MS = 10_000;
const RATE_MS = 10_000; // tokens/s are a mean over so long
const WINDOW_MS = 60_000; // percentiles and hit rate count what came in so long
const LINE_MS = 120_000; // lines go back so far
const GAP_MS = 3 * SCRAPE_MS; // points further apart are not joined

// Every figure: `of` gives {value} or null, `as` its text; `top` is the line's upper end where it is fixed.
const FIGURES = [
  ...latency("first-token", "Time to first token", "vllm:time_to_first_token_seconds"),
  ...latency("inter-token", "Inter-token latency", "vllm:inter_token_latency_seconds"),
  { id: "running", label: "Running requests", of: () => gauge("vllm:num_requests_running"), as: count },
  { id: "waiting", label: "Waiting requests", of: () => gauge("vllm:num_requests_waiting"), as: count },
  { id: "prefill", label: "Prefill", of: () => rate("vllm:prompt_tokens_total"), as: tokensPerSecond },
  { id: "decode", label: "Decode", of: () => rate("vllm:generation_tokens_total"), as: tokensPerSecond },
  { id: "kv-cache", label: "KV cache use", of: () => gauge("vllm:kv_cache_usage_perc"), as: percent, top: 1 },
  { id: "prefix-hits", label: "Prefix cache hit rate", of: hitRate, as: percent, top: 1 },
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
    scrape.model ??= /model_name="((?:[^"\\]|\\.)*)"/.exec(labels)?.[1];
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
  const buckets = (window?.last.histograms.get(name) ?? []).map(([bound, sum]) => [bound, sum - (before.get(bound) ?? 0)]);
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

function latency(id, group, name) {
  const texts = ({ value, limit }) => limit ?? seconds(value);
  return Object.entries({ p50: 0.5, p90: 0.9, p99: 0.99 }).map(([label, share]) => {
    return { id: `${id}-${label}`, group, label, of: () => quantile(share, name), as: texts };
  });
}

const short = (value) => String(value >= 100 ? Math.round(value) : Number(value.toPrecision(2)));
const seconds = (value) => (value < 1 ? `${short(value * 1000)} ms` : `${short(value)} s`);

function count({ value }) {
  return String(value);
}

function tokensPerSecond({ value }) {
  return `${short(value)} tokens/s`;
}

function percent({ value }) {
  return `${Number((100 * value).toFixed(1))}%`;
}

// The section

function svg(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/// A term with its figure, or with those of its group.
function build() {
  for (const figures of Object.values(Object.groupBy(FIGURES, ({ id, group }) => group ?? id))) {
    const { group, label } = figures[0];
    const parts = figures.map((figure) => {
      figure.text = make("span", { className: "value", testid: `serving-${figure.id}` });
      figure.title = svg("title", {});
      figure.path = svg("path", {});
      const line = svg("svg", { role: "img", viewBox: "0 0 100 20", preserveAspectRatio: "none" }, figure.title, figure.path);
      const part = group ? [make("span", { className: "part", textContent: figure.label }), " "] : [];
      return make("dd", {}, ...part, figure.text, " ", line);
    });
    const term = make("dt", { textContent: group ?? label });
    at("serving-figures").append(make("div", { className: group ? "group" : "" }, term, ...parts));
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function show() {
  const now = performance.now();
  const figures = scrapes.length > 0 ? points.at(-1).figures : new Map();
  const past = ({ id }) => points.map((point) => point.figures.get(id)).filter(Boolean);
  const highest = (list) => list.reduce((most, one) => (one.value > most.value ? one : most), { value: 0 });
  for (const figure of FIGURES) {
    const { id, group, label, as, top } = figure;
    const now_ = figures.get(id);
    setText(figure.text, now_ ? as(now_) : "—");
    // The percentiles of a group share their scale.
    const scale = top ?? highest(FIGURES.filter((other) => other === figure || (group && other.group === group)).flatMap(past)).value;
    figure.path.setAttribute("d", line(id, scale, now));
    const most = past(figure).length ? `at most ${as(highest(past(figure)))}` : "nothing yet";
    setText(figure.title, `${group ? `${group}, ` : ""}${label}, last 2 minutes: ${most}`);
  }
}
