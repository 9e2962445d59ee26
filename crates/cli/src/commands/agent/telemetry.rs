//! Spans of runs sent to a collector as the runs end or wait. Never holds a run up: what cannot be sent is told, and
//! sent with what comes next of that run. Knows logs and one address.

use narthex_agent::{Runner, SERVICE, Transport, otlp, spans};
use narthex_base::{Error, Result};
use narthex_tools::endpoint::{Elsewhere, Endpoint};
use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Runs whose turn to be sent is to come.
const WAITING_MAX: usize = 4096;
/// Runs of which it is known what was sent; of others it is sent again, with the same ids.
const KNOWN_MAX: usize = 10_000;
/// Milliseconds for the collector to answer.
const WALL_MS: u64 = 10_000;
/// Between two warnings.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// What a runner tells of runs that end or wait.
pub(super) type Still = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// Sends spans.
pub(super) struct Exporter {
    way: Elsewhere,
    with_content: bool,
    runs: Receiver<(String, String)>,
    /// Runs that did not fit into the queue.
    missed: Arc<AtomicUsize>,
}

impl Exporter {
    /// One for a collector, and what a runner must tell it.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(url: &str, with_content: bool) -> Result<(Self, Still)> {
        let endpoint = Endpoint { url: url.into(), model: None, key_env: None, wall_ms: WALL_MS };
        let way = Elsewhere::new("--otlp-endpoint", &endpoint).map_err(|error| {
            Error::usage("`--otlp-endpoint` is no address of a collector")
                .cause(error)
                .help("give its base, as `http://127.0.0.1:4318`: spans go to /v1/traces below it")
        })?;
        let (sender, runs): (Sender<(String, String)>, _) = channel(WAITING_MAX);
        let missed = Arc::new(AtomicUsize::new(0));
        let counted = missed.clone();
        let still: Still = Arc::new(move |tenant, run| {
            if sender.try_send((tenant.to_string(), run.to_string())).is_err() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok((Self { way, with_content, runs, missed }, still))
    }

    /// Sends what it is told of, for as long as there are runs.
    pub async fn keep_sending(mut self, runner: Weak<Runner>) {
        let mut sent: HashMap<String, u64> = HashMap::new();
        let (mut failures, mut warned): (usize, Option<Instant>) = (0, None);
        while let Some((tenant, run)) = self.runs.recv().await {
            if sent.len() > KNOWN_MAX {
                sent.clear();
            }
            let Some(runner) = runner.upgrade() else { return };
            let after = sent.get(&run).copied().unwrap_or(0);
            match self.send(&runner, &tenant, &run, after).await {
                Ok(upto) => _ = sent.insert(run, upto),
                Err(why) => {
                    failures += 1;
                    if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
                        let missed = self.missed.swap(0, Ordering::Relaxed);
                        noteln!("warning: spans cannot be sent: {why} ({failures} failed, {missed} left out so far)");
                        (failures, warned) = (0, Some(Instant::now()));
                    }
                }
            }
        }
    }

    /// Sends what ended of a run behind an event; the number of its last event.
    async fn send(&self, runner: &Runner, tenant: &str, run: &str, after: u64) -> std::result::Result<u64, String> {
        let (root, logs) = runner.trace(tenant, run, false).await.map_err(|error| error.to_string())?;
        let upto = logs.first().map_or(0, |log| log.events.len() as u64);
        let spans: Vec<_> = logs
            .iter()
            .flat_map(|log| spans(&root, log, self.with_content))
            .filter(|span| span.ended_by.is_some_and(|number| number > after))
            .collect();
        if spans.is_empty() {
            return Ok(upto);
        }
        let body = otlp(&spans, SERVICE).to_string().into_bytes();
        let reply = self.way.post("/v1/traces", body).await.map_err(|failure| failure.message)?;
        match reply.status {
            200..=299 => Ok(upto),
            status => Err(format!("the collector answered with status {status}")),
        }
    }
}
