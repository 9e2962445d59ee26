//! Another version of a model on trial: it answers a share of the requests until enough were answered to tell, and then takes over or
//! goes. Knows counts and times, not what was asked.

use crate::Served;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Failures that say nothing yet, however few requests there were.
const FAILURES_FREE: u64 = 1;

/// When a version on trial takes over, and when it goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct TrialLimits {
    /// The share of new requests that it answers: more than 0, at most 1.
    pub share: f64,
    /// Requests after which it is decided; 0 decides at once.
    pub requests: u64,
    /// The share of them that may fail.
    pub error_rate_max: f64,
    /// Seconds to the first token that 95 of 100 of them may take at most.
    pub first_token_s_max: Option<f64>,
}

/// How a trial stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Not enough is known.
    Open,
    /// It takes over.
    Good,
    /// It goes, for this reason.
    Bad(String),
}

/// A version on trial.
pub(crate) struct Trial {
    pub model: Arc<Served>,
    pub limits: TrialLimits,
    counts: Mutex<Counts>,
}

/// What is known of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Counts {
    /// Requests that came since it began, whoever answered.
    pub came: u64,
    /// Requests of its own that ended.
    pub ended: u64,
    /// Of these, those that failed by our fault.
    pub failed: u64,
    first_token_s: Vec<f64>,
}

impl Trial {
    pub fn new(model: Arc<Served>, limits: TrialLimits) -> Self {
        Self { model, limits, counts: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next request is its own: as many of all as its share says, spread evenly.
    pub fn takes_next(&self) -> bool {
        let mut counts = self.lock();
        let before = (counts.came as f64 * self.limits.share).floor();
        counts.came += 1;
        (counts.came as f64 * self.limits.share).floor() > before
    }

    /// A request of its own ended.
    pub fn ended(&self, failed: bool, first_token_s: Option<f64>) {
        let mut counts = self.lock();
        counts.ended += 1;
        counts.failed += u64::from(failed);
        counts.first_token_s.extend(first_token_s);
    }

    /// What is known so far.
    pub fn counts(&self) -> Counts {
        self.lock().clone()
    }

    /// Whether it is to take over, or to go. It goes as soon as too many failed, whatever the rest will do.
    pub fn verdict(&self) -> Verdict {
        let (counts, limits) = (self.lock(), &self.limits);
        let allowed = (limits.error_rate_max * limits.requests as f64).floor() as u64;
        if counts.failed > allowed.max(FAILURES_FREE.min(limits.requests.saturating_sub(1))) {
            return Verdict::Bad(format!("{} of {} requests failed", counts.failed, counts.ended));
        }
        if counts.ended < limits.requests {
            return Verdict::Open;
        }
        if counts.failed > allowed {
            return Verdict::Bad(format!("{} of {} requests failed", counts.failed, counts.ended));
        }
        match (limits.first_token_s_max, quantile_95(&counts.first_token_s)) {
            (Some(most), Some(found)) if found > most => {
                Verdict::Bad(format!("95 of 100 first tokens came within {found:.3} s, not {most} s"))
            }
            _ => Verdict::Good,
        }
    }
}

/// The value that 95 of 100 do not exceed.
fn quantile_95(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len() * 95).div_ceil(100).saturating_sub(1)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    fn trial(share: f64, requests: u64, error_rate_max: f64, first_token_s_max: Option<f64>) -> Trial {
        let limits = TrialLimits { share, requests, error_rate_max, first_token_s_max };
        Trial::new(Arc::new(testing::model(|_| vec![])), limits)
    }

    #[test]
    fn shares_are_exact() {
        for (share, expected) in [(1.0, 100), (0.25, 25), (0.1, 10), (0.01, 1)] {
            let trial = trial(share, 10, 0.0, None);
            let taken: Vec<bool> = (0..100).map(|_| trial.takes_next()).collect();
            assert_eq!(taken.iter().filter(|taken| **taken).count(), expected, "{share}");
        }
    }

    #[test]
    fn verdicts() {
        let check = |ends: &[(bool, f64)], trial: Trial| {
            ends.iter().for_each(|(failed, first)| trial.ended(*failed, (!failed).then_some(*first)));
            trial.verdict()
        };
        let good = [(false, 0.1); 10];
        assert_eq!(check(&good[..9], trial(1.0, 10, 0.0, None)), Verdict::Open);
        assert_eq!(check(&good, trial(1.0, 10, 0.0, Some(0.2))), Verdict::Good);
        assert!(matches!(check(&good, trial(1.0, 10, 0.0, Some(0.05))), Verdict::Bad(why) if why.contains("0.100 s")));
        // The second failure ends it, long before all requests came.
        assert_eq!(check(&[(true, 0.0)], trial(1.0, 100, 0.0, None)), Verdict::Open);
        assert!(matches!(check(&[(true, 0.0); 2], trial(1.0, 100, 0.0, None)), Verdict::Bad(_)));
        assert_eq!(check(&[(true, 0.0); 2], trial(1.0, 100, 0.05, None)), Verdict::Open);
        // One of ten is one too many where none may fail.
        let one = [&good[..9], &[(true, 0.0)]].concat();
        assert!(matches!(check(&one, trial(1.0, 10, 0.0, None)), Verdict::Bad(_)));
        assert_eq!(check(&one, trial(1.0, 10, 0.1, None)), Verdict::Good);
        assert_eq!(check(&[], trial(1.0, 0, 0.0, None)), Verdict::Good);
        assert_eq!(quantile_95(&(1..=100).map(f64::from).collect::<Vec<_>>()), Some(95.0));
        assert_eq!(quantile_95(&[]), None);
    }
}
