//! A run is killed before and after each of its writes, and taken up again: no effect twice, none left out unsaid, and
//! the conversation is the same as without.

use super::world::{Dying, World, agent, approve, ask, until_still};
use crate::{
    agents::{AgentError, Agents, Answer, RunStatus, RunView},
    definition::AgentDefinition,
    runner::Runner,
    scripted::{Scripted, call, say},
};
use narthex_base::random::Stream;
use serde_json::json;
use std::sync::Arc;
use tokio::sync::Notify;

/// A run is given up that does not end in so many lives.
const LIVES_MAX: usize = 40;

fn script() -> Scripted {
    Scripted::by_turn(
        "m",
        vec![
            call(&[("look", json!({"x": 1})), ("write", json!({"x": 2}))]),
            call(&[("store", json!({"x": 3})), ("list", json!({"x": 4}))]),
            call(&[("send", json!({"x": 5}))]),
            say("all is done"),
        ],
    )
}

/// One does the work, the other has it done.
fn agents() -> Vec<(&'static str, AgentDefinition)> {
    let boss = AgentDefinition { tools: vec!["agent:worker".into()], ..agent() };
    vec![("worker", agent()), ("boss", boss)]
}

/// The worker's script, or the boss's: that one has only the worker to call.
fn script_of_both() -> Scripted {
    let (worker, boss) = (script(), [call(&[("agent.worker", json!({"task": "do it"}))]), say("it is done")]);
    Scripted::new("m", move |request| match &request.conversation.tools[..] {
        [_] => Ok(boss[request.conversation.messages.len() / 2].clone()),
        _ => worker.play(request),
    })
}

/// One life: the run is begun or found again, followed, and its questions are answered, until it ends.
async fn live(world: &World, agent: &str, runner: &Runner, unknown: &mut usize) -> Result<RunView, AgentError> {
    let mut first = ask(agent, "do it");
    first.key = Some("once".into());
    let run = runner.start(first).await?;
    runner.resume_all().await?;
    for _ in 0..LIVES_MAX {
        let (_, view) = until_still(runner, &run).await?;
        if view.status.is_final() {
            return Ok(view);
        }
        for interrupt in &view.interrupts {
            let answer = match (&interrupt.form, &interrupt.call) {
                (Some(_), Some((tool, arguments))) => {
                    *unknown += 1;
                    // The person looks whether it took effect.
                    match world.counts().get(tool) {
                        Some(_) => Answer::Say { value: json!({"result": format!("{tool} did {arguments}")}) },
                        None => approve(),
                    }
                }
                _ => approve(),
            };
            match runner.answer(super::world::TENANT, &run, &interrupt.id, answer).await {
                // It was answered in an earlier life, and the run above learns so only now.
                Ok(()) | Err(AgentError::Refused(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    panic!("the run neither ends nor dies");
}

/// Lives until the run ends, dying at each of these writes, counted from the start of each life. Returns the run, how
/// many calls nobody knew the fate of, and how many lives it took.
async fn through(agent: &str, deaths: &[(usize, bool)]) -> (World, RunView, usize, usize) {
    let (world, mut unknown) = (World::new(), 0);
    for life in 0..LIVES_MAX {
        let (store, death) = (world.store().await, Arc::new(Notify::new()));
        let store = match deaths.get(life) {
            Some((write, after)) => Dying::over(store, *write, *after, death.clone()),
            None => store,
        };
        let runner = world.runner_over(store, agents(), Arc::new(script_of_both()), "here").await;
        let life_ends = live(&world, agent, &runner, &mut unknown);
        let view = tokio::select! {
            result = life_ends => result.ok(),
            () = death.notified() => None,
        };
        if let Some(view) = view {
            return (world, view, unknown, life + 1);
        }
    }
    panic!("the run does not end after {deaths:?}");
}

fn check(world: &World, view: &RunView, whole: &RunView, deaths: &[(usize, bool)]) {
    assert_eq!(view.status, RunStatus::Done, "{deaths:?}: {view:?}");
    assert_eq!(view.messages, whole.messages, "{deaths:?}");
    for (call, count) in world.calls() {
        let reads = call.ends_with("look") || call.ends_with("list");
        assert!(count == 1 || reads, "{deaths:?}: {call} was made {count} times");
    }
    assert_eq!(world.counts().len(), 5, "{deaths:?}: {:?}", world.counts());
}

#[tokio::test]
async fn killed_at_every_write() {
    let mut unknown_in_all = 0;
    // The fewest writes that may be died at; those of a run below another count too.
    for (agent, least) in [("worker", 38), ("boss", 54)] {
        let (_, whole, unknown, lives) = through(agent, &[]).await;
        assert_eq!((whole.status, unknown, lives), (RunStatus::Done, 0, 1));
        let mut points = 0;
        for after in [false, true] {
            for write in 0.. {
                let deaths = [(write, after)];
                let (world, view, unknown, lives) = through(agent, &deaths).await;
                check(&world, &view, &whole, &deaths);
                unknown_in_all += unknown;
                if lives == 1 {
                    break;
                }
                points += 1;
            }
        }
        assert!(points >= least, "{agent}: {points} points");
    }
    // After each start of the three calls that write or reach out, and before and after what follows it.
    assert!(unknown_in_all >= 12, "{unknown_in_all} unknown");
}

#[tokio::test]
async fn killed_at_two_hundred_points_by_chance() {
    let (_, whole, ..) = through("worker", &[]).await;
    let mut died = 0;
    for seed in 0..25 {
        let chance = Stream::new(seed, "deaths");
        let deaths: Vec<_> =
            (0..9).map(|i| (chance.below(i, 6) as usize, chance.bits(i + 9).is_multiple_of(2))).collect();
        let (world, view, _, lives) = through("worker", &deaths).await;
        check(&world, &view, &whole, &deaths);
        died += lives - 1;
    }
    assert!(died >= 200, "only {died} deaths");
}
