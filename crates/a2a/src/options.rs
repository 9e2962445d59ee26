//! What whoever serves agents over A2A decides, with the limits. Knows no request.

use crate::{screen::Screen, signature::CardSigner, store::Store};
use std::{
    fmt,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Tells whoever runs the server of trouble that no caller sees.
pub type Warn = Arc<dyn Fn(&str) + Send + Sync>;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How agents are offered over A2A.
#[derive(Clone)]
pub struct A2aOptions {
    /// Where this server is reached from outside, without a slash at the end: the card's URLs begin with it.
    pub base_url: String,
    /// The agent whose card stands at `/.well-known/agent-card.json`; the first without.
    pub default_agent: Option<String>,
    /// Who offers the agents: a name and a URL.
    pub provider: Option<(String, String)>,
    /// Signs the cards.
    pub signer: Option<CardSigner>,
    /// Keeps what runs do not hold.
    pub store: Store,
    /// Where push notifications may go.
    pub screen: Screen,
    /// Media types that messages may hold.
    pub input_modes: Vec<String>,
    /// Whether the card says that a bearer token is needed. Asking for it is for a layer around the router.
    pub bearer: bool,
    /// Whether the caller who started a task may approve its calls. If not, tasks wait for someone else's approval.
    pub approvals: bool,
    /// Whether a message that comes twice (the same id and words, from the same caller to the same agent) is one task.
    pub once: bool,
    /// How much of what.
    pub limits: A2aLimits,
    /// Told of trouble.
    pub warn: Warn,
    /// The time.
    pub now_ms: Clock,
}

impl fmt::Debug for A2aOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("A2aOptions").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

impl A2aOptions {
    /// Text and data in, the public internet for push notifications, no signature.
    pub fn new(base_url: impl Into<String>, store: Store) -> Self {
        Self {
            base_url: base_url.into().trim_end_matches('/').to_string(),
            default_agent: None,
            provider: None,
            signer: None,
            store,
            screen: Screen::default(),
            input_modes: vec!["text/plain".into(), "application/json".into()],
            bearer: false,
            approvals: true,
            once: true,
            limits: A2aLimits::default(),
            warn: Arc::new(|_| {}),
            now_ms: Arc::new(now_ms),
        }
    }
}

/// How much of what a server takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct A2aLimits {
    /// Bytes of a request's body.
    pub body_bytes: usize,
    /// Streams at once, of all callers together.
    pub streams: usize,
    /// Milliseconds that a caller waits for a task; then it gets the task as it is.
    pub wait_ms: u64,
    /// How often a waiting task is looked at, in milliseconds, for answers that came another way.
    pub look_again_ms: u64,
    /// Runs that are looked through for one page of a list.
    pub scanned: usize,
    /// Of push notifications.
    pub push: PushLimits,
}

impl Default for A2aLimits {
    fn default() -> Self {
        Self {
            body_bytes: 4 << 20,
            streams: 256,
            wait_ms: 600_000,
            look_again_ms: 1_000,
            scanned: 1_000,
            push: PushLimits::default(),
        }
    }
}

/// How hard push notifications are tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushLimits {
    /// Times that one notification is sent until it is taken.
    pub attempts: u32,
    /// Milliseconds until the second attempt; each further wait is twice as long.
    pub first_wait_ms: u64,
    /// Milliseconds of the longest wait.
    pub wait_ms: u64,
    /// Milliseconds of one attempt.
    pub timeout_ms: u64,
    /// Notifications given up one after the other, until the place gets no more.
    pub given_up: u32,
    /// Attempts at once, of all tasks together.
    pub at_once: usize,
}

impl Default for PushLimits {
    fn default() -> Self {
        Self { attempts: 5, first_wait_ms: 1_000, wait_ms: 60_000, timeout_ms: 10_000, given_up: 3, at_once: 64 }
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
