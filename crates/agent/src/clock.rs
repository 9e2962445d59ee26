//! Time, and names that differ: both given to the loop, so that a test can give others. Knows nothing of runs.

use futures::future::BoxFuture;
use std::{
    hash::{BuildHasher, RandomState},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::watch;

/// What the time is, and waiting for it.
pub trait Clock: Send + Sync {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Lets time pass: the wait before a further try.
    fn pause(&self, ms: u64) -> BoxFuture<'static, ()>;

    /// Waits until it is so late: a deadline.
    fn alarm(&self, at_ms: u64) -> BoxFuture<'static, ()>;
}

/// The machine's time.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn pause(&self, ms: u64) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(Duration::from_millis(ms)))
    }

    fn alarm(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        self.pause(at_ms.saturating_sub(self.now_ms()))
    }
}

/// A time that stands still until it is moved: for tests, and for evaluations that give the same each time. A pause
/// moves it by its length; alarms go off as it passes them.
#[derive(Clone, Debug)]
pub struct SetClock {
    now_ms: Arc<watch::Sender<u64>>,
}

impl SetClock {
    /// It is so late.
    pub fn at(now_ms: u64) -> Self {
        Self { now_ms: Arc::new(watch::Sender::new(now_ms)) }
    }

    /// So many milliseconds pass.
    pub fn advance(&self, ms: u64) {
        self.now_ms.send_modify(|now| *now += ms);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        *self.now_ms.borrow()
    }

    fn pause(&self, ms: u64) -> BoxFuture<'static, ()> {
        self.advance(ms);
        Box::pin(async {})
    }

    fn alarm(&self, at_ms: u64) -> BoxFuture<'static, ()> {
        let mut now_ms = self.now_ms.subscribe();
        Box::pin(async move {
            // Where nobody can move the time any more, it never gets so late.
            if now_ms.wait_for(|now| *now >= at_ms).await.is_err() {
                std::future::pending::<()>().await;
            }
        })
    }
}

/// A new name: `prefix-` and 32 hexadecimal digits, from the system's entropy.
pub fn new_id(prefix: &str) -> String {
    // std keys each hasher's state from the system's entropy.
    let bits = || RandomState::new().hash_one(0u64);
    format!("{prefix}-{:016x}{:016x}", bits(), bits())
}
