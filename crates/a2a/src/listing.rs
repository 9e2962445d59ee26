//! A page of an agent's tasks: the runs are looked through behind the last one that was given out, until the page is
//! full, all are seen, or enough were looked at. Knows runs and filters, no request's envelope.

use crate::{incoming::ID_BYTES_MAX, task::state};
use a2a::{A2AError, ListTasksRequest, TaskState};
use narthex_agent::{AgentError, Agents, Page, RunFilter, RunStatus, RunView};

/// The size of a page where none is asked for, and the largest (section 3.1.4).
const PAGE_SIZE: usize = 50;
const PAGE_SIZE_MAX: usize = 100;

/// Runs that are asked for at once.
const RUNS_AT_ONCE: usize = 100;

/// What is to be listed.
#[derive(Debug)]
pub(crate) struct Listing {
    filter: RunFilter,
    /// Two of a run's states are one of a task's: what the filter of runs cannot say is compared here.
    state: Option<TaskState>,
    after: Option<String>,
    pub page_size: usize,
    scanned_max: usize,
}

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Listed {
    pub views: Vec<RunView>,
    /// Names the next page; empty at the end.
    pub next: String,
    /// How many there are in all, as far as was looked.
    pub total: usize,
}

impl Listing {
    /// # Errors
    /// If the page's size, its token or the time is out of bounds.
    pub(crate) fn read(request: &ListTasksRequest, agent: &str, scanned_max: usize) -> Result<Self, A2AError> {
        let page_size = match request.page_size {
            None => PAGE_SIZE,
            Some(size) => usize::try_from(size)
                .ok()
                .filter(|size| (1..=PAGE_SIZE_MAX).contains(size))
                .ok_or_else(|| A2AError::invalid_params("pageSize must be 1 to 100"))?,
        };
        let after = request.page_token.clone().filter(|token| !token.is_empty());
        if after.as_ref().is_some_and(|token| token.len() > ID_BYTES_MAX) {
            return Err(A2AError::invalid_params("pageToken is not one that was given out"));
        }
        let since = request.status_timestamp_after.map(|time| time.timestamp_millis());
        let state = request.status.clone().filter(|state| *state != TaskState::Unspecified);
        let status = match state {
            Some(TaskState::Working) => Some(RunStatus::Running),
            Some(TaskState::InputRequired) => Some(RunStatus::Waiting),
            Some(TaskState::Completed) => Some(RunStatus::Done),
            Some(TaskState::Canceled) => Some(RunStatus::Cancelled),
            _ => None,
        };
        let filter = RunFilter {
            agent: Some(agent.to_string()),
            thread: request.context_id.clone().filter(|context| !context.is_empty()),
            status,
            changed_since_ms: since.map(|since| since.max(0) as u64),
        };
        Ok(Self { filter, state, after, page_size, scanned_max: scanned_max.max(1) })
    }

    fn takes(&self, view: &RunView) -> bool {
        self.state.as_ref().is_none_or(|wanted| state(view.status) == *wanted)
    }

    /// # Errors
    /// What the agents say, such as that the page's token names no run.
    pub(crate) async fn list(&self, agents: &dyn Agents, tenant: &str) -> Result<Listed, AgentError> {
        let (mut listed, mut scanned, mut after) = (Listed::default(), 0, self.after.clone());
        loop {
            let page = Page { after: after.clone(), size: RUNS_AT_ONCE.min(self.scanned_max - scanned) };
            let runs = agents.runs(tenant, self.filter.clone(), page.clone()).await?;
            let is_end = runs.len() < page.size;
            scanned += runs.len();
            after = runs.last().map(RunView::cursor).or(after);
            for view in runs.into_iter().filter(|view| self.takes(view)) {
                listed.total += 1;
                if listed.views.len() < self.page_size {
                    listed.views.push(view);
                } else if listed.next.is_empty() {
                    listed.next = listed.views.last().map(RunView::cursor).unwrap_or_default();
                }
            }
            if is_end || scanned >= self.scanned_max {
                if !is_end && listed.next.is_empty() {
                    // Nothing more was found so far, but not all were looked at.
                    listed.next = after.unwrap_or_default();
                }
                break;
            }
        }
        if self.after.is_some() {
            listed.total = self.total(agents, tenant, listed.total).await?;
        }
        Ok(listed)
    }

    /// How many there are in all: the first page counts from the beginning, later ones must look there again.
    async fn total(&self, agents: &dyn Agents, tenant: &str, least: usize) -> Result<usize, AgentError> {
        let (mut total, mut scanned, mut after) = (0, 0, None);
        while scanned < self.scanned_max {
            let page = Page { after: after.clone(), size: RUNS_AT_ONCE.min(self.scanned_max - scanned) };
            let size = page.size;
            let runs = agents.runs(tenant, self.filter.clone(), page).await?;
            scanned += runs.len();
            total += runs.iter().filter(|view| self.takes(view)).count();
            if runs.len() < size {
                break;
            }
            after = runs.last().map(RunView::cursor);
        }
        Ok(total.max(least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(page_size: Option<i32>, token: Option<&str>) -> ListTasksRequest {
        ListTasksRequest {
            context_id: None,
            status: None,
            page_size,
            page_token: token.map(str::to_string),
            history_length: None,
            status_timestamp_after: None,
            include_artifacts: None,
            tenant: None,
        }
    }

    #[test]
    fn pages_have_bounds() {
        for (size, expected) in [
            (None, Some(50)),
            (Some(1), Some(1)),
            (Some(100), Some(100)),
            (Some(0), None),
            (Some(101), None),
            (Some(-1), None),
        ] {
            let read = Listing::read(&request(size, None), "bard", 10);
            assert_eq!(read.ok().map(|listing| listing.page_size), expected, "{size:?}");
        }
        assert!(Listing::read(&request(None, Some(&"x".repeat(ID_BYTES_MAX + 1))), "bard", 10).is_err());
    }
}
