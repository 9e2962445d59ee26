//! What all parts of the runner share: the agents, the store, the runs that this process works on, and those who follow
//! them.

use super::surroundings::Surroundings;
use crate::{
    agents::{AgentError, Page, RunEvent, RunFilter, RunView},
    event::{Event, Stamped},
    judge::Judge,
    kit::{Agent, Maker},
    load::load,
    policy::Policy,
    state::State,
    step::step,
    store::{Append, Lease, Standing, Store, StoreError},
};
use futures::future::BoxFuture;
use narthex_base::Result;
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, broadcast},
    task::AbortHandle,
};

/// Times that an answer is tried again because somebody else wrote first.
const CONFLICTS_MAX: usize = 100;
/// Pieces of answers that a slow follower may be behind before it misses some.
const PIECES_MAX: usize = 256;
/// Agents that may stand above a run.
const DEPTH_MAX: usize = 4;

/// What followers hear at once.
#[derive(Clone, Debug)]
pub(super) enum Heard {
    /// There is something new in the store.
    Changed,
    /// A piece of the answer to the run's request of this number.
    Said { asked: u32, event: Box<RunEvent> },
    /// How far a call is.
    Progress { call: String, event: Box<RunEvent> },
}

/// Works on a run until it ends or waits: given from above, since it needs all that is here.
pub(super) type Drive =
    for<'a> fn(&'a Arc<Inner>, &'a str, &'a str, &'a Arc<Notify>) -> BoxFuture<'a, Result<(), String>>;

/// A run that this process works on.
#[derive(Clone)]
struct AtWork {
    /// Told that somebody else wrote.
    notify: Arc<Notify>,
    /// Whether it was told since it looked last.
    again: Arc<AtomicBool>,
    task: Option<AbortHandle>,
}

pub(super) struct Inner {
    pub(super) agents: Vec<Arc<Agent>>,
    pub(super) maker: Maker,
    pub(super) surroundings: Surroundings,
    runtime: Handle,
    pub(super) turns: Arc<Semaphore>,
    at_work: Mutex<HashMap<String, AtWork>>,
    followers: Mutex<HashMap<String, broadcast::Sender<Heard>>>,
    stopped: AtomicBool,
    drive: Drive,
}

impl Inner {
    pub(super) fn new(
        agents: Vec<Arc<Agent>>,
        maker: Maker,
        surroundings: Surroundings,
        runtime: Handle,
        at_work_max: usize,
        drive: Drive,
    ) -> Self {
        Self {
            agents,
            maker,
            surroundings,
            runtime,
            turns: Arc::new(Semaphore::new(at_work_max)),
            at_work: Mutex::default(),
            followers: Mutex::default(),
            stopped: AtomicBool::new(false),
            drive,
        }
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.maker.store
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.surroundings.clock.now_ms()
    }

    pub(super) fn agent(&self, name: &str) -> Option<&Arc<Agent>> {
        self.agents.iter().find(|agent| agent.name == name)
    }

    /// The agent that a run began with, as far as it is still to be had.
    pub(super) fn agent_of(&self, state: &State) -> Result<Arc<Agent>> {
        match self.agent(&state.created.agent) {
            Some(agent) if agent.definition == *state.definition() => Ok(agent.clone()),
            _ => self.maker.agent(&state.created.agent, state.definition(), true).map(Arc::new),
        }
    }

    /// The policies that a run's calls must please: its own, those of the agents above it, and what the project says of
    /// the agent now, so that what was forbidden since is forbidden.
    pub(super) fn policies(&self, state: &State, agent: &Agent) -> Result<Vec<Policy>> {
        let mut policies = vec![agent.policy.clone()];
        for guard in &state.created.guards {
            policies.push(Policy::compile(guard)?);
        }
        if let Some(now) = self.agent(&state.created.agent)
            && now.definition.policy != agent.definition.policy
        {
            policies.push(now.policy.clone());
        }
        Ok(policies)
    }

    /// What a run's calls are judged by.
    pub(super) fn judge<'a>(state: &State, agent: &'a Agent, policies: &'a [Policy]) -> Judge<'a> {
        Judge { tools: &agent.tools, policies, may_delegate: state.created.guards.len() < DEPTH_MAX }
    }

    pub(super) async fn load(&self, tenant: &str, run: &str) -> Result<State, AgentError> {
        let step = load(self.store(), tenant, run).await?;
        step.map(|step| step.state).ok_or_else(|| no_run(run))
    }

    pub(super) async fn events(&self, tenant: &str, run: &str) -> Result<Vec<Stamped>, AgentError> {
        let mut events = Vec::new();
        loop {
            let more = self.store().events(tenant, run, events.len() as u64).await?;
            if more.is_empty() {
                return if events.is_empty() { Err(no_run(run)) } else { Ok(events) };
            }
            events.extend(more);
        }
    }

    pub(super) async fn view(&self, tenant: &str, run: &str) -> Result<RunView, AgentError> {
        Ok(view(&self.load(tenant, run).await?))
    }

    pub(super) async fn views(&self, tenant: &str, filter: RunFilter, page: Page) -> Result<Vec<RunView>, AgentError> {
        let mut views = Vec::new();
        for row in self.store().rows(tenant, filter, page).await? {
            views.push(self.view(tenant, &row.run).await?);
        }
        Ok(views)
    }

    /// Keeps an event of a run and gives the state after it.
    pub(super) async fn append(&self, state: State, event: Event, lease: Option<&Lease>) -> Result<State, StoreError> {
        let stamped = Stamped { at_ms: self.now_ms(), event };
        let next = step(state, &stamped).state;
        self.keep(&next, vec![stamped], lease).await?;
        Ok(next)
    }

    /// Keeps the events that led to a state, all or none.
    pub(super) async fn keep(
        &self,
        next: &State,
        stamped: Vec<Stamped>,
        lease: Option<&Lease>,
    ) -> Result<(), StoreError> {
        let append = Append {
            run: next.run.clone(),
            number: next.events + 1 - stamped.len() as u64,
            stamped,
            standing: standing(next),
            lease: lease.cloned(),
        };
        self.store().append(append).await?;
        self.hear(&next.run, || Heard::Changed);
        Ok(())
    }

    /// Keeps an event that comes from outside: what it is depends on the state, which may change meanwhile. Gives the
    /// state after it, or as it is if there was nothing to keep.
    pub(super) async fn append_outside(
        &self,
        tenant: &str,
        run: &str,
        event: impl Fn(&State) -> Result<Option<Event>, AgentError>,
    ) -> Result<State, AgentError> {
        for _ in 0..CONFLICTS_MAX {
            let state = self.load(tenant, run).await?;
            let Some(event) = event(&state)? else { return Ok(state) };
            match self.append(state, event, None).await {
                Err(StoreError::Conflict) => continue,
                result => return Ok(result?),
            }
        }
        Err(AgentError::Busy(format!("the run {run} changes too fast: try again")))
    }

    /// Tells those who follow a run.
    pub(super) fn hear(&self, run: &str, heard: impl FnOnce() -> Heard) {
        let mut followers = lock(&self.followers);
        if let Some(sender) = followers.get(run)
            && sender.send(heard()).is_err()
        {
            followers.remove(run);
        }
    }

    /// Listens to a run.
    pub(super) fn listen(&self, run: &str) -> broadcast::Receiver<Heard> {
        let mut followers = lock(&self.followers);
        followers.retain(|_, sender| sender.receiver_count() > 0);
        followers.entry(run.to_string()).or_insert_with(|| broadcast::channel(PIECES_MAX).0).subscribe()
    }

    /// Works on a run if nobody does, or tells whoever does that something is new.
    pub(super) fn wake(self: &Arc<Self>, tenant: &str, run: &str) {
        let mut at_work = lock(&self.at_work);
        if self.stopped.load(Ordering::Acquire) {
            return;
        }
        if let Some(work) = at_work.get(run) {
            work.again.store(true, Ordering::Release);
            work.notify.notify_one();
            return;
        }
        let work = AtWork { notify: Arc::default(), again: Arc::default(), task: None };
        let (inner, tenant, name) = (self.clone(), tenant.to_string(), run.to_string());
        let notify = work.notify.clone();
        let task = self.runtime.spawn(async move { inner.work(&tenant, &name, &notify).await });
        at_work.insert(run.to_string(), AtWork { task: Some(task.abort_handle()), ..work });
    }

    async fn work(self: &Arc<Self>, tenant: &str, run: &str, notify: &Arc<Notify>) {
        loop {
            if let Ok(_turn) = self.turns.clone().acquire_owned().await
                && let Err(why) = (self.drive)(self, tenant, run, notify).await
            {
                (self.surroundings.warn)(format!("the run {run} is left as it is: {why}"));
                lock(&self.at_work).remove(run);
                // Whoever follows must look for himself.
                self.hear(run, || Heard::Changed);
                return;
            }
            let mut at_work = lock(&self.at_work);
            match at_work.get(run) {
                Some(work) if work.again.swap(false, Ordering::AcqRel) => {}
                _ => {
                    at_work.remove(run);
                    return;
                }
            }
        }
    }

    pub(super) async fn sweep(self: &Arc<Self>, count: usize) -> Result<usize, StoreError> {
        let due = self.store().due(&self.surroundings.owner, self.now_ms(), count).await?;
        for (tenant, run) in &due {
            self.wake(tenant, run);
        }
        Ok(due.len())
    }

    pub(super) fn at_work(&self) -> usize {
        lock(&self.at_work).len()
    }

    pub(super) fn stop(&self) {
        let at_work = lock(&self.at_work);
        self.stopped.store(true, Ordering::Release);
        at_work.values().filter_map(|work| work.task.as_ref()).for_each(AbortHandle::abort);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn no_run(run: &str) -> AgentError {
    AgentError::Unknown(format!("there is no run `{run}`"))
}

/// What a row says of a run.
pub(super) fn standing(state: &State) -> Standing {
    Standing { status: state.status(), told: state.told, wake_at_ms: state.wake_at_ms() }
}

/// A run as others see it.
pub(super) fn view(state: &State) -> RunView {
    let outcome = state.outcome.as_ref();
    RunView {
        id: state.run.clone(),
        thread: state.created.thread.clone(),
        agent: state.created.agent.clone(),
        status: state.status(),
        interrupts: state.interrupts(),
        messages: state.own_messages(),
        output: outcome.and_then(|outcome| outcome.output.clone()),
        reason: outcome.and_then(|outcome| outcome.reason.clone()),
        started_ms: state.started_ms,
        changed_ms: state.changed_ms,
        last_event: state.told,
        metadata: state.created.metadata.clone(),
    }
}
