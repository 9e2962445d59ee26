//! The logs of a run and of those below it, read from the store. Knows how runs hang together; makes no spans.

use super::inner::Inner;
use crate::{
    agents::AgentError,
    event::{Event, Parent, Stamped},
    spans::RunLog,
};
use std::collections::VecDeque;

/// Runs of one tree that are read.
const RUNS_MAX: usize = 1000;
/// Agents above a run; more than may ask each other, so that a damaged store ends the search.
const ABOVE_MAX: usize = 16;

impl Inner {
    pub(super) async fn trace(
        &self,
        tenant: &str,
        run: &str,
        below: bool,
    ) -> Result<(String, Vec<RunLog>), AgentError> {
        let mut open = VecDeque::from([run.to_string()]);
        let mut logs: Vec<RunLog> = Vec::new();
        while let Some(run) = open.pop_front() {
            let events = match self.events(tenant, &run).await {
                // One that was announced need not have begun.
                Err(AgentError::Unknown(_)) if !logs.is_empty() => continue,
                other => other?,
            };
            if below {
                open.extend(children(&events));
                open.truncate(RUNS_MAX.saturating_sub(logs.len()));
            }
            logs.push(RunLog { run, events });
        }
        let mut root = run.to_string();
        let mut above = logs.first().and_then(|log| parent(&log.events));
        for _ in 0..ABOVE_MAX {
            let Some(run) = above else { break };
            above = parent(&self.events(tenant, &run).await?);
            root = run;
        }
        Ok((root, logs))
    }
}

/// The run that a run was made for. A copy is made for nobody.
fn parent(events: &[Stamped]) -> Option<String> {
    match &events.first()?.event {
        Event::Created(created) if !events.iter().any(is_fork) => {
            created.parent.as_ref().map(|Parent { run, .. }| run.clone())
        }
        _ => None,
    }
}

/// The runs that a run asked for itself: not those that it has from the run it is a copy of.
fn children(events: &[Stamped]) -> Vec<String> {
    let own = events.iter().rposition(is_fork).map_or(0, |at| at + 1);
    let child = |stamped: &Stamped| match &stamped.event {
        Event::Delegated { child, .. } => Some(child.clone()),
        _ => None,
    };
    events[own..].iter().filter_map(child).collect()
}

fn is_fork(stamped: &Stamped) -> bool {
    matches!(stamped.event, Event::Forked { .. })
}
