//! Works on one run until it ends or waits: carries out what is due, keeps what comes of it, and holds the lease that
//! says that nobody else does.

use super::{
    children::news,
    inner::Inner,
    start::child_id,
    work::{self, Finished, Work},
};
use crate::{
    agents::RunStatus,
    canonical::{DEPTH_MAX, is_deeper},
    event::{Checked, Event, Purpose, Stamped},
    judge::{Act, number_calls},
    kit::Agent,
    load::load,
    model::{ModelAnswer, ModelFailure},
    policy::Policy,
    redact::Masker,
    result::{RESULT_BYTES_MAX, bounded},
    state::{CallState, Earlier, Phase, State},
    step::{Action, due, step},
    store::{Lease, StoreError},
    tool::{Call, ToolFailure, ToolResult},
    window::request,
};
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use narthex_base::{chat::Role, random::Stream};
use serde_json::Value;
use std::sync::Arc;
use tokio::sync::Notify;

/// How long a process that has died keeps others from its runs.
const LEASE_MS: u64 = 30_000;
/// A lease is made longer this often.
const RENEW_MS: u64 = 10_000;
/// The store is asked this often whether another process wrote an answer.
const POLL_MS: u64 = 500;
/// Waits that a model asks for are cut to this.
const ASKED_WAIT_MS_MAX: u64 = 600_000;
/// Events that are kept in one write.
const EVENTS_AT_ONCE_MAX: usize = 64;
/// A longer answer of a model is no answer.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Why work on a run stopped before it ended or waits.
enum Stop {
    /// Another process has it.
    Lost,
    /// Something of ours failed.
    Failed(String),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Lost => Self::Lost,
            other => Self::Failed(other.to_string()),
        }
    }
}

struct Drive<'a> {
    inner: &'a Arc<Inner>,
    notify: &'a Arc<Notify>,
    lease: Lease,
    renew_at_ms: u64,
    state: State,
    agent: Arc<Agent>,
    policies: Vec<Policy>,
    under_way: FuturesUnordered<Work>,
    pausing: bool,
}

/// Works on a run, if no other process does, until it ends or waits.
///
/// # Errors
/// Why it was left before that.
pub(super) fn drive<'a>(
    inner: &'a Arc<Inner>,
    tenant: &'a str,
    run: &'a str,
    notify: &'a Arc<Notify>,
) -> BoxFuture<'a, Result<(), String>> {
    Box::pin(async move {
        let failed = |error: StoreError| error.to_string();
        let owner = &inner.surroundings.owner;
        let given_up_ms = inner.now_ms() + LEASE_MS + RENEW_MS;
        let (lease, now_ms) = loop {
            let now_ms = inner.now_ms();
            if let Some(lease) = inner.store().lease(run, owner, now_ms, now_ms + LEASE_MS).await.map_err(failed)? {
                break (lease, now_ms);
            }
            // A process that ended without giving the run back holds it for a while: whoever answered a question then
            // would wait for nobody. One that lives goes on by itself.
            let state = load(inner.store(), tenant, run).await.map_err(failed)?.map(|step| step.state);
            if now_ms >= given_up_ms || state.is_none_or(|state| due(&state).is_empty()) {
                return Ok(());
            }
            tokio::select! {
                () = notify.notified() => {}
                () = inner.surroundings.clock.alarm(now_ms + POLL_MS) => {}
            }
        };
        let step = load(inner.store(), tenant, run).await.map_err(failed)?;
        let state = step.ok_or_else(|| format!("there is no run `{run}`"))?.state;
        let agent = inner.agent_of(&state).map_err(|error| error.to_string())?;
        let policies = inner.policies(&state, &agent).map_err(|error| error.to_string())?;
        let renew_at_ms = now_ms + RENEW_MS;
        let under_way = FuturesUnordered::new();
        let mut drive = Drive { inner, notify, lease, renew_at_ms, state, agent, policies, under_way, pausing: false };
        match drive.go().await {
            Ok(()) => {
                (inner.surroundings.still)(tenant, run);
                inner.report(&drive.state).await.map_err(|error| error.to_string())
            }
            Err(Stop::Lost) => Ok(()),
            Err(Stop::Failed(why)) => Err(why),
        }
    })
}

impl Drive<'_> {
    async fn go(&mut self) -> Result<(), Stop> {
        let started = |call: &CallState| matches!(call.phase, Phase::Started { .. });
        if self.state.outcome.is_none()
            && (self.state.asking.under_way.is_some() || self.state.calls.iter().any(started))
        {
            self.append(Event::Resumed).await?;
        }
        self.look_after_children().await?;
        loop {
            let now_ms = self.inner.now_ms();
            if self.state.outcome.is_some() {
                // What is still under way is dropped, which cancels it.
                self.under_way.clear();
                if self.park().await? {
                    return Ok(());
                }
            } else if let Some(call) = self.state.lapsed(now_ms).map(str::to_string) {
                self.append(Event::Lapsed { call }).await?;
            } else if time_up_ms(&self.state).is_some_and(|at_ms| at_ms <= now_ms) {
                self.append(Event::TimeUp).await?;
            } else if let Some(action) = self.next_action(&self.state) {
                self.begin(action, now_ms).await?;
            } else if !self.under_way.is_empty() {
                self.wait(now_ms).await?;
            } else if self.park().await? {
                return Ok(());
            }
        }
    }

    fn next_action(&self, state: &State) -> Option<Action> {
        due(state).into_iter().find(|action| !(self.pausing && matches!(action, Action::Ask { .. })))
    }

    /// Keeps an event, and with it those of what is to be done next, which is under way then: one write, where the disk
    /// takes longer than all else of a step. False if somebody else wrote first, and the state is what it is then.
    async fn append(&mut self, event: Event) -> Result<bool, Stop> {
        self.append_with(event, None).await
    }

    async fn append_with(&mut self, event: Event, work: Option<Work>) -> Result<bool, Stop> {
        let state = std::mem::replace(&mut self.state, State::new("", "", Earlier::default()));
        let (tenant, run) = (state.tenant.clone(), state.run.clone());
        let (mut works, now_ms) = (Vec::from_iter(work), self.inner.now_ms());
        let mut events = vec![Stamped { at_ms: now_ms, event }];
        let mut next = step(state, &events[0]).state;
        while events.len() < EVENTS_AT_ONCE_MAX
            && next.outcome.is_none()
            && next.lapsed(now_ms).is_none()
            && time_up_ms(&next).is_none_or(|at_ms| at_ms > now_ms)
            && let Some(action) = self.next_action(&next)
            && let Ok(Some((event, work))) = self.prepare(&next, &action, now_ms)
        {
            let stamped = Stamped { at_ms: now_ms, event };
            next = step(next, &stamped).state;
            events.push(stamped);
            works.extend(work);
        }
        match self.inner.keep(&next, events, Some(&self.lease)).await {
            Ok(()) => {
                self.state = next;
                self.under_way.extend(works);
                Ok(true)
            }
            Err(StoreError::Conflict) => {
                self.reload(&tenant, &run).await?;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps what came of something for as long as the run still waits for it.
    async fn append_while(
        &mut self,
        awaited: impl Fn(&State) -> bool,
        event: impl Fn(&Self) -> Event,
    ) -> Result<(), Stop> {
        while self.state.outcome.is_none() && awaited(&self.state) {
            let event = event(self);
            if self.append(event).await? {
                break;
            }
        }
        Ok(())
    }

    async fn reload(&mut self, tenant: &str, run: &str) -> Result<(), Stop> {
        let step = load(self.inner.store(), tenant, run).await?;
        self.state = step.ok_or_else(|| Stop::Failed(format!("the run {run} is gone")))?.state;
        Ok(())
    }

    /// Reads again if somebody else wrote.
    async fn look(&mut self) -> Result<bool, Stop> {
        let (tenant, run) = (self.state.tenant.clone(), self.state.run.clone());
        let row = self.inner.store().row(&tenant, &run).await?;
        let changed = row.is_some_and(|row| row.events != self.state.events);
        if changed {
            self.reload(&tenant, &run).await?;
        }
        Ok(changed)
    }

    /// Gives the run back; false if there is more to do after all.
    async fn park(&mut self) -> Result<bool, Stop> {
        if self.inner.store().release(&self.lease, self.state.events).await? {
            return Ok(true);
        }
        if self.look().await? { Ok(false) } else { Err(Stop::Lost) }
    }

    async fn wait(&mut self, now_ms: u64) -> Result<(), Stop> {
        enum Woken {
            Finished(Finished),
            Told,
            Late,
        }
        let times = [Some(now_ms + POLL_MS), Some(self.renew_at_ms), time_up_ms(&self.state)];
        let at_ms = times.into_iter().flatten().min().unwrap_or(now_ms);
        let woken = tokio::select! {
            biased;
            Some(finished) = self.under_way.next() => Woken::Finished(finished),
            () = self.notify.notified() => Woken::Told,
            () = self.inner.surroundings.clock.alarm(at_ms) => Woken::Late,
        };
        match woken {
            Woken::Finished(finished) => self.finish(finished).await?,
            Woken::Told => _ = self.look().await?,
            Woken::Late => _ = self.look().await?,
        }
        let now_ms = self.inner.now_ms();
        if now_ms >= self.renew_at_ms {
            self.renew_at_ms = now_ms + RENEW_MS;
            if !self.inner.store().renew(&self.lease, now_ms + LEASE_MS).await? {
                return Err(Stop::Lost);
            }
        }
        Ok(())
    }

    async fn begin(&mut self, action: Action, now_ms: u64) -> Result<(), Stop> {
        if let Some((event, work)) = self.prepare(&self.state, &action, now_ms)? {
            return self.append_with(event, work).await.map(drop);
        }
        match action {
            Action::Ask { not_before_ms, .. } => {
                self.pausing = true;
                self.under_way.push(work::pause(self.inner, not_before_ms.saturating_sub(now_ms)));
                Ok(())
            }
            Action::Delegate { call, agent } => self.delegate(&call, &agent).await,
            Action::Start { .. } => Ok(()),
        }
    }

    /// What masks what the run hears and says: as the run began, and as the project says now.
    fn masker(&self, state: &State) -> Masker {
        let now = self.inner.agent(&state.created.agent).map(|agent| agent.definition.redact.as_slice());
        Masker::new(&[state.definition().redact.as_slice(), now.unwrap_or_default()].concat())
    }

    /// The event that begins an action, and what is under way once that is kept; nothing for what takes more than that.
    fn prepare(&self, state: &State, action: &Action, now_ms: u64) -> Result<Option<(Event, Option<Work>)>, Stop> {
        Ok(match action {
            Action::Ask { not_before_ms, .. } if *not_before_ms > now_ms => None,
            Action::Ask { purpose, model, .. } => Some(self.ask(state, *purpose, *model)?),
            Action::Start { call } => self.start(state, call),
            Action::Delegate { .. } => None,
        })
    }

    fn ask(&self, state: &State, purpose: Purpose, index: usize) -> Result<(Event, Option<Work>), Stop> {
        let Some(model) = self.agent.models.get(index).cloned() else {
            return Err(Stop::Failed(format!("the agent {} has no model numbered {index}", self.agent.name)));
        };
        let name = state.definition().models().nth(index).unwrap_or_default().to_string();
        let request = request(state, purpose, &self.agent.tool_definitions());
        let work =
            work::ask(self.inner, &state.run, state.used.model_calls + 1, model, purpose, request, self.masker(state));
        Ok((Event::Asked { purpose, model: name }, Some(work)))
    }

    /// Starts a call, if its tool is still the one that it was judged by.
    fn start(&self, state: &State, id: &str) -> Option<(Event, Option<Work>)> {
        let CallState { judged, .. } = state.call(id)?.clone();
        let tool = match self.agent.tool(&judged.tool) {
            Some(equipped) if equipped.digest == judged.digest => match &equipped.act {
                Act::Call(tool) => Some(tool.clone()),
                Act::Delegate(_) => None,
            },
            _ => None,
        };
        let Some(tool) = tool else {
            let judge = Inner::judge(state, &self.agent, &self.policies);
            return Some((Event::Rejudged { call: judge.arguments(id, &judged.tool, judged.arguments) }, None));
        };
        let (run, tenant) = (state.run.clone(), state.tenant.clone());
        let call = Call { id: id.to_string(), run, tenant, arguments: judged.arguments };
        Some((Event::Started { call: id.to_string() }, Some(work::call(self.inner, tool, call, self.masker(state)))))
    }

    async fn delegate(&mut self, id: &str, agent: &str) -> Result<(), Stop> {
        let still = self.state.call(id).and_then(|call| {
            self.agent.tool(&call.judged.tool).filter(|equipped| equipped.digest == call.judged.digest)
        });
        if still.is_none() {
            let Some((event, work)) = self.start(&self.state, id) else { return Ok(()) };
            return self.append_with(event, work).await.map(drop);
        }
        let child = child_id(&self.state.run, id);
        if self.append(Event::Delegated { call: id.to_string(), child }).await? {
            self.look_after_child(id, agent).await?;
        }
        Ok(())
    }

    /// Begins the runs of other agents that were not begun, and hears how the others stand.
    async fn look_after_children(&mut self) -> Result<(), Stop> {
        if self.state.outcome.is_some() {
            return Ok(());
        }
        for call in self.state.calls.clone() {
            if let (Phase::Delegated { .. }, Some(agent)) = (&call.phase, &call.judged.delegate) {
                self.look_after_child(&call.judged.id, agent).await?;
            }
        }
        Ok(())
    }

    async fn look_after_child(&mut self, id: &str, agent: &str) -> Result<(), Stop> {
        let Some(call) = self.state.call(id) else { return Ok(()) };
        let task = call.judged.arguments.get("task").and_then(Value::as_str).unwrap_or_default().to_string();
        let child = child_id(&self.state.run, id);
        let tenant = self.state.tenant.clone();
        if self.inner.store().row(&tenant, &child).await?.is_none()
            && let Err(error) = self.inner.start_child(&self.state, id, agent, &task).await
        {
            let result = ToolResult::error(format!("the agent {agent} cannot be asked: {error}"));
            return self.append(Event::Done { call: id.to_string(), result }).await.map(drop);
        }
        let Some(child) = load(self.inner.store(), &tenant, &child).await? else { return Ok(()) };
        if let Some(event) = news(&self.state, &child.state) {
            self.append(event).await?;
        }
        if child.state.status() == RunStatus::Running {
            self.inner.wake(&tenant, &child.state.run);
        }
        Ok(())
    }

    async fn finish(&mut self, finished: Finished) -> Result<(), Stop> {
        match finished {
            Finished::Paused => {
                self.pausing = false;
                Ok(())
            }
            Finished::Model { purpose, result } => {
                let awaited = |state: &State| state.asking.under_way == Some(purpose);
                match usable(*result) {
                    Ok(answer) => self.append_while(awaited, |drive| drive.answered(purpose, answer.clone())).await,
                    Err(failure) => {
                        self.append_while(awaited, |drive| Event::NotAnswered {
                            failure: failure.clone(),
                            wait_ms: drive.wait_ms(&failure),
                        })
                        .await
                    }
                }
            }
            Finished::Tool { call, result } => {
                let result = bounded(result.unwrap_or_else(failed), RESULT_BYTES_MAX);
                let awaited =
                    |state: &State| matches!(state.call(&call), Some(CallState { phase: Phase::Started { .. }, .. }));
                self.append_while(awaited, |_| Event::Done { call: call.clone(), result: result.clone() }).await
            }
        }
    }

    /// The event of an answer: its calls numbered and judged, or its data read.
    fn answered(&self, purpose: Purpose, mut answer: ModelAnswer) -> Event {
        answer.message.role = Role::Assistant;
        if purpose != Purpose::Answer {
            answer.message.tool_calls.clear();
        }
        number_calls(&mut answer.message, &self.state);
        let judge = Inner::judge(&self.state, &self.agent, &self.policies);
        let calls: Vec<_> = answer.message.tool_calls.iter().map(|call| judge.call(call)).collect();
        let is_last = calls.is_empty() && !matches!(purpose, Purpose::Summary { .. });
        let text = answer.message.text();
        let output = self.agent.output.as_ref().filter(|_| is_last).map(|schema| {
            match read_data(&text).and_then(|value| schema.check(&value).map(|()| value)) {
                Ok(value) => Checked::Valid(value),
                Err(complaint) => Checked::Wrong(complaint),
            }
        });
        drop(text);
        Event::Answered { answer: Box::new(answer), calls, output }
    }

    /// Milliseconds to wait before a model is asked again: twice as long each time, less up to half of it by chance, so
    /// that many who were refused together do not come again together.
    fn wait_ms(&self, failure: &ModelFailure) -> u64 {
        let retry = &self.state.definition().retry;
        let doubled = retry.wait_ms.saturating_mul(1 << self.state.asking.failures.min(20)).min(retry.wait_ms_max);
        let chance = Stream::new(self.inner.surroundings.seed, &self.state.run).uniform_f64(self.state.events);
        let wait = (doubled as f64 * (1.0 - chance / 2.0)) as u64;
        failure.wait_ms.unwrap_or(0).min(ASKED_WAIT_MS_MAX).max(wait)
    }
}

/// When the limit of work is reached, if it works.
fn time_up_ms(state: &State) -> Option<u64> {
    let left_ms = state.definition().limits.wall_s.saturating_mul(1000).saturating_sub(state.used.worked_ms);
    (state.status() == RunStatus::Running).then(|| state.changed_ms.saturating_add(left_ms))
}

/// An answer that can be kept.
fn usable(result: Result<ModelAnswer, ModelFailure>) -> Result<ModelAnswer, ModelFailure> {
    let answer = result?;
    let value = serde_json::to_value(&answer.message).unwrap_or_default();
    let bytes = value.to_string().len();
    if bytes > ANSWER_BYTES_MAX || is_deeper(&value, DEPTH_MAX) {
        let limits = format!("{ANSWER_BYTES_MAX} bytes and {DEPTH_MAX} levels are the limit");
        let message = format!("the answer cannot be kept: {limits}, and it has {bytes} bytes");
        return Err(ModelFailure { message, passing: false, wait_ms: None });
    }
    Ok(answer)
}

fn failed(failure: ToolFailure) -> ToolResult {
    let effect = if failure.harmless { "it had no effect" } else { "whether it had an effect is not known" };
    ToolResult::error(format!("{}; {effect}", failure.message))
}

/// The data in an answer: models like to put a fence around it.
fn read_data(text: &str) -> Result<Value, String> {
    let text = text.trim();
    let inside = text.strip_prefix("```").and_then(|rest| rest.strip_suffix("```"));
    let bare = inside.map_or(text, |inside| inside.trim_start_matches("json").trim());
    let value = serde_json::from_str(bare).map_err(|error| format!("the answer is no JSON: {error}"))?;
    if is_deeper(&value, DEPTH_MAX) {
        return Err(format!("the answer is nested deeper than {DEPTH_MAX} levels"));
    }
    Ok(value)
}
