//! What a runner takes from the machine that it runs on, so that a test can give something else.

use crate::clock::{Clock, SystemClock, new_id};
use std::sync::Arc;

/// Makes a name that differs each time, for a run or a conversation: what the name begins with comes in.
pub type NewId = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Told the tenant and the run when a run ends or waits.
pub type Still = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What a runner takes from the machine that it runs on.
#[derive(Clone)]
pub struct Surroundings {
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Names of runs and conversations.
    pub new_id: NewId,
    /// Of the random part of waits before further tries.
    pub seed: u64,
    /// The process, as leases name it. One that starts again under its name takes its runs up at once; two at the same
    /// time need two names.
    pub owner: String,
    /// Told that a run has ended or waits: its tenant and its id. Must not take long.
    pub still: Still,
    /// Told what nobody waits to hear: a run that could not be taken up, and why.
    pub warn: Arc<dyn Fn(String) + Send + Sync>,
}

impl Default for Surroundings {
    /// The machine's time, names that differ, and silence.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            new_id: Arc::new(new_id),
            seed: 0,
            owner: new_id("process"),
            still: Arc::new(|_, _| {}),
            warn: Arc::new(|_| {}),
        }
    }
}
