//! Counters and histograms in Prometheus' text format, under the names that vLLM's dashboards
//! know. Knows numbers, not requests.

use narthex_infer::EngineStats;
use std::{
    fmt::Write,
    sync::{Mutex, PoisonError},
    time::Duration,
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

/// Why a sequence ended, as a client sees it. The engine cannot tell: to it, a stop string and a
/// client that went away are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// A stop token or a stop string.
    Stop,
    /// `max_tokens` or the context.
    Length,
    /// The client went away, or the engine failed.
    Abort,
}

/// What the server itself measures.
pub(crate) struct Metrics {
    inner: Mutex<Inner>,
}

struct Inner {
    first_token: Histogram,
    latency: Histogram,
    ended: [u64; 3],
}

struct Histogram {
    bounds_s: &'static [f64],
    /// One more than there are bounds.
    counts: Vec<u64>,
    sum_s: f64,
}

impl Histogram {
    fn new(bounds_s: &'static [f64]) -> Self {
        Self { bounds_s, counts: vec![0; bounds_s.len() + 1], sum_s: 0.0 }
    }

    fn add(&mut self, value: Duration) {
        let value_s = value.as_secs_f64();
        self.counts[self.bounds_s.partition_point(|bound| *bound < value_s)] += 1;
        self.sum_s += value_s;
    }

    fn write(&self, text: &mut String, name: &str, help: &str, labels: &str) {
        head(text, name, "histogram", help);
        let mut total = 0;
        for (count, bound) in self.counts.iter().zip(self.bounds_s) {
            total += count;
            line(text, &format!("{name}_bucket"), &format!("{labels},le=\"{bound:?}\""), total);
        }
        total += self.counts[self.bounds_s.len()];
        line(text, &format!("{name}_bucket"), &format!("{labels},le=\"+Inf\""), total);
        line(text, &format!("{name}_sum"), labels, self.sum_s);
        line(text, &format!("{name}_count"), labels, total);
    }
}

impl Metrics {
    pub fn new() -> Self {
        let (first_token, latency) = (Histogram::new(FIRST_TOKEN_BOUNDS_S), Histogram::new(LATENCY_BOUNDS_S));
        Self { inner: Mutex::new(Inner { first_token, latency, ended: [0; 3] }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sequence yielded its first token, so long after it was taken.
    pub fn first_token(&self, after: Duration) {
        self.lock().first_token.add(after);
    }

    /// A sequence ended, so long after it was taken.
    pub fn ended(&self, ended: Ended, after: Duration) {
        let mut inner = self.lock();
        inner.ended[ended as usize] += 1;
        if ended != Ended::Abort {
            inner.latency.add(after);
        }
    }

    /// The whole page.
    pub fn render(&self, model: &str, stats: &EngineStats) -> String {
        let model = model.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let labels = format!("model_name=\"{model}\",engine=\"0\"");
        let mut text = String::new();
        head(&mut text, "vllm:num_requests_running", "gauge", "Sequences being computed.");
        line(&mut text, "vllm:num_requests_running", &labels, stats.requests_running);
        head(&mut text, "vllm:num_requests_waiting", "gauge", "Sequences waiting for a place.");
        line(&mut text, "vllm:num_requests_waiting", &labels, stats.requests_waiting);
        head(&mut text, "vllm:prompt_tokens_total", "counter", "Prompt tokens computed.");
        line(&mut text, "vllm:prompt_tokens_total", &labels, stats.prompt_tokens_total);
        head(&mut text, "vllm:generation_tokens_total", "counter", "Tokens generated.");
        line(&mut text, "vllm:generation_tokens_total", &labels, stats.generation_tokens_total);
        let inner = self.lock();
        head(&mut text, "vllm:request_success_total", "counter", "Sequences that ended, by reason.");
        for (reason, count) in ["stop", "length", "abort"].iter().zip(inner.ended) {
            line(&mut text, "vllm:request_success_total", &format!("{labels},finished_reason=\"{reason}\""), count);
        }
        let name = "vllm:time_to_first_token_seconds";
        inner.first_token.write(&mut text, name, "Seconds from request to first token.", &labels);
        let name = "vllm:e2e_request_latency_seconds";
        inner.latency.write(&mut text, name, "Seconds from request to end.", &labels);
        text
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("a string takes all text");
}

fn line(text: &mut String, name: &str, labels: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name}{{{labels}}} {value}").expect("a string takes all text");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let mut histogram = Histogram::new(&[0.5, 1.0]);
        for milliseconds in [500, 700, 3000] {
            histogram.add(Duration::from_millis(milliseconds));
        }
        let mut text = String::new();
        histogram.write(&mut text, "x", "A help.", "a=\"b\"");
        assert_eq!(
            text,
            "# HELP x A help.\n# TYPE x histogram\nx_bucket{a=\"b\",le=\"0.5\"} 1\nx_bucket{a=\"b\",le=\"1.0\"} 2\n\
             x_bucket{a=\"b\",le=\"+Inf\"} 3\nx_sum{a=\"b\"} 4.2\nx_count{a=\"b\"} 3\n"
        );
    }
}
