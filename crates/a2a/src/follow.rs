//! A run followed to its end, through its waits: for a caller who waits, for a stream, for push notifications. Knows
//! runs and updates, no request.

use crate::{task, updates::Updates};
use a2a::{A2AError, StreamResponse};
use futures::{StreamExt, stream::BoxStream};
use narthex_agent::{AgentError, Agents, RunEventKind, RunStatus, RunView};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, mpsc},
    time::{Instant, sleep, timeout_at},
};

/// Updates that may wait for a slow reader before the run is read on.
const UPDATES_WAITING: usize = 64;

/// How long a run that neither works nor ends is left alone before it is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What is followed, and with what.
#[derive(Clone)]
pub(crate) struct Followed {
    pub agents: Arc<dyn Agents>,
    pub tenant: String,
    pub run: String,
    /// What the caller calls the thread.
    pub context: String,
    /// Rung when something was answered or cancelled here.
    pub bell: Arc<Notify>,
    /// How often a waiting run is looked at for answers that came another way.
    pub look_again: Duration,
}

/// An update with the number of the last kept event that it follows from.
pub(crate) struct Told {
    pub cursor: u64,
    pub update: StreamResponse,
}

impl Followed {
    pub(crate) async fn view(&self) -> Result<RunView, AgentError> {
        let view = self.agents.run(&self.tenant, &self.run).await?;
        Ok(RunView { thread: self.context.clone(), ..view })
    }

    /// The run when it has ended or waits, or as it is at the deadline.
    pub(crate) async fn settled(&self, deadline: Instant) -> Result<RunView, AgentError> {
        loop {
            let view = self.view().await?;
            if view.status != RunStatus::Running {
                return Ok(view);
            }
            let mut events = self.agents.follow(&self.tenant, &self.run, view.last_event);
            let ended = async {
                while let Some(event) = events.next().await {
                    event?;
                }
                Ok::<_, AgentError>(())
            };
            match timeout_at(deadline, ended).await {
                Ok(outcome) => outcome?,
                Err(_) => return self.view().await,
            }
            if Instant::now() >= deadline {
                return self.view().await;
            }
            if self.view().await?.status == RunStatus::Running {
                sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Sends what happens after an event, until the end, or until the run waits if `until_pause`. Returns when the
    /// reader has gone, too. Whatever `updates` holds back is told at the end, so that nothing is lost or told twice.
    pub(crate) async fn tell(
        &self,
        mut after: u64,
        mut updates: Updates,
        until_pause: bool,
        sender: &mpsc::Sender<Result<Told, A2AError>>,
    ) -> Result<(), AgentError> {
        let mut told_waiting: Option<Vec<String>> = None;
        loop {
            // Armed before the run is looked at: a bell in between is not missed.
            let rung = self.bell.notified();
            let before = after;
            let mut events = self.agents.follow(&self.tenant, &self.run, after);
            while let Some(event) = events.next().await {
                let event = event?;
                after = after.max(event.number);
                if matches!(event.kind, RunEventKind::Working) {
                    told_waiting = None;
                }
                for update in updates.tell(&event) {
                    if sender.send(Ok(Told { cursor: after, update })).await.is_err() {
                        return Ok(());
                    }
                }
            }
            drop(events);
            let view = self.view().await?;
            if view.status.is_final() && view.last_event > after && after > before {
                continue;
            }
            if view.status.is_final() {
                for update in updates.end(&view) {
                    if sender.send(Ok(Told { cursor: after, update })).await.is_err() {
                        return Ok(());
                    }
                }
                return Ok(());
            }
            if view.status == RunStatus::Running {
                sleep(ASK_AGAIN).await;
                continue;
            }
            let waiting: Vec<String> = view.interrupts.iter().map(|interrupt| interrupt.id.clone()).collect();
            if told_waiting.as_ref() != Some(&waiting) {
                let update = updates.pause(&view);
                told_waiting = Some(waiting);
                if sender.send(Ok(Told { cursor: after, update })).await.is_err() {
                    return Ok(());
                }
            }
            if until_pause {
                return Ok(());
            }
            tokio::select! {
                () = rung => {}
                () = sleep(self.look_again) => {}
            }
        }
    }

    /// A stream that begins with `first`. The permit is given back when the reader goes.
    pub(crate) fn stream(
        self,
        first: StreamResponse,
        after: u64,
        updates: Updates,
        until_pause: bool,
        permit: OwnedSemaphorePermit,
    ) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let (sender, receiver) = mpsc::channel(UPDATES_WAITING);
        tokio::spawn(async move {
            let told = async {
                let cursor = after;
                if sender.send(Ok(Told { cursor, update: first })).await.is_ok()
                    && let Err(error) = self.tell(after, updates, until_pause, &sender).await
                {
                    // A reader who has gone sees no error.
                    _ = sender.send(Err(failed(&self.run, &error))).await;
                }
            };
            // A run that works for hours must not be followed for a reader who has gone.
            tokio::select! {
                () = told => {}
                () = sender.closed() => {}
            }
            drop(permit);
        });
        let updates = futures::stream::unfold(receiver, async |mut receiver| {
            let told = receiver.recv().await?;
            Some((told.map(|told| told.update), receiver))
        });
        Box::pin(updates)
    }
}

/// An error of the agents about a run, in A2A's words.
pub(crate) fn failed(run: &str, error: &AgentError) -> A2AError {
    match error {
        AgentError::Unknown(_) => A2AError::task_not_found(run),
        AgentError::Ended(_) => A2AError::unsupported_operation("the task has ended"),
        AgentError::Input(why) => A2AError::invalid_params(why),
        AgentError::Refused(why) => A2AError::unsupported_operation(why),
        AgentError::Busy(why) => A2AError::internal(format!("busy, try again later: {why}")),
        // What went wrong inside is told to whoever runs the server.
        AgentError::Failed(_) => A2AError::internal("the agent failed; whoever runs the server has been told why"),
    }
}

/// The task that a stream begins with.
pub(crate) fn snapshot(task: a2a::Task) -> StreamResponse {
    StreamResponse::Task(task)
}

/// Whether pieces of the answer may be told while they come.
pub(crate) fn tells_pieces(agents: &dyn Agents, agent: &str) -> bool {
    agents.list().iter().any(|view| view.name == agent && view.output.is_none())
}

/// The state of a run that was just begun or answered.
pub(crate) fn under_way(
    mut view: RunView,
    exchanges: &[crate::store::Exchange],
    history_length: Option<usize>,
) -> a2a::Task {
    view.status = RunStatus::Running;
    view.interrupts.clear();
    task::task(&view, exchanges, history_length, true)
}
