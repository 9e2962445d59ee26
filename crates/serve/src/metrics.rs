//! Counters and histograms in Prometheus' text format, under the names that vLLM's dashboards
//! know. Knows numbers, not requests.

use indexmap::IndexMap;
use narthex_answer::{Ended, Life};
use narthex_infer::{EngineStats, KV_BLOCK, STEP_TOKENS_BOUNDS};
use std::{
    fmt::Write,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Bounds in seconds, as vLLM has them, so that its dashboards fit.
const FIRST_TOKEN_BOUNDS_S: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const LATENCY_BOUNDS_S: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];

/// Those of vLLM, and three below for small models.
const NEXT_TOKEN_BOUNDS_S: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    20.0, 40.0, 80.0,
];
const TOKENS_BOUNDS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0, 20000.0, 50000.0, 100000.0,
];

const CHOICES_BOUNDS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0];

/// What vLLM counts and we have not: its dashboards ask for it.
const ABSENT: [(&str, &str, &str); 6] = [
    ("vllm:engine_sleep_state", "gauge", "1 while the engine sleeps: ours never does."),
    ("vllm:external_prefix_cache_queries_total", "counter", "Tokens looked up in a cache elsewhere: there is none."),
    ("vllm:external_prefix_cache_hits_total", "counter", "Tokens found there."),
    ("vllm:mm_cache_queries_total", "counter", "Images and sounds looked up: there are none."),
    ("vllm:mm_cache_hits_total", "counter", "Images and sounds found."),
    ("vllm:corrupted_requests_total", "counter", "Sequences with logits that are no numbers."),
];

/// What the server itself measures.
pub(crate) struct Metrics {
    inner: Mutex<Inner>,
}

struct Inner {
    first_token: Histogram,
    next_token: Histogram,
    token: Histogram,
    latency: Histogram,
    queue: Histogram,
    prefill: Histogram,
    decode: Histogram,
    inference: Histogram,
    prompt_tokens: Histogram,
    generation_tokens: Histogram,
    computed_tokens: Histogram,
    choices: Histogram,
    tokens_max: Histogram,
    longest: Histogram,
    ended: [u64; 3],
}

struct Histogram {
    bounds: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    fn add(&mut self, value: f64) {
        self.counts[self.bounds.partition_point(|bound| *bound < value)] += 1;
        self.sum += value;
    }

    fn add_time(&mut self, value: Duration) {
        self.add(value.as_secs_f64());
    }

    fn write(&self, page: &mut Page, name: &str, help: &str, labels: &str) {
        head(page, name, "histogram", help);
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(self.bounds) {
            total += count;
            line(page, &format!("{name}_bucket"), &format!("{labels},le=\"{bound:?}\""), total);
        }
        total += self.counts[self.bounds.len()];
        line(page, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), total);
        line(page, &format!("{name}_sum"), labels, self.sum);
        line(page, &format!("{name}_count"), labels, total);
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let latency = || Histogram::new(LATENCY_BOUNDS_S);
        let inner = Inner {
            first_token: Histogram::new(FIRST_TOKEN_BOUNDS_S),
            next_token: Histogram::new(NEXT_TOKEN_BOUNDS_S),
            token: Histogram::new(NEXT_TOKEN_BOUNDS_S),
            latency: latency(),
            queue: latency(),
            prefill: latency(),
            decode: latency(),
            inference: latency(),
            prompt_tokens: Histogram::new(TOKENS_BOUNDS),
            generation_tokens: Histogram::new(TOKENS_BOUNDS),
            computed_tokens: Histogram::new(TOKENS_BOUNDS),
            choices: Histogram::new(CHOICES_BOUNDS),
            tokens_max: Histogram::new(TOKENS_BOUNDS),
            longest: Histogram::new(TOKENS_BOUNDS),
            ended: [0; 3],
        };
        Self { inner: Mutex::new(inner) }
    }
}

impl Metrics {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request was taken: so many choices of up to so many tokens.
    pub fn began(&self, choices: usize, tokens_max: usize) {
        let mut inner = self.lock();
        inner.choices.add(choices as f64);
        inner.tokens_max.add(tokens_max as f64);
    }

    /// A sequence yielded its first token, so long after it was taken.
    pub fn first_token(&self, after: Duration) {
        self.lock().first_token.add_time(after);
    }

    /// A sequence yielded a token, so long after the one before.
    pub fn next_token(&self, after: Duration) {
        self.lock().next_token.add_time(after);
    }

    /// A sequence ended.
    pub fn ended(&self, ended: Ended, life: &Life) {
        let mut inner = self.lock();
        inner.ended[ended as usize] += 1;
        if ended == Ended::Abort {
            return;
        }
        inner.latency.add_time(life.whole);
        inner.queue.add_time(life.queue);
        inner.prefill.add_time(life.prefill);
        inner.decode.add_time(life.decode);
        inner.inference.add_time(life.prefill + life.decode);
        inner.computed_tokens.add(life.prompt_tokens.saturating_sub(life.cached_tokens) as f64);
        inner.longest.add(life.generation_tokens as f64);
        inner.prompt_tokens.add(life.prompt_tokens as f64);
        inner.generation_tokens.add(life.generation_tokens as f64);
        if life.generation_tokens > 1 {
            inner.token.add(life.decode.as_secs_f64() / (life.generation_tokens - 1) as f64);
        }
    }

    /// Writes those of a model.
    fn write(&self, page: &mut Page, model: &str, stats: &EngineStats) {
        let model = quoted(model);
        let labels = format!("model_name=\"{model}\",engine=\"0\"");
        let usage = stats.kv_blocks_used as f64 / stats.kv_blocks_total.max(1) as f64;
        head(page, "vllm:kv_cache_usage_perc", "gauge", "Blocks of keys and values in use: 1 is all.");
        line(page, "vllm:kv_cache_usage_perc", &labels, usage);
        head(page, "vllm:cache_config_info", "gauge", "How the cache is made.");
        let cache = format!("{labels},block_size=\"{KV_BLOCK}\",num_gpu_blocks=\"{}\"", stats.kv_blocks_total);
        line(page, "vllm:cache_config_info", &cache, 1);
        for (name, kind, help, value) in [
            ("num_requests_running", "gauge", "Sequences being computed.", stats.requests_running),
            ("num_requests_waiting", "gauge", "Sequences waiting for a place.", stats.requests_waiting),
            ("prompt_tokens_total", "counter", "Prompt tokens read.", stats.prompt_tokens_total),
            ("generation_tokens_total", "counter", "Tokens generated.", stats.generation_tokens_total),
            (
                "num_preemptions_total",
                "counter",
                "Sequences computed again for want of blocks.",
                stats.preemptions_total,
            ),
            (
                "prefix_cache_queries_total",
                "counter",
                "Tokens looked up in the prefix cache.",
                stats.prefix_cache_queries_total,
            ),
            ("prefix_cache_hits_total", "counter", "Tokens found there.", stats.prefix_cache_hits_total),
            ("spec_decode_num_drafts_total", "counter", "Steps of a sequence with guesses.", stats.guesses_total),
            ("spec_decode_num_draft_tokens_total", "counter", "Tokens guessed.", stats.guessed_tokens_total),
            (
                "spec_decode_num_accepted_tokens_total",
                "counter",
                "Guessed tokens that were right.",
                stats.right_tokens_total(),
            ),
        ] {
            let name = format!("vllm:{name}");
            head(page, &name, kind, help);
            line(page, &name, &labels, value);
        }
        let name = "vllm:spec_decode_num_accepted_tokens_per_pos_total";
        head(page, name, "counter", "Guessed tokens that were right, by place.");
        for (place, count) in stats.right_tokens_by_place.iter().enumerate().take(stats.guesses_max as usize) {
            line(page, name, &format!("{labels},position=\"{place}\""), count);
        }
        let name = "vllm:iteration_tokens_total";
        head(page, name, "histogram", "Tokens computed in a step.");
        let mut steps = 0;
        for (count, bound) in stats.steps_by_tokens.iter().zip(STEP_TOKENS_BOUNDS) {
            steps += count;
            line(page, &format!("{name}_bucket"), &format!("{labels},le=\"{bound}.0\""), steps);
        }
        line(page, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), stats.steps_total);
        line(page, &format!("{name}_sum"), &labels, stats.step_tokens_total);
        line(page, &format!("{name}_count"), &labels, stats.steps_total);
        let inner = self.lock();
        head(page, "vllm:request_success_total", "counter", "Sequences that ended, by reason.");
        for (reason, count) in ["stop", "length", "abort"].iter().zip(inner.ended) {
            line(page, "vllm:request_success_total", &format!("{labels},finished_reason=\"{reason}\""), count);
        }
        for (name, help, histogram) in [
            ("time_to_first_token_seconds", "Seconds from request to first token.", &inner.first_token),
            ("inter_token_latency_seconds", "Seconds from a token to the next.", &inner.next_token),
            ("request_time_per_output_token_seconds", "Seconds a token after the first, by request.", &inner.token),
            ("e2e_request_latency_seconds", "Seconds from request to end.", &inner.latency),
            ("request_queue_time_seconds", "Seconds from request to its first step.", &inner.queue),
            ("request_prefill_time_seconds", "Seconds from the first step to the first token.", &inner.prefill),
            ("request_decode_time_seconds", "Seconds from the first token to the last.", &inner.decode),
            ("request_inference_time_seconds", "Seconds from the first step to the last token.", &inner.inference),
            ("request_prompt_tokens", "Tokens of a prompt.", &inner.prompt_tokens),
            ("request_generation_tokens", "Tokens generated for a request.", &inner.generation_tokens),
            ("request_max_num_generation_tokens", "Tokens generated for a choice.", &inner.longest),
            ("request_prefill_kv_computed_tokens", "Tokens of a prompt that were computed.", &inner.computed_tokens),
            ("request_params_n", "Choices asked for.", &inner.choices),
            ("request_params_max_tokens", "Tokens asked for at most.", &inner.tokens_max),
        ] {
            histogram.write(page, &format!("vllm:{name}"), help, &labels);
        }
        for (name, kind, help) in ABSENT {
            head(page, name, kind, help);
            line(page, name, &labels, 0);
        }
    }
}

/// The adapters over all models, by which a picker of endpoints finds out who holds which.
pub(crate) struct AdaptersHeld {
    /// How many may be in memory.
    pub most: usize,
    /// Names of those that are: a request for one of them is answered without loading anything.
    pub loaded: Vec<String>,
}

/// The whole page, with the figures of each model.
pub(crate) fn render<'a>(
    models: impl Iterator<Item = (String, EngineStats, &'a Arc<Metrics>)>,
    adapters: &AdaptersHeld,
) -> String {
    let mut page = Page::default();
    for (name, stats, metrics) in models {
        metrics.write(&mut page, &name, &stats);
    }
    page.adapters(adapters);
    page.process();
    page.families.into_values().collect()
}

/// The value of a label, as the format has it.
fn quoted(value: &str) -> String {
    value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

/// Seconds since 1970.
fn seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// When the page was asked for first: a server answers as soon as it has started, but for the time to load its models.
static STARTED_S: LazyLock<f64> = LazyLock::new(started_s);

/// When the process began, in seconds since 1970: as the system has it, otherwise now.
fn started_s() -> f64 {
    let begun = std::fs::metadata("/proc/self").and_then(|folder| folder.modified());
    let begun = begun.ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    begun.map_or_else(seconds, |since| since.as_secs_f64())
}

/// A page under way: lines of one family stand together, whichever model they are of.
#[derive(Default)]
struct Page {
    families: IndexMap<String, String>,
    /// The family that lines are added to.
    at: usize,
}

impl Page {
    /// What llm-d's endpoint picker reads of every server, adapters or none (vLLM's `lora_requests_info`): the newest value
    /// counts, which is a time.
    fn adapters(&mut self, adapters: &AdaptersHeld) {
        let name = "vllm:lora_requests_info";
        head(self, name, "gauge", "Adapters in memory and those waited for, as of the time that is the value.");
        let loaded: Vec<String> = adapters.loaded.iter().map(|name| quoted(name)).collect();
        let labels = format!(
            "max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"\"",
            adapters.most,
            loaded.join(",")
        );
        line(self, name, &labels, seconds());
    }

    fn process(&mut self) {
        let name = "narthex_build_info";
        head(self, name, "gauge", "Which build this is; always 1.");
        line(self, name, concat!("version=\"", env!("CARGO_PKG_VERSION"), "\""), 1);
        let name = "process_start_time_seconds";
        head(self, name, "gauge", "When the process began, in seconds since 1970.");
        line(self, name, "", *STARTED_S);
    }
}

fn head(page: &mut Page, name: &str, kind: &str, help: &str) {
    let family = page.families.entry(name.into());
    page.at = family.index();
    family.or_insert_with(|| format!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
}

fn line(page: &mut Page, name: &str, labels: &str, value: impl std::fmt::Display) {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    writeln!(page.families[page.at], "{name}{labels} {value}").expect("a string takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_counted_by_place() {
        let mut stats =
            EngineStats { guesses_max: 2, guesses_total: 9, guessed_tokens_total: 15, ..EngineStats::default() };
        stats.right_tokens_by_place[..2].copy_from_slice(&[6, 4]);
        let none = AdaptersHeld { most: 0, loaded: vec![] };
        let text = render(std::iter::once(("m".into(), stats, &Arc::new(Metrics::default()))), &none);
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("vllm:spec_decode")).collect();
        let labels = "model_name=\"m\",engine=\"0\"";
        assert_eq!(
            lines,
            [
                format!("vllm:spec_decode_num_drafts_total{{{labels}}} 9"),
                format!("vllm:spec_decode_num_draft_tokens_total{{{labels}}} 15"),
                format!("vllm:spec_decode_num_accepted_tokens_total{{{labels}}} 10"),
                format!("vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels},position=\"0\"}} 6"),
                format!("vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels},position=\"1\"}} 4"),
            ]
        );
    }

    #[test]
    fn a_picker_finds_out_who_holds_which_adapter() {
        let held = AdaptersHeld { most: 4, loaded: vec!["a".into(), "b\"c".into()] };
        let text = render(std::iter::empty(), &held);
        let line = text.lines().find(|line| line.starts_with("vllm:lora_requests_info{")).unwrap();
        let (labels, at) = line.rsplit_once(' ').unwrap();
        let labels = labels.trim_start_matches("vllm:lora_requests_info");
        assert_eq!(labels, r#"{max_lora="4",running_lora_adapters="a,b\"c",waiting_lora_adapters=""}"#);
        assert!((seconds() - at.parse::<f64>().unwrap()).abs() < 60.0, "{at}");
        let started = text.lines().find_map(|line| line.strip_prefix("process_start_time_seconds ")).unwrap();
        assert!((1.0..=seconds()).contains(&started.parse().unwrap()), "{started}");
    }

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        for milliseconds in [500, 700, 3000] {
            histogram.add_time(Duration::from_millis(milliseconds));
        }
        let mut page = Page::default();
        histogram.write(&mut page, "x", "A help.", "a=\"b\"");
        assert_eq!(
            page.families["x"],
            "# HELP x A help.\n# TYPE x histogram\nx_bucket{a=\"b\",le=\"0.5\"} 1\nx_bucket{a=\"b\",le=\"1.0\"} 2\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 3\nx_sum{a=\"b\"} 4.2\nx_count{a=\"b\"} 3\n"
        );
    }
}
