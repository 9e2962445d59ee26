//! What a run did and does, for those who look on: read from the store, so that it is the same whoever asks and however
//! often the line is cut; pieces of answers under way come in between.

use super::inner::{Heard, Inner, no_run};
use crate::{
    agents::{AgentError, RunEvent, RunEventKind, RunStatus},
    event::Event,
    load::earlier,
    state::{CallState, Phase, State},
    step::step,
};
use futures::stream::{self, BoxStream};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::broadcast;

/// The store is asked this often whether another process did something.
const POLL_MS: u64 = 500;

struct Following {
    inner: Arc<Inner>,
    tenant: String,
    run: String,
    /// Events up to this number are known already.
    after: u64,
    state: Option<State>,
    heard: broadcast::Receiver<Heard>,
    ready: VecDeque<Result<RunEvent, AgentError>>,
    over: bool,
    /// Whether the store may hold more.
    look: bool,
}

/// The events of a run after a number, until it ends or waits.
pub(super) fn follow(
    inner: Arc<Inner>,
    tenant: String,
    run: String,
    after: u64,
) -> BoxStream<'static, Result<RunEvent, AgentError>> {
    let heard = inner.listen(&run);
    let ready = VecDeque::new();
    let following = Following { inner, tenant, run, after, state: None, heard, ready, over: false, look: true };
    Box::pin(stream::unfold(following, |mut following| async move {
        let next = following.next().await?;
        Some((next, following))
    }))
}

impl Following {
    async fn next(&mut self) -> Option<Result<RunEvent, AgentError>> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            if self.over {
                return None;
            }
            if self.look {
                if let Err(error) = self.look().await {
                    self.over = true;
                    return Some(Err(error));
                }
                continue;
            }
            self.look = self.hear().await;
        }
    }

    /// Reads what is new. The run is over for those who look on when it has ended or waits.
    async fn look(&mut self) -> Result<(), AgentError> {
        let known = self.state.as_ref().map_or(0, |state| state.events);
        let events = self.inner.store().events(&self.tenant, &self.run, known).await?;
        for stamped in &events {
            let state = match (self.state.take(), &stamped.event) {
                (Some(state), _) => state,
                (None, Event::Created(created)) => {
                    let before = earlier(self.inner.store(), &self.tenant, created.follows.clone()).await?;
                    State::new(&self.run, &self.tenant, before)
                }
                (None, _) => return Err(AgentError::Failed("the run does not begin with its beginning".into())),
            };
            let told_before = state.told;
            let step = step(state, stamped);
            for (number, kind) in (told_before + 1..).zip(step.told) {
                if number > self.after {
                    self.ready.push_back(Ok(RunEvent { number, at_ms: stamped.at_ms, kind }));
                }
            }
            self.state = Some(step.state);
        }
        self.look = !events.is_empty();
        match &self.state {
            None => return Err(no_run(&self.run)),
            Some(state) => self.over = !self.look && state.status() != RunStatus::Running,
        }
        Ok(())
    }

    /// Waits for something; true if the store must be asked what.
    async fn hear(&mut self) -> bool {
        let clock = &self.inner.surroundings.clock;
        let heard = tokio::select! {
            biased;
            heard = self.heard.recv() => heard,
            () = clock.alarm(clock.now_ms() + POLL_MS) => return true,
        };
        match heard {
            Ok(Heard::Changed) | Err(broadcast::error::RecvError::Lagged(_)) => true,
            Ok(Heard::Said { asked, event }) => {
                // A piece of an answer that was read whole already comes too late.
                let fits = |state: &State| state.asking.under_way.is_some() && state.used.model_calls == asked;
                self.take(fits, *event)
            }
            Ok(Heard::Progress { call, event }) => {
                let fits =
                    |state: &State| matches!(state.call(&call), Some(CallState { phase: Phase::Started { .. }, .. }));
                self.take(fits, *event)
            }
            Err(broadcast::error::RecvError::Closed) => {
                self.heard = self.inner.listen(&self.run);
                true
            }
        }
    }

    fn take(&mut self, fits: impl Fn(&State) -> bool, event: RunEvent) -> bool {
        debug_assert!(matches!(event.kind, RunEventKind::Said { .. } | RunEventKind::ToolProgress { .. }));
        if self.state.as_ref().is_some_and(fits) {
            self.ready.push_back(Ok(event));
        }
        false
    }
}
