//! Push notifications: each open config is followed from where its delivery stood, also after a crash, and every update
//! is sent until the place takes it or has refused it too often. At least once, in order. Has its own thread.

use crate::{
    follow::{Followed, Told},
    options::{A2aOptions, PushLimits},
    screen::{Refusal, Screen},
    store::PushRow,
    updates::{Updates, is_last},
};
use a2a::{A2AError, StreamResponse, TaskPushNotificationConfig};
use a2a_pb::protojson_conv;
use narthex_agent::{AgentError, Agents};
use reqwest::{StatusCode, header};
use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::{sleep, timeout},
};

/// How often the store is looked at for configs that another process has added.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// How often a run that waits is looked at for answers that came another way.
const RUN_LOOK_AGAIN: Duration = Duration::from_secs(30);

/// Updates of one run that wait to be sent.
const UPDATES_WAITING: usize = 8;

/// The longest secret that a config may hold, in bytes.
const SECRET_BYTES_MAX: usize = 8192;

/// Where the token stands in a notification.
const TOKEN_HEADER: &str = "x-a2a-notification-token";

/// Rings for the thread that delivers; when the last one goes, the thread ends.
pub(crate) struct Deliverer {
    bell: Arc<Notify>,
    stop: Arc<AtomicBool>,
}

impl Deliverer {
    /// Begins to deliver, first what was open before. `answered` is rung when a run was answered here.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub(crate) fn start(
        agents: Arc<dyn Agents>,
        options: &A2aOptions,
        answered: Arc<Notify>,
    ) -> std::io::Result<Arc<Self>> {
        let deliverer = Arc::new(Self { bell: Arc::default(), stop: Arc::default() });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = options.screen.client().timeout(Duration::from_millis(options.limits.push.timeout_ms)).build();
        let work = Arc::new(Work {
            agents,
            client: client.map_err(std::io::Error::other)?,
            options: options.clone(),
            answered,
            at_once: Semaphore::new(options.limits.push.at_once.max(1)),
            followed: Mutex::default(),
        });
        let (bell, stop) = (deliverer.bell.clone(), deliverer.stop.clone());
        std::thread::Builder::new().name("a2a push".into()).spawn(move || {
            runtime.block_on(work.run(&bell, &stop));
            // A lookup that hangs must not keep the process.
            runtime.shutdown_background();
        })?;
        Ok(deliverer)
    }

    /// There is a new config.
    pub(crate) fn ring(&self) {
        self.bell.notify_one();
    }
}

impl Drop for Deliverer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.bell.notify_one();
    }
}

/// Which config, in which of its versions.
type Key = (String, String, String, u64);

struct Work {
    agents: Arc<dyn Agents>,
    client: reqwest::Client,
    options: A2aOptions,
    answered: Arc<Notify>,
    at_once: Semaphore,
    followed: Mutex<HashSet<Key>>,
}

impl Work {
    async fn run(self: Arc<Self>, bell: &Notify, stop: &AtomicBool) {
        while !stop.load(Ordering::Acquire) {
            match self.options.store.open_pushes().await {
                Ok(rows) => rows.into_iter().for_each(|row| self.begin(row)),
                Err(error) => (self.options.warn)(&error.to_string()),
            }
            // Whichever comes first: a config of ours, or the time to look for others.
            _ = timeout(LOOK_AGAIN, bell.notified()).await;
        }
    }

    fn begin(self: &Arc<Self>, row: PushRow) {
        let key = (row.tenant.clone(), row.task.clone(), row.id.clone(), row.created_ms);
        if !self.followed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone()) {
            return;
        }
        let work = self.clone();
        tokio::spawn(async move {
            if let Err(why) = work.deliver(row).await {
                (work.options.warn)(&why);
            }
            work.followed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
    }

    async fn deliver(&self, row: PushRow) -> Result<(), String> {
        let followed = Followed {
            agents: self.agents.clone(),
            tenant: row.tenant.clone(),
            run: row.task.clone(),
            context: row.context.clone(),
            bell: self.answered.clone(),
            look_again: RUN_LOOK_AGAIN,
        };
        let view = match followed.view().await {
            Ok(view) => view,
            Err(AgentError::Unknown(_)) => {
                // The run is gone for good; so is whoever wanted to know of it.
                let closed = self.options.store.advance_push(&row, row.cursor, true).await;
                return closed.map(drop).map_err(|error| error.to_string());
            }
            Err(error) => return Err(format!("cannot follow run {} for its push notifications: {error}", row.task)),
        };
        let (sender, mut receiver) = mpsc::channel::<Result<Told, A2AError>>(UPDATES_WAITING);
        let telling = async move {
            let told = followed.tell(row.cursor, Updates::new(&view, false), false, &sender).await;
            told.map_err(|error| format!("cannot follow run {}: {error}", followed.run))
        };
        let sending = async {
            let mut given_up = 0;
            while let Some(Ok(Told { cursor, update })) = receiver.recv().await {
                match self.send(&row, &update).await {
                    Ok(()) => given_up = 0,
                    Err(why) => {
                        given_up += 1;
                        (self.options.warn)(&format!("a push notification of run {} was given up: {why}", row.task));
                    }
                }
                let closed = is_last(&update) || given_up >= self.options.limits.push.given_up;
                let kept = self.options.store.advance_push(&row, cursor, closed).await.map_err(|e| e.to_string())?;
                if closed || !kept {
                    break;
                }
            }
            receiver.close();
            Ok(())
        };
        let (told, sent) = futures::join!(telling, sending);
        told.and(sent)
    }

    /// Sends one update until it is taken.
    async fn send(&self, row: &PushRow, update: &StreamResponse) -> Result<(), String> {
        let body = protojson_conv::to_value(update).map_err(|error| error.to_string())?.to_string();
        let limits = &self.options.limits.push;
        let mut why = String::new();
        for attempt in 0..limits.attempts.max(1) {
            if attempt > 0 {
                sleep(wait(limits, row, attempt)).await;
            }
            // The name may have changed since: what is connected to is screened again, each time.
            if let Err(refusal) = self.options.screen.check_form(&row.url) {
                return Err(refusal.to_string());
            }
            let permit = self.at_once.acquire().await;
            let sent = self.request(row, body.clone()).send().await;
            drop(permit);
            match sent.map(|response| response.status()) {
                Ok(status) if status.is_success() => return Ok(()),
                Ok(status) if !is_passing(status) => return Err(format!("the place answered {status}")),
                Ok(status) => why = format!("the place answered {status}"),
                Err(error) => why = without_url(error),
            }
        }
        Err(why)
    }

    fn request(&self, row: &PushRow, body: String) -> reqwest::RequestBuilder {
        let mut request = self.client.post(&row.url).header(header::CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = &row.token {
            request = request.header(TOKEN_HEADER, token);
        }
        if let Some(scheme) = &row.scheme {
            let value = format!("{scheme} {}", row.credentials.as_deref().unwrap_or_default());
            request = request.header(header::AUTHORIZATION, value.trim_end());
        }
        request
    }
}

/// Whether a place that answers so may take it a little later.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS)
}

/// A URL of a caller may hold a secret.
fn without_url(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut causes = vec![error.to_string()];
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    causes.join(": ")
}

/// The wait before an attempt, twice as long each time. Configs differ by up to a quarter, lest thousands that failed
/// together are tried together again; by their names, not by chance, so that a test can tell.
fn wait(limits: &PushLimits, row: &PushRow, attempt: u32) -> Duration {
    let factor = 1_u64.checked_shl(attempt.saturating_sub(1)).unwrap_or(u64::MAX);
    let wait = limits.first_wait_ms.saturating_mul(factor).min(limits.wait_ms);
    let spread =
        row.task.bytes().chain(row.id.bytes()).fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    Duration::from_millis(wait + wait.saturating_mul(spread % 256) / 1024)
}

/// Checks a config before anything else is done with it.
///
/// # Errors
/// If the URL must not be asked, or a secret cannot stand in a header.
pub(crate) async fn check(config: &TaskPushNotificationConfig, screen: &Screen) -> Result<(), A2AError> {
    let wrong = |why: String| A2AError::invalid_params(format!("the push notification config is refused: {why}"));
    let fits = |secret: &Option<String>| {
        secret.as_ref().is_none_or(|secret| {
            secret.len() <= SECRET_BYTES_MAX && secret.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        })
    };
    let authentication = config.authentication.as_ref();
    let scheme = authentication.map(|authentication| authentication.scheme.as_str());
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if !scheme.is_none_or(is_word) {
        return Err(wrong("authentication.scheme must be a word such as Bearer".into()));
    }
    if !fits(&config.token) || !authentication.is_none_or(|authentication| fits(&authentication.credentials)) {
        return Err(wrong("token and credentials must be printable ASCII of 8192 bytes at most".into()));
    }
    if config.id.as_ref().is_some_and(|id| id.len() > crate::incoming::ID_BYTES_MAX) {
        return Err(wrong("the id has 256 bytes at most".into()));
    }
    match screen.check(&config.url).await {
        // Its lookup may work later; what is found then is screened before it is connected to.
        Ok(_) | Err(Refusal::Unknown(_)) => Ok(()),
        Err(refusal) => Err(wrong(format!("url: {refusal}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit() {
        let limits = PushLimits { first_wait_ms: 100, wait_ms: 1_000, ..PushLimits::default() };
        let row = |task: &str| PushRow {
            tenant: String::new(),
            task: task.into(),
            id: String::new(),
            agent: String::new(),
            url: String::new(),
            token: None,
            scheme: None,
            credentials: None,
            context: String::new(),
            cursor: 0,
            closed: false,
            created_ms: 0,
        };
        let waits: Vec<u64> = (1..7).map(|attempt| wait(&limits, &row(""), attempt).as_millis() as u64).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
        assert_eq!(wait(&limits, &row(""), 200).as_millis(), 1_000);
        let spread = wait(&limits, &row("bard"), 1).as_millis();
        assert!((101..=125).contains(&spread), "{spread}");
    }

    #[tokio::test]
    async fn configs_are_checked_before_they_are_kept() {
        let config = |url: &str, token: Option<&str>, scheme: Option<&str>| TaskPushNotificationConfig {
            url: url.into(),
            id: None,
            task_id: String::new(),
            token: token.map(str::to_string),
            authentication: scheme
                .map(|scheme| a2a::AuthenticationInfo { scheme: scheme.into(), credentials: Some("c".into()) }),
            tenant: None,
        };
        for (config, expected) in [
            (config("http://8.8.8.8/", Some("t"), Some("Bearer")), true),
            (config("http://127.0.0.1/", None, None), false),
            (config("http://8.8.8.8/", Some("a\r\nb: c"), None), false),
            (config("http://8.8.8.8/", Some(&"t".repeat(SECRET_BYTES_MAX + 1)), None), false),
            (config("http://8.8.8.8/", None, Some("Bea rer")), false),
            (config("http://8.8.8.8/", None, Some("")), false),
            (config("", None, None), false),
        ] {
            assert_eq!(check(&config, &Screen::default()).await.is_ok(), expected, "{config:?}");
        }
    }
}
