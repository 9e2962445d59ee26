//! One batch from its file to its end: its requests are read and judged, then asked a few at a time, and each answer is
//! written as soon as it is there. Begins anywhere that an earlier run stopped. Knows no other batch.

use super::{
    answers::{Answer, Answers},
    ask::{Reply, ask},
    lines::{Line, Lines, Surveyor},
    records::{BatchError, BatchObject, BatchStatus, now},
    store::{Store, StoreError},
};
use axum::Router;
use futures::{StreamExt, stream};
use std::{cell::RefCell, io, time::Duration};

/// Lines that are read before other work gets its turn.
const LINES_PER_TURN: usize = 256;

/// Works on a batch until it has ended.
pub(crate) async fn run(store: &Store, routes: &Router, id: &str) {
    if let Err(error) = try_to(store, routes, id).await {
        let ended = end(store, id, BatchStatus::Failed, vec![BatchError::new("server_error", error.to_string())]);
        if let Err(error) = ended {
            store.give_up(id, &error);
        }
    }
}

async fn try_to(store: &Store, routes: &Router, id: &str) -> Result<(), StoreError> {
    let record = store.batch_record(id)?;
    if let Some(ending) = record.ending {
        return store.end_batch(id, ending, vec![]);
    }
    let mut batch = record.batch;
    if batch.status == BatchStatus::Validating {
        let faults = survey(store, &batch).await?;
        if !faults.is_empty() {
            return store.end_batch(id, BatchStatus::Failed, faults);
        }
        batch = store.batch(id)?;
    }
    let outcome = match batch.status {
        BatchStatus::InProgress => answer_all(store, routes, &batch).await?,
        _ => Outcome::Cancelled,
    };
    match outcome {
        Outcome::Answered => end(store, id, BatchStatus::Completed, vec![]),
        Outcome::Cancelled => end(store, id, BatchStatus::Cancelled, vec![]),
        Outcome::Expired => end(store, id, BatchStatus::Expired, vec![]),
        Outcome::Full(error) => end(store, id, BatchStatus::Failed, vec![error]),
    }
}

/// What is torn is cut off before the answers become files.
fn end(store: &Store, id: &str, ending: BatchStatus, errors: Vec<BatchError>) -> Result<(), StoreError> {
    let record = store.batch_record(id)?;
    let batch = &record.batch;
    // Where an earlier try began to end it, the answers may have been moved.
    if batch.in_progress_at.is_some() && record.ending.is_none() {
        let [_, output, error] = store.paths(batch);
        let answers = Answers::open(&output, &error)?;
        store.hold_exactly(id, answers.bytes());
        store.count(id, answers.completed, answers.failed, answers.usage);
    }
    store.end_batch(id, ending, errors)
}

/// Reads all requests before any is asked.
async fn survey(store: &Store, batch: &BatchObject) -> Result<Vec<BatchError>, StoreError> {
    let [input, ..] = store.paths(batch);
    let mut surveyor = Surveyor::default();
    for (index, line) in Lines::open(&input, &batch.endpoint)?.enumerate() {
        if !surveyor.add(line?) {
            break;
        }
        if index % LINES_PER_TURN == LINES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    let survey = surveyor.finish();
    if survey.faults.is_empty() {
        store.begin_batch(&batch.id, survey.requests, survey.model)?;
    }
    Ok(survey.faults)
}

/// Why no more requests are asked.
enum Outcome {
    Answered,
    Cancelled,
    Expired,
    Full(BatchError),
}

async fn answer_all(store: &Store, routes: &Router, batch: &BatchObject) -> Result<Outcome, StoreError> {
    let [input, output, errors] = store.paths(batch);
    let id = &batch.id;
    // Read while requests are asked, so that not all must fit in memory.
    let answers = RefCell::new(Answers::open(&output, &errors)?);
    let count = || {
        let answers = answers.borrow();
        store.hold_exactly(id, answers.bytes());
        store.count(id, answers.completed, answers.failed, answers.usage);
    };
    count();
    let unanswered = |line: &io::Result<Line>| match line {
        Ok(line) => !answers.borrow().knows(&line.custom_id),
        Err(_) => true,
    };
    let open = || Ok::<_, io::Error>(Lines::open(&input, &batch.endpoint)?.map(flat).filter(unanswered));
    let lines = open()?.take_while(|_| store.goes_on(id));
    let asked = stream::iter(lines).map(async |line| match line {
        Ok(line) => ask_until_answered(store, routes, batch, line).await.map(Ok),
        Err(error) => Some(Err(error)),
    });
    let asked = asked.buffer_unordered(store.options().at_once.max(1));
    let mut asked = std::pin::pin!(asked);
    let time_is_over = tokio::time::sleep(Duration::from_secs(batch.expires_at.saturating_sub(now())));
    let mut time_is_over = std::pin::pin!(time_is_over);
    let write = |answer: Answer| {
        let line = answer.line()?;
        store.hold(id, line.len() as u64)?;
        answers.borrow_mut().write(&answer, &line)?;
        count();
        Ok::<(), StoreError>(())
    };
    // A sleep of no time still lets others begin.
    while now() < batch.expires_at {
        let answer = tokio::select! {
            biased;
            () = &mut time_is_over => break,
            answer = asked.next() => answer,
        };
        match answer {
            None if store.goes_on(id) => return Ok(Outcome::Answered),
            None => return Ok(Outcome::Cancelled),
            // It waited for its turn when the batch was cancelled.
            Some(None) => {}
            Some(Some(answer)) => match write(answer?) {
                Err(error @ StoreError::Full(_)) => {
                    return Ok(Outcome::Full(BatchError::new("files_full", error.to_string())));
                }
                other => other?,
            },
        }
    }
    if !store.goes_on(id) {
        return Ok(Outcome::Cancelled);
    }
    for (index, line) in open()?.enumerate() {
        let message = "the batch's time was over before this request was answered";
        let answer = Answer::failed(line?.custom_id, "batch_expired", message);
        // Not held to the limit: these lines say only what is missing.
        answers.borrow_mut().write(&answer, &answer.line()?)?;
        if index % LINES_PER_TURN == LINES_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
    }
    count();
    Ok(Outcome::Expired)
}

/// All lines were requests when they were surveyed.
fn flat(line: io::Result<Result<Line, BatchError>>) -> io::Result<Line> {
    line?.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault.message))
}

/// Asks again while the server has no room; nothing if the batch is cancelled meanwhile.
async fn ask_until_answered(store: &Store, routes: &Router, batch: &BatchObject, line: Line) -> Option<Answer> {
    let mut changes = store.changes();
    for tries in 0.. {
        let wait = match ask(routes, &batch.endpoint, &line.custom_id, &line.body, tries).await {
            Reply::Answer(answer) => return Some(answer),
            Reply::Wait(wait) => wait,
        };
        let again = tokio::time::sleep(wait);
        let mut again = std::pin::pin!(again);
        loop {
            changes.borrow_and_update();
            if !store.goes_on(&batch.id) {
                return None;
            }
            tokio::select! {
                () = &mut again => break,
                changed = changes.changed() => changed.ok()?,
            }
        }
    }
    None
}
