//! The model that answers, which may be replaced while the server runs: requests under way keep the one they began
//! with.

use crate::Served;
use narthex_infer::{EngineStats, StatsReader};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// The model that answers new requests, and what is left of those before it.
pub struct Serving {
    state: Mutex<State>,
}

struct State {
    model: Arc<Served>,
    former: Vec<Former>,
    /// Counters of models that are gone.
    past: EngineStats,
}

/// A model that answers what it has begun.
struct Former {
    model: Weak<Served>,
    stats: StatsReader,
}

impl Serving {
    /// Answers with this model.
    pub fn new(model: Served) -> Self {
        let model = Arc::new(model);
        Self { state: Mutex::new(State { model, former: vec![], past: EngineStats::default() }) }
    }

    /// The model for a new request. Whoever holds it keeps it alive.
    pub fn model(&self) -> Arc<Served> {
        self.lock().model.clone()
    }

    /// New requests go to this model from now on; the one before ends with its last answer.
    pub fn replace(&self, model: Served) {
        let mut state = self.lock();
        let before = std::mem::replace(&mut state.model, Arc::new(model));
        state.former.push(Former { model: Arc::downgrade(&before), stats: before.ability.stats_reader() });
        drop(state);
        // The last holder ends the engine; if that is us, then without anybody waiting.
        drop(before);
    }

    /// Counters of all models so far, and the gauges of those that still answer. The cache is that of the newest.
    pub fn stats(&self) -> EngineStats {
        let mut state = self.lock();
        let State { model, former, past } = &mut *state;
        let mut stats = model.ability.stats_reader()();
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
        ServeOptions,
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
        let router = crate::router(serving.clone(), &ServeOptions::default()).unwrap();
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
