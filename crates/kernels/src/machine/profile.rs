//! Time by operator, for benchmarks. Off unless asked for; then each operator adds its wall time.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

static ENABLED: AtomicBool = AtomicBool::new(false);
static TOTALS: Mutex<BTreeMap<&'static str, OperatorTime>> = Mutex::new(BTreeMap::new());

/// What one operator took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OperatorTime {
    /// Wall time of all calls, in seconds.
    pub seconds: f64,
    /// How often it was called.
    pub calls: u64,
    /// Floating-point operations asked for.
    pub flop: f64,
}

/// Starts to measure, from zero.
pub fn start() {
    TOTALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).clear();
    ENABLED.store(true, Ordering::Relaxed);
}

/// Stops, and returns the times by operator.
pub fn stop() -> BTreeMap<&'static str, OperatorTime> {
    ENABLED.store(false, Ordering::Relaxed);
    std::mem::take(&mut *TOTALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
}

/// Runs `work`, which does `flop` operations, on the account of operator `name`.
pub fn timed<R>(name: &'static str, flop: f64, work: impl FnOnce() -> R) -> R {
    if !ENABLED.load(Ordering::Relaxed) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f64();
    let mut totals = TOTALS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let entry = totals.entry(name).or_default();
    entry.seconds += seconds;
    entry.calls += 1;
    entry.flop += flop;
    result
}
