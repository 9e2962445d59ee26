//! Looks after the replicas, on a thread of its own, so that a busy router still sees who is ready: asks each whether
//! it is ready, how busy it is and which models it has, and reads the file that names them when it changes.

use crate::{
    address,
    client::{Connector, Upstream, fetch, own_headers},
    fleet::Change,
    options::RouteOptions,
    replica::Replica,
    shared::Shared,
};
use axum::http::StatusCode;
use narthex_base::{Error, Result};
use narthex_http::warn;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::{Duration, SystemTime},
};
use tokio::{sync::oneshot, task::AbortHandle};

/// Where a replica says whether it is ready. The later ones are for servers that do not have the first.
const READY_PATHS: [&str; 3] = ["/ready", "/health", "/v1/models"];

/// How long an answer to that may take: a machine that computes on all processors is slow to answer.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

/// Time between two looks at least, however many requests raise doubts.
const LOOK_GAP: Duration = Duration::from_millis(10);

/// Late answers in a row after which a replica is not ready.
const LATE_MAX: usize = 2;

/// Time between two looks at metrics and at the file, and how long metrics and lists of models may take.
const LOAD_INTERVAL: Duration = Duration::from_secs(1);
const PAGE_TIMEOUT: Duration = Duration::from_secs(1);

/// Looks at metrics for each look at the list of models.
const MODELS_EVERY: usize = 5;

/// Bytes of an answer that is looked at.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// How long the first look may keep the router from starting.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// The thread that checks; it ends when this is dropped.
pub(crate) struct Checks {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Checks {
    /// Looks at all replicas once, then goes on doing so.
    ///
    /// # Errors
    /// If there are no replicas, an address is wrong, the file cannot be read, or the thread does not start.
    pub fn start(shared: Arc<Shared>, options: &RouteOptions, connector: &Connector) -> Result<Self> {
        // The file's state before it is read: what changes in between is read again.
        let state = options.replicas_file.as_deref().and_then(state_of);
        let change = shared.fleet.become_these(&address::all(&options.replicas, options.replicas_file.as_deref())?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Error::internal("cannot start the checks").cause(error))?;
        let (looked, first_look) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let checker = Checker {
            client: connector.afresh(),
            interval: options.check_interval,
            flags: options.replicas.clone(),
            shared,
        };
        let file = options.replicas_file.clone();
        let thread = std::thread::Builder::new()
            .name("checks".into())
            .spawn(move || {
                runtime.block_on(async move {
                    tokio::select! {
                        () = checker.run(change, file.as_deref(), state, looked) => {}
                        _ = stopped => {}
                    }
                });
            })
            .map_err(|error| Error::internal("cannot start a thread").cause(error))?;
        // An error is good: all have had their look, or it took too long.
        _ = first_look.recv_timeout(FIRST_LOOK);
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}

/// What a file looks like from outside.
type FileState = (SystemTime, u64);

fn state_of(path: &Path) -> Option<FileState> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[derive(Clone)]
struct Checker {
    shared: Arc<Shared>,
    /// Not that of requests: an open connection tells nothing of whether further ones are taken.
    client: Upstream,
    interval: Duration,
    flags: Vec<String>,
}

impl Checker {
    async fn run(self, first: Change, file: Option<&Path>, mut state: Option<FileState>, looked: mpsc::Sender<()>) {
        let mut watched: HashMap<String, [AbortHandle; 2]> = HashMap::new();
        self.watch(&mut watched, first, Some(looked));
        loop {
            tokio::time::sleep(LOAD_INTERVAL).await;
            let Some(path) = file else { continue };
            let now = state_of(path);
            if now == state {
                continue;
            }
            state = now;
            match address::all(&self.flags, Some(path)) {
                Ok(addresses) => {
                    let change = self.shared.fleet.become_these(&addresses);
                    self.watch(&mut watched, change, None);
                }
                Err(error) => warn(&format!("the replicas stay as they were: {error}")),
            }
        }
    }

    /// Begins to watch those that came, and ends it for those that have gone.
    fn watch(&self, watched: &mut HashMap<String, [AbortHandle; 2]>, change: Change, looked: Option<mpsc::Sender<()>>) {
        for replica in change.gone {
            replica.set_ready(false);
            for task in watched.remove(replica.address.as_str()).into_iter().flatten() {
                task.abort();
            }
            self.shared.affinity().forget(replica.slot);
        }
        for replica in change.come {
            let name = replica.address.as_str().to_string();
            let readiness = tokio::spawn(self.clone().readiness(replica.clone(), looked.clone()));
            let load = tokio::spawn(self.clone().load(replica));
            watched.insert(name, [readiness.abort_handle(), load.abort_handle()]);
        }
    }

    /// Asks again and again whether a replica is ready, and at once where there is doubt.
    async fn readiness(self, replica: Arc<Replica>, mut looked: Option<mpsc::Sender<()>>) {
        let (mut path, mut late, mut was_said, mut was_gone) = (0, 0, false, true);
        loop {
            let look = self.look(&replica, &mut path).await;
            late = if look == Look::Late { late + 1 } else { 0 };
            let is_gone = matches!(look, Look::Gone(_));
            if is_gone && !was_gone {
                // What comes back there has read nothing.
                self.shared.affinity().forget(replica.slot);
                replica.reconnect();
            }
            was_gone = is_gone;
            match look {
                Look::Ready => {
                    if !replica.is_ready() {
                        replica.set_models(self.models(&replica).await);
                    }
                    replica.set_ready(true);
                    if std::mem::take(&mut was_said) {
                        warn(&format!("replica {} takes requests again", replica.address.as_str()));
                    }
                }
                Look::Late if late < LATE_MAX => {}
                Look::Late | Look::No(_) | Look::Gone(_) => {
                    replica.set_ready(false);
                    if !std::mem::replace(&mut was_said, true) {
                        warn(&format!("replica {} takes no requests: {}", replica.address.as_str(), look.why()));
                    }
                }
            }
            drop(looked.take());
            tokio::time::sleep(LOOK_GAP.min(self.interval)).await;
            tokio::select! {
                () = tokio::time::sleep(self.interval) => {}
                () = replica.doubt.notified() => {}
            }
        }
    }

    async fn look(&self, replica: &Replica, path: &mut usize) -> Look {
        loop {
            let headers = own_headers(self.shared.replica_key.as_ref());
            let place = READY_PATHS[*path];
            let answer = fetch(&self.client, &replica.address, place, headers, PAGE_BYTES_MAX, READY_TIMEOUT);
            // The client's own limit on connecting is not longer than that on all.
            let is_late = tokio::time::Instant::now();
            match answer.await {
                Err(_) if is_late.elapsed() >= READY_TIMEOUT => return Look::Late,
                Err(why) => return Look::Gone(why),
                Ok((status, _)) if status.is_success() => return Look::Ready,
                Ok((status, _)) if is_unknown(status) && *path + 1 < READY_PATHS.len() => *path += 1,
                // It answers, and keeps its models from us.
                Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _)) => return Look::Ready,
                Ok((status, _)) => return Look::No(format!("{place} answers {status}")),
            }
        }
    }

    /// Asks again and again how busy it is, and which models it has.
    async fn load(self, replica: Arc<Replica>) {
        for round in 0_usize.. {
            tokio::time::sleep(LOAD_INTERVAL).await;
            if !replica.is_ready() {
                continue;
            }
            let before = replica.in_flight();
            let headers = own_headers(self.shared.replica_key.as_ref());
            let page = fetch(&self.client, &replica.address, "/metrics", headers, PAGE_BYTES_MAX, PAGE_TIMEOUT).await;
            let (there, cache_use) = match &page {
                Ok((status, page)) if status.is_success() => busy(&String::from_utf8_lossy(page)),
                _ => (0.0, 0.0),
            };
            let ours = replica.in_flight().max(before);
            replica.set_load((there as usize).saturating_sub(ours), cache_use);
            if round % MODELS_EVERY == MODELS_EVERY - 1
                && let Some(models) = self.models(&replica).await
            {
                replica.set_models(Some(models));
            }
        }
    }

    /// The names of its models, if it tells.
    async fn models(&self, replica: &Replica) -> Option<BTreeSet<String>> {
        let headers = own_headers(self.shared.replica_key.as_ref());
        let page = fetch(&self.client, &replica.address, "/v1/models", headers, PAGE_BYTES_MAX, PAGE_TIMEOUT).await;
        let (_, page) = page.ok().filter(|(status, _)| status.is_success())?;
        let list: Value = serde_json::from_slice(&page).ok()?;
        Some(list.get("data")?.as_array()?.iter().filter_map(|model| Some(model.get("id")?.as_str()?.into())).collect())
    }
}

/// What a look at a replica told.
#[derive(Debug, PartialEq)]
enum Look {
    Ready,
    /// It says that it is not.
    No(String),
    /// It does not answer, or not soon.
    Gone(String),
    Late,
}

impl Look {
    fn why(&self) -> &str {
        match self {
            Self::Ready => "",
            Self::No(why) | Self::Gone(why) => why,
            Self::Late => "it answers too late",
        }
    }
}

/// Whether a server does not have this path.
fn is_unknown(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    )
}

/// Requests running and waiting, and the largest use of a cache, of a page of metrics with vLLM's names.
fn busy(page: &str) -> (f64, f64) {
    let (mut requests, mut cache_use) = (0.0, 0.0_f64);
    for line in page.lines() {
        let Some(rest) = line.strip_prefix("vllm:") else { continue };
        let end = rest.find(['{', ' ']).unwrap_or(rest.len());
        let value = || rest.rsplit(' ').next().and_then(|value| value.parse::<f64>().ok()).filter(|v| v.is_finite());
        match &rest[..end] {
            "num_requests_running" | "num_requests_waiting" => requests += value().unwrap_or(0.0).max(0.0),
            "kv_cache_usage_perc" | "gpu_cache_usage_perc" => cache_use = cache_use.max(value().unwrap_or(0.0)),
            _ => {}
        }
    }
    (requests, cache_use)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_busy_a_page_says_it_is() {
        let page = "# TYPE vllm:num_requests_running gauge\nvllm:num_requests_running{model_name=\"a b\"} 3\n\
                    vllm:num_requests_running{model_name=\"b\"} 1.0\nvllm:num_requests_waiting 2\n\
                    vllm:num_requests_waiting_by_reason{reason=\"x\"} 9\nvllm:kv_cache_usage_perc{e=\"0\"} 0.25\n\
                    vllm:kv_cache_usage_perc{e=\"1\"} 0.5\nvllm:kv_cache_usage_perc{e=\"2\"} NaN\nother 7\n";
        assert_eq!(busy(page), (6.0, 0.5));
        assert_eq!(busy(""), (0.0, 0.0));
    }
}
