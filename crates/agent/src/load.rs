//! Runs read back: the events of a run, and of those before it in the conversation, folded into its state.

use crate::{
    event::{Event, Stamped},
    state::{Earlier, State},
    step::{Step, due, fold},
    store::{EVENTS_MAX, Store, StoreError},
};

/// Runs of one conversation that are read back at most.
pub const THREAD_RUNS_MAX: usize = 1000;

/// A run's state and what is to be done in it; nothing if the tenant has no such run.
///
/// # Errors
/// If the store fails or a conversation is too long.
pub async fn load(store: &dyn Store, tenant: &str, run: &str) -> Result<Option<Step>, StoreError> {
    let first = store.events(tenant, run, 0).await?;
    if first.is_empty() {
        return Ok(None);
    }
    let earlier = earlier(store, tenant, follows(&first)).await?;
    Ok(Some(replay(store, State::new(run, tenant, earlier), first).await?))
}

/// What the conversation holds up to this run and with it.
///
/// # Errors
/// If the store fails or a conversation is too long.
pub async fn earlier(store: &dyn Store, tenant: &str, last: Option<String>) -> Result<Earlier, StoreError> {
    let (mut chain, mut next) = (Vec::new(), last);
    while let Some(run) = next {
        if chain.len() == THREAD_RUNS_MAX {
            let what = format!("the conversation has more than {THREAD_RUNS_MAX} runs: begin a new one");
            return Err(StoreError::Full(what));
        }
        next = follows(&store.events(tenant, &run, 0).await?);
        chain.push(run);
    }
    let mut earlier = Earlier::default();
    for run in chain.iter().rev() {
        let first = store.events(tenant, run, 0).await?;
        earlier = replay(store, State::new(run, tenant, earlier), first).await?.state.handed_on();
    }
    Ok(earlier)
}

/// Folds the events of a run, a few at a time.
async fn replay(store: &dyn Store, state: State, mut events: Vec<Stamped>) -> Result<Step, StoreError> {
    let mut step = fold(state, &events);
    while events.len() == EVENTS_MAX {
        events = store.events(&step.state.tenant, &step.state.run, step.state.events).await?;
        step = fold(step.state, &events);
    }
    // The last page may be empty.
    step.actions = due(&step.state);
    Ok(step)
}

fn follows(events: &[Stamped]) -> Option<String> {
    match &events.first()?.event {
        Event::Created(created) => created.follows.clone(),
        _ => None,
    }
}
