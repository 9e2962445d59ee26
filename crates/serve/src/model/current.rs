//! A model that answers, which may be replaced or put out of memory while the server runs: requests under way keep the
//! one they began with.

use super::{
    described::Described,
    rollout::{Trial, TrialLimits, Verdict},
};
use crate::{Served, metrics::Metrics};
use narthex_base::{Error, Result};
use narthex_infer::{EngineStats, StatsReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Loads a model: the one of this name as it was asked for at the start, or, with a reference, another version of it. May take a
/// while.
type Load = Box<dyn Fn(Option<&str>) -> Result<Served> + Send + Sync>;

/// The model of one name: what answers new requests, and what is left of those before it.
pub struct Serving {
    state: Mutex<State>,
    /// Brings the model back; without it the model stays in memory.
    load: Option<Load>,
    metrics: Arc<Metrics>,
}

struct State {
    described: Arc<Described>,
    /// None while it is not in memory.
    model: Option<Arc<Served>>,
    /// When it was last asked for, by the clock of whoever has several.
    used: u64,
    former: Vec<Former>,
    /// Another version that answers some of the requests.
    trial: Option<Arc<Trial>>,
    /// How the last trial ended.
    said: Option<String>,
    /// Counters of models that are gone.
    past: EngineStats,
}

/// A model that answers what it has begun.
struct Former {
    model: Weak<Served>,
    memory_bytes: u64,
    stats: StatsReader,
}

impl Serving {
    /// Answers with this model, which stays in memory.
    pub fn new(model: Served) -> Self {
        let described = Arc::new(Described::of(&model));
        let state = State {
            described,
            model: Some(model.into()),
            used: 0,
            former: vec![],
            trial: None,
            said: None,
            past: EngineStats::default(),
        };
        Self { state: Mutex::new(state), load: None, metrics: Arc::default() }
    }

    /// Answers with this model, which may be put out of memory: `load` brings it back under the same name, or another version
    /// that a reference stands for.
    pub fn with_load(model: Served, load: impl Fn(Option<&str>) -> Result<Served> + Send + Sync + 'static) -> Self {
        Self { load: Some(Box::new(load)), ..Self::new(model) }
    }

    /// The model for a new request, if it is in memory. Whoever holds it keeps it alive.
    pub(crate) fn model(&self) -> Option<Arc<Served>> {
        self.lock().model.clone()
    }

    /// The same, noting that it was asked for now.
    pub(crate) fn model_at(&self, now: u64) -> Option<Arc<Served>> {
        let mut state = self.lock();
        state.used = now;
        match &state.trial {
            Some(trial) if state.model.is_some() && trial.takes_next() => Some(trial.model.clone()),
            _ => state.model.clone(),
        }
    }

    /// The version on trial.
    pub(crate) fn trial(&self) -> Option<Arc<Trial>> {
        self.lock().trial.clone()
    }

    /// How the last trial ended, if there was one.
    pub(crate) fn said(&self) -> Option<String> {
        self.lock().said.clone()
    }

    /// Loads another version and goes over to it, or begins its trial. Reads files, and may take a while.
    ///
    /// # Errors
    /// If it cannot be loaded or may not be served: the model stays as it is.
    pub(crate) fn go_over(&self, reference: &str, limits: TrialLimits) -> Result<()> {
        let load = self.load.as_ref().ok_or_else(|| Error::input("this model has no other version"))?;
        let model = load(Some(reference))?;
        if limits.requests == 0 && limits.share >= 1.0 {
            self.replace(model);
            return Ok(());
        }
        let mut state = self.lock();
        state.said = None;
        state.trial = Some(Arc::new(Trial::new(Arc::new(model), limits)));
        Ok(())
    }

    /// A request that this model answered has ended: if the model is on trial, that may decide it.
    pub(crate) fn ended(&self, model: &Arc<Served>, failed: bool, first_token_s: Option<f64>) {
        let Some(trial) = self.trial().filter(|trial| Arc::ptr_eq(&trial.model, model)) else { return };
        trial.ended(failed, first_token_s);
        match trial.verdict() {
            Verdict::Open => {}
            Verdict::Bad(why) => {
                self.end_trial(&format!("the version before goes on alone: {why}"));
            }
            Verdict::Good => {
                let counts = trial.counts();
                let said = format!("it took over after {} requests, of which {} failed", counts.ended, counts.failed);
                let mut state = self.lock();
                // Several requests may end at once.
                if state.trial.take().is_some() {
                    state.described = Arc::new(Described::of(&trial.model));
                    let before = state.model.replace(trial.model.clone());
                    state.retire(before.as_ref());
                    state.said = Some(said);
                    drop(state);
                    drop(before);
                }
            }
        }
    }

    /// Ends a trial: the version before goes on alone. Returns whether there was one.
    pub(crate) fn end_trial(&self, why: &str) -> bool {
        let mut state = self.lock();
        let Some(trial) = state.trial.take() else { return false };
        state.said = Some(why.into());
        state.retire(Some(&trial.model));
        drop(state);
        true
    }

    /// When it was last asked for, if it is in memory and may go out of it.
    pub(crate) fn used(&self) -> Option<u64> {
        let state = self.lock();
        (state.model.is_some() && self.load.is_some()).then_some(state.used)
    }

    /// What is known of it, whether it is in memory or not.
    pub(crate) fn described(&self) -> Arc<Described> {
        self.lock().described.clone()
    }

    /// What the server measures of its requests.
    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Whether it is in memory.
    pub fn is_loaded(&self) -> bool {
        self.lock().model.is_some()
    }

    /// Bytes that it takes when it is in memory.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.lock().described.sizes.memory_bytes
    }

    /// Bytes that it takes now, those of models before it that still answer included.
    pub(crate) fn held_bytes(&self) -> u64 {
        let state = self.lock();
        let now = state.model.as_ref().map_or(0, |model| model.sizes.memory_bytes);
        let now = now + state.trial.as_ref().map_or(0, |trial| trial.model.sizes.memory_bytes);
        let living = state.former.iter().filter(|former| former.model.strong_count() > 0);
        now + living.map(|former| former.memory_bytes).sum::<u64>()
    }

    /// New requests go to this model from now on; the one before ends with its last answer.
    pub fn replace(&self, model: Served) {
        let described = Arc::new(Described::of(&model));
        let mut state = self.lock();
        state.described = described;
        let before = state.model.replace(Arc::new(model));
        state.retire(before.as_ref());
        // What was compared with the one before is compared with nothing now.
        let trial = state.trial.take();
        state.retire(trial.as_ref().map(|trial| &trial.model));
        drop(state);
        drop(trial);
        // The last holder ends the engine; if that is us, then without anybody waiting.
        drop(before);
    }

    /// Puts the model out of memory as soon as its last answer has ended. Returns whether it was in memory and can come
    /// back.
    pub(crate) fn unload(&self) -> bool {
        if self.load.is_none() {
            return false;
        }
        let mut state = self.lock();
        let before = state.model.take();
        state.retire(before.as_ref());
        // A trial ends with what it is held against.
        let trial = state.trial.take();
        state.retire(trial.as_ref().map(|trial| &trial.model));
        let described = state.described.clone();
        drop(state);
        described.unload_adapters();
        before.is_some()
    }

    /// Loads the model. Reads files, and may take a while.
    ///
    /// # Errors
    /// If it cannot be loaded, or not any more.
    pub(crate) fn load(&self) -> Result<()> {
        let load = self.load.as_ref().ok_or_else(|| Error::internal("the model cannot be loaded again"))?;
        self.replace(load(None)?);
        Ok(())
    }

    /// Counters of all models so far, and the gauges of those that still answer. The cache is that of the newest.
    pub fn stats(&self) -> EngineStats {
        let mut state = self.lock();
        let State { model, former, past, trial, .. } = &mut *state;
        let mut stats = model.as_ref().map(|model| model.ability.stats_reader()()).unwrap_or_default();
        if let Some(trial) = trial {
            let found = trial.model.ability.stats_reader()();
            add_counters(&mut stats, &found);
            stats.requests_running += found.requests_running;
            stats.requests_waiting += found.requests_waiting;
        }
        former.retain(|former| {
            let gone = former.model.strong_count() == 0;
            let found = (former.stats)();
            let idle = found.requests_running + found.requests_waiting == 0;
            add_counters(if gone && idle { &mut *past } else { &mut stats }, &found);
            stats.requests_running += found.requests_running;
            stats.requests_waiting += found.requests_waiting;
            !(gone && idle)
        });
        add_counters(&mut stats, past);
        stats
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps what is to be counted of a model that answers no new requests.
    fn retire(&mut self, before: Option<&Arc<Served>>) {
        let retired = |model: &Arc<Served>| Former {
            model: Arc::downgrade(model),
            memory_bytes: model.sizes.memory_bytes,
            stats: model.ability.stats_reader(),
        };
        self.former.extend(before.map(retired));
    }
}

/// Adds what only grows.
fn add_counters(to: &mut EngineStats, from: &EngineStats) {
    to.prompt_tokens_total += from.prompt_tokens_total;
    to.generation_tokens_total += from.generation_tokens_total;
    to.finished_stop_total += from.finished_stop_total;
    to.finished_length_total += from.finished_length_total;
    to.finished_abort_total += from.finished_abort_total;
    to.steps_total += from.steps_total;
    to.step_tokens_total += from.step_tokens_total;
    for (to, from) in to.steps_by_tokens.iter_mut().zip(from.steps_by_tokens) {
        *to += from;
    }
    to.preemptions_total += from.preemptions_total;
    to.prefix_cache_queries_total += from.prefix_cache_queries_total;
    to.prefix_cache_hits_total += from.prefix_cache_hits_total;
    to.guesses_total += from.guesses_total;
    to.guessed_tokens_total += from.guessed_tokens_total;
    for (to, from) in to.right_tokens_by_place.iter_mut().zip(from.right_tokens_by_place) {
        *to += from;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Models, ServeOptions,
        testing::{self, byte_tokens, get, post},
    };
    use narthex_infer::scripted::{Scripted, say};
    use serde_json::json;
    use std::time::Duration;

    #[tokio::test]
    async fn answers_under_way_keep_their_model() {
        let says = |text: &'static str| {
            let tokens = byte_tokens(text.as_bytes());
            Arc::new(Scripted::new(move |request| say(request, &tokens)).delay(Duration::from_millis(10)))
        };
        let old = says("old old old");
        let serving = Arc::new(Serving::new(testing::model_of(old.clone())));
        let router = crate::router(Models::of(serving.clone()), &ServeOptions::default()).unwrap();
        let body = json!({"model": "m", "prompt": "x", "max_tokens": 50});
        let (first, second) = (router.clone(), router.clone());
        let asked = body.clone();
        let under_way = tokio::spawn(async move { post(&first, "/v1/completions", &asked).await.json(200) });
        while old.requests().is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut new = testing::model_of(says("new"));
        new.provenance.digest = Some("fedcba9876543210".into());
        serving.replace(new);
        let weak = Arc::downgrade(&old);
        drop(old);
        let answer = post(&second, "/v1/completions", &body).await.json(200);
        assert_eq!(
            (&answer["choices"][0]["text"], &answer["system_fingerprint"]),
            (&json!("new"), &json!("fp_fedcba987654"))
        );
        let answer = under_way.await.unwrap();
        assert_eq!(answer["choices"][0]["text"], "old old old");
        assert_eq!(answer["system_fingerprint"], "fp_0123456789ab");
        assert_eq!(serving.stats().generation_tokens_total, 16);
        assert!(weak.upgrade().is_none(), "nobody holds the model that was replaced");
        let page = get(&router, "/metrics").await.text(200);
        assert!(page.contains("vllm:generation_tokens_total{model_name=\"m\",engine=\"0\"} 16"), "{page}");
    }
}
