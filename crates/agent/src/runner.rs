//! Agents that run: the loop's actions carried out, each after the event that says so is kept. A run that waits is rows
//! and nothing else; one that works is a task that holds a lease. Knows no protocol and no kind of model or tool.

mod answer;
mod children;
mod drive;
mod follow;
mod fork;
mod inner;
mod start;
mod surroundings;
mod trace;
mod work;

use crate::{
    agents::{AgentError, AgentView, Agents, Answer, Ask, Page, RunEvent, RunFilter, RunView},
    definition::AgentDefinition,
    event::{Edit, Stamped},
    kit::{Kit, Maker},
    spans::{RunLog, SERVICE, otlp, spans},
    store::{Store, StoreError},
};
use futures::{future::BoxFuture, stream::BoxStream};
use inner::Inner;
use narthex_base::{Error, Result};
use serde_json::Value;
use std::{future::Future, sync::Arc};

pub use surroundings::{NewId, Still, Surroundings};

/// Runs that one process works on at once; further ones wait for their turn.
const RUNS_AT_WORK_MAX: usize = 256;
/// Runs that a sweep takes up at once; the next takes the others.
const SWEPT_MAX: usize = 1000;
/// Milliseconds between two looks whether runs were given back, and for all looks.
const SETTLE_MS: u64 = 2;
const SETTLE_MS_MAX: u64 = 5_000;
/// Between two sweeps.
const SWEEP_MS: u64 = 5000;

/// Agents over a store. Dropping it stops all of its work, as a crash would: nothing is lost, and whoever opens the
/// store next goes on.
pub struct Runner {
    inner: Arc<Inner>,
}

impl Runner {
    /// Makes agents ready, in the order of the project file. Must be called within a Tokio runtime, whose tasks the
    /// runs become. Takes up no run: see [`Runner::resume_all`].
    ///
    /// # Errors
    /// What is wrong with which agent: a name that nobody has, a pattern or a schema that cannot be read.
    pub fn new(
        agents: Vec<(String, AgentDefinition)>,
        kit: Kit,
        store: Arc<dyn Store>,
        surroundings: Surroundings,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|error| Error::internal("a runner needs a runtime").cause(error))?;
        let others = agents.iter().map(|(name, agent)| (name.clone(), agent.description.clone())).collect();
        let maker = Maker { kit, others, store, clock: surroundings.clock.clone() };
        let ready = maker.all(&agents)?;
        Ok(Self { inner: Arc::new(Inner::new(ready, maker, surroundings, runtime, RUNS_AT_WORK_MAX, drive::drive)) })
    }

    /// Takes up the runs that nobody works on: those that a process left, and those whose questions have lapsed.
    /// Returns how many.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn resume_all(&self) -> Result<usize, StoreError> {
        self.inner.sweep(SWEPT_MAX).await
    }

    /// Takes up runs from time to time until it is dropped: what [`Runner::resume_all`] does, again and again.
    pub fn keep_resuming(&self) -> impl Future<Output = ()> + Send + use<> {
        let (inner, clock) = (Arc::downgrade(&self.inner), self.inner.surroundings.clock.clone());
        async move {
            while let Some(inner) = inner.upgrade() {
                if let Err(error) = inner.sweep(SWEPT_MAX).await {
                    (inner.surroundings.warn)(format!("cannot look for runs to take up: {error}"));
                }
                drop(inner);
                clock.alarm(clock.now_ms() + SWEEP_MS).await;
            }
        }
    }

    /// Every step of a run.
    ///
    /// # Errors
    /// [`AgentError::Unknown`] if the tenant has no such run.
    pub async fn show(&self, tenant: &str, run: &str) -> Result<Vec<Stamped>, AgentError> {
        self.inner.events(tenant, run).await
    }

    /// A run with those below it, and the run at the top of the tree that it is part of: what
    /// [`crate::spans()`] wants. Without `below`, it alone.
    ///
    /// # Errors
    /// [`AgentError::Unknown`] if the tenant has no such run.
    pub async fn trace(&self, tenant: &str, run: &str, below: bool) -> Result<(String, Vec<RunLog>), AgentError> {
        self.inner.trace(tenant, run, below).await
    }

    /// Begins a run as a copy of another up to one of its steps, perhaps with a message changed, and lets it go on from
    /// there. The other run stays as it is, and none of its approvals comes along. Returns the new run's id.
    ///
    /// # Errors
    /// [`AgentError::Unknown`] if the tenant has no such run, [`AgentError::Input`] if it has no such step or message.
    pub async fn fork(&self, tenant: &str, run: &str, at: u64, edit: Option<Edit>) -> Result<String, AgentError> {
        self.inner.fork(tenant, run, at, edit).await
    }

    /// Waits until this process works on no run any more and has given them back, so that another can take them up at
    /// once; a few seconds at most. To be called before the process ends.
    pub async fn settle(&self) {
        let clock = self.inner.surroundings.clock.clone();
        let end_ms = clock.now_ms() + SETTLE_MS_MAX;
        while self.at_work() > 0 && clock.now_ms() < end_ms {
            clock.alarm(clock.now_ms() + SETTLE_MS).await;
        }
    }

    /// How many runs this process works on now.
    pub fn at_work(&self) -> usize {
        self.inner.at_work()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.inner.stop();
    }
}

impl Agents for Runner {
    fn list(&self) -> Vec<AgentView> {
        self.inner.agents.iter().map(|agent| agent.view()).collect()
    }

    fn start(&self, ask: Ask) -> BoxFuture<'static, Result<String, AgentError>> {
        let inner = self.inner.clone();
        Box::pin(async move { inner.start(ask).await })
    }

    fn run(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let (inner, tenant, run) = (self.inner.clone(), tenant.to_string(), run.to_string());
        Box::pin(async move { inner.view(&tenant, &run).await })
    }

    fn follow(&self, tenant: &str, run: &str, after: u64) -> BoxStream<'static, Result<RunEvent, AgentError>> {
        follow::follow(self.inner.clone(), tenant.to_string(), run.to_string(), after)
    }

    fn runs(
        &self,
        tenant: &str,
        filter: RunFilter,
        page: Page,
    ) -> BoxFuture<'static, Result<Vec<RunView>, AgentError>> {
        let (inner, tenant) = (self.inner.clone(), tenant.to_string());
        Box::pin(async move { inner.views(&tenant, filter, page).await })
    }

    fn spans(&self, tenant: &str, run: &str, with_content: bool) -> BoxFuture<'static, Result<Value, AgentError>> {
        let (inner, tenant, run) = (self.inner.clone(), tenant.to_string(), run.to_string());
        Box::pin(async move {
            let (root, logs) = inner.trace(&tenant, &run, true).await?;
            let spans: Vec<_> = logs.iter().flat_map(|log| spans(&root, log, with_content)).collect();
            Ok(otlp(&spans, SERVICE))
        })
    }

    fn answer(
        &self,
        tenant: &str,
        run: &str,
        interrupt: &str,
        answer: Answer,
    ) -> BoxFuture<'static, Result<(), AgentError>> {
        let inner = self.inner.clone();
        let (tenant, run, question) = (tenant.to_string(), run.to_string(), interrupt.to_string());
        Box::pin(async move { inner.answer(&tenant, &run, &question, answer).await })
    }

    fn cancel(&self, tenant: &str, run: &str) -> BoxFuture<'static, Result<RunView, AgentError>> {
        let (inner, tenant, run) = (self.inner.clone(), tenant.to_string(), run.to_string());
        Box::pin(async move {
            inner.cancel(&tenant, &run).await?;
            inner.view(&tenant, &run).await
        })
    }
}
