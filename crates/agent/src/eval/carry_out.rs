//! Does the tasks of a table, one after the other, each in a store of its own, and answers what the runs ask as the
//! table says. Knows runners and stores; no project and no terminal.

use super::{
    judge::judge,
    report::{Report, TaskReport},
    seen::Seen,
    task::{EvalFile, Task, is_among},
};
use crate::{
    agents::{AgentError, Agents, Answer, Ask, Interrupt, RunStatus},
    clock::{Clock, SetClock, SystemClock},
    definition::AgentDefinition,
    kit::Kit,
    model::Model,
    runner::{Runner, Surroundings},
    store::{Durability, SqliteStore},
};
use futures::StreamExt;
use narthex_base::{
    Error, Result,
    chat::{Message, Role},
};
use serde_json::Map;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// Who approves and refuses in an evaluation.
pub const EVALUATOR: &str = "the evaluation";

/// Whose runs they are.
const TENANT: &str = "evaluation";
/// When it is where the time stands still: the same in each evaluation.
const NOW_MS: u64 = 1_700_000_000_000;

/// Does all tasks of a table with these agents and what they are made of. Stores lie in `folder` for as long as a task
/// takes. Where `still_time` says so, no time passes in the runs, so that the same answers of models give the same
/// transcripts; for models that must be waited for, it passes as it does. `told` hears of each task as it is done.
///
/// # Errors
/// If the table is wrong, or an agent cannot be made ready. A task that fails is no error: the report says so.
pub async fn carry_out(
    file: &EvalFile,
    agents: &[(String, AgentDefinition)],
    kit: &Kit,
    folder: &Path,
    still_time: bool,
    mut told: impl FnMut(&TaskReport),
) -> Result<Report> {
    file.check()?;
    let mut report = Report::default();
    // A store has a name of its own: one that closes late must not take along what belongs to the next.
    let mut stores = (0..).map(|number: usize| folder.join(format!("task-{number}.db")));
    for task in &file.tasks {
        for time in 0..file.times_of(task) {
            let clock: Arc<dyn Clock> = if still_time { Arc::new(SetClock::at(NOW_MS)) } else { Arc::new(SystemClock) };
            let path = stores.next().unwrap_or_default();
            let done = once(file, task, time, agents, kit, &path, clock).await;
            let done = done.map_err(|error| error.context(format!("the task `{}`", task.id)))?;
            told(&done);
            report.add(done);
        }
    }
    Ok(report)
}

async fn once(
    file: &EvalFile,
    task: &Task,
    time: u32,
    agents: &[(String, AgentDefinition)],
    kit: &Kit,
    path: &Path,
    clock: Arc<dyn Clock>,
) -> Result<TaskReport> {
    let (agent, seed) = (file.agent_of(task)?, file.seed_of(task, time));
    let mut agents = agents.to_vec();
    for (_, definition) in agents.iter_mut().filter(|_| seed.is_some()) {
        definition.sampling.seed = seed;
    }
    let mut kit = kit.clone();
    for (name, model) in file.models_of(task) {
        kit.models.insert(name.to_string(), Arc::new(model.model(name)) as Arc<dyn Model>);
    }
    let store = SqliteStore::open(path, Durability::Process).await;
    let store = store.map_err(|error| Error::input("the store of a task cannot be made").cause(error))?;
    let names = AtomicUsize::new(0);
    let surroundings = Surroundings {
        clock,
        new_id: Arc::new(move |what| format!("{what}-{}", names.fetch_add(1, Ordering::Relaxed))),
        seed: seed.unwrap_or(0),
        owner: "evaluation".into(),
        ..Surroundings::default()
    };
    let runner = Runner::new(agents, kit, Arc::new(store), surroundings)?;
    let approvals = Approvals {
        approve: task.approve.as_ref().unwrap_or(&file.approve),
        refuse: task.refuse.as_ref().unwrap_or(&file.refuse),
    };
    let run = runner.start(ask(task, agent)).await;
    let run = run.map_err(|error| Error::input("it cannot be begun").cause(error))?;
    let limit = Duration::from_secs(task.timeout_s);
    let ended = match tokio::time::timeout(limit, until_still(&runner, &run, &approvals)).await {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err(format!("it took longer than {} s: `timeout_s`", task.timeout_s)),
    };
    let logs = runner.trace(TENANT, &run, true).await;
    let seen = logs.ok().and_then(|(_, logs)| Seen::of(&logs));
    let verdict = match (&ended, &seen) {
        (Err(why), _) => Err(why.clone()),
        (Ok(()), Some(seen)) => judge(seen, &task.expect),
        (Ok(()), None) => Err("its run is gone".into()),
    };
    drop(runner);
    remove(path);
    Ok(TaskReport::new(&task.id, agent, time + 1, seed, seen, verdict))
}

fn ask(task: &Task, agent: &str) -> Ask {
    let said = task.prompt.iter().map(|prompt| Message::new(Role::User, prompt));
    Ask {
        agent: agent.to_string(),
        tenant: TENANT.into(),
        messages: task.messages.iter().cloned().chain(said).collect(),
        thread: None,
        key: None,
        metadata: Map::new(),
    }
}

/// What is done about calls that a person would be asked about.
struct Approvals<'a> {
    approve: &'a [String],
    refuse: &'a [String],
}

impl Approvals<'_> {
    fn answer(&self, interrupt: &Interrupt) -> Option<Answer> {
        let (tool, _) = interrupt.call.as_ref()?;
        let by = EVALUATOR.to_string();
        if is_among(tool, self.refuse) {
            Some(Answer::Refuse { by, why: "it is not wanted here".into() })
        } else {
            is_among(tool, self.approve).then_some(Answer::Approve { by })
        }
    }
}

/// Lets a run go on until it has ended, or waits for something that nobody answers here.
async fn until_still(runner: &Runner, run: &str, approvals: &Approvals<'_>) -> std::result::Result<(), AgentError> {
    loop {
        let mut events = runner.follow(TENANT, run, 0);
        while let Some(event) = events.next().await {
            event?;
        }
        drop(events);
        let view = runner.run(TENANT, run).await?;
        if view.status.is_final() {
            return Ok(());
        }
        let answers: Vec<_> = view
            .interrupts
            .iter()
            .filter_map(|interrupt| approvals.answer(interrupt).map(|answer| (interrupt.id.clone(), answer)))
            .collect();
        if view.status == RunStatus::Waiting && answers.len() < view.interrupts.len() {
            return Ok(());
        }
        for (interrupt, answer) in answers {
            runner.answer(TENANT, run, &interrupt, answer).await?;
        }
    }
}

/// SQLite's file and those beside it, as far as they are there.
fn remove(path: &Path) {
    for ending in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        // What cannot be removed is told when the store cannot be made.
        let _ = std::fs::remove_file(name);
    }
}
