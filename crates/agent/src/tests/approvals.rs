//! Approvals: what is asked, who may answer what and how often, and what an answer does not cover.

use super::world::{Counted, TENANT, World, agent, all_runs, answered, approve, ask, begun, texts, until_still};
use crate::{
    agents::{AgentError, Agents, Answer, RunStatus, RunView},
    definition::AgentDefinition,
    event::{Decision, Event},
    kit::Kit,
    runner::Runner,
    scripted::{Scripted, call, say},
    tool::Effect,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeMap, sync::Arc};

fn script() -> Scripted {
    Scripted::by_turn("m", vec![call(&[("store", json!({"x": 1}))]), say("done")])
}

fn arguments(json: Value) -> Map<String, Value> {
    json.as_object().unwrap().clone()
}

fn edit(json: Value) -> Answer {
    Answer::Edit { by: "berta".into(), arguments: arguments(json) }
}

fn refuse() -> Answer {
    Answer::Refuse { by: "berta".into(), why: "not today".into() }
}

/// What an answer to the question of a fresh run is answered with, and how often the tool was called by then.
async fn check(answer: Answer, expected: Result<usize, AgentError>) -> (World, RunView) {
    let world = World::new();
    let policy = json!({"rules": [{"tool": "store", "arguments": {"/x": "bad*"}, "then": "deny"},
        {"tool": "store", "then": "ask"}]});
    let policy = serde_json::from_value(policy).unwrap();
    let runner = world.runner(vec![("a", AgentDefinition { policy, ..agent() })], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    assert_eq!((waits.status, world.counts().len()), (RunStatus::Waiting, 0));
    assert_eq!(waits.interrupts[0].call, Some(("store".into(), json!({"x": 1}))));
    let result = runner.answer(TENANT, &waits.id, &waits.interrupts[0].id, answer).await;
    let (_, view) = until_still(&runner, &waits.id).await.unwrap();
    match expected {
        Ok(count) => {
            result.unwrap();
            assert_eq!((view.status, world.counts().get("store").copied().unwrap_or(0)), (RunStatus::Done, count));
        }
        Err(error) => {
            assert_eq!(result.unwrap_err(), error);
            assert_eq!((view.status, world.counts().len()), (RunStatus::Waiting, 0));
        }
    }
    drop(runner);
    (world, view)
}

#[tokio::test]
async fn answers_and_what_comes_of_them() {
    let input = |what: &str| Err(AgentError::Input(what.into()));
    check(approve(), Ok(1)).await;
    let (_, refused) = check(refuse(), Ok(0)).await;
    assert_eq!(texts(&refused)[2], "tool: error:\nthe call was not made: berta refused it: not today");
    let (world, edited) = check(edit(json!({"x": "good"})), Ok(1)).await;
    assert_eq!(world.effects.lock().unwrap()[0].2, r#"{"x":"good"}"#, "the first form of the call never runs");
    assert_eq!(edited.messages[1].tool_calls[0].function.arguments, r#"{"x":"good"}"#);
    let denied = "the edited call is denied by the rule for `store` of the policy";
    check(edit(json!({"x": "bad thing"})), Err(AgentError::Refused(denied.into()))).await;
    let (y, null) = ("additionalProperties 'y' not allowed", "want integer or string, but got null");
    check(edit(json!({"x": "a", "y": 1})), input(&format!("the arguments are not valid: the whole: {y}"))).await;
    check(edit(json!({"x": null})), input(&format!("the arguments are not valid: `/x`: {null}"))).await;
    let word = "the question is whether the call may be made: answer with `approve`, `edit` or `refuse`";
    check(Answer::Say { value: json!({"result": "x"}) }, input(word)).await;
    check(Answer::Approve { by: " ".into() }, input("say who answers in `by`, in 1 to 256 bytes")).await;
}

#[tokio::test]
async fn an_answer_counts_once_and_for_its_run_alone() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let first = begun(&runner, ask("a", "go")).await;
    let second = begun(&runner, ask("a", "go")).await;
    let question = first.interrupts[0].id.clone();
    assert_ne!(question, second.interrupts[0].id, "the same call of another run is another question");
    for (run, question) in [(&second.id, question.as_str()), (&first.id, "nonsense"), (&first.id, "run-9/x")] {
        let error = runner.answer(TENANT, run, question, approve()).await.unwrap_err();
        assert!(matches!(error, AgentError::Unknown(_)), "{error}");
    }
    runner.answer(TENANT, &first.id, &question, approve()).await.unwrap();
    for _ in 0..2 {
        let error = runner.answer(TENANT, &first.id, &question, approve()).await.unwrap_err();
        assert!(matches!(error, AgentError::Refused(_)), "{error}");
        until_still(&runner, &first.id).await.unwrap();
    }
    assert_eq!(world.counts()["store"], 1);
    let events = runner.show(TENANT, &first.id).await.unwrap();
    let decided = events.iter().find_map(|stamped| match &stamped.event {
        Event::Decided { decision: Decision::Approve { by }, .. } => Some((by.clone(), stamped.at_ms)),
        _ => None,
    });
    assert_eq!(decided, Some(("berta".into(), super::world::NOW_MS)), "who and when is kept");
}

#[tokio::test]
async fn questions_lapse() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    let left_ms = waits.interrupts[0].expires_ms - super::world::now_ms(&world);
    assert_eq!(left_ms, 86_400_000);
    world.clock.advance(left_ms - 1);
    assert_eq!(runner.resume_all().await.unwrap(), 0);
    world.clock.advance(1);
    let late = runner.answer(TENANT, &waits.id, &waits.interrupts[0].id, approve()).await.unwrap_err();
    assert!(matches!(late, AgentError::Refused(_)), "{late}");
    assert_eq!(runner.resume_all().await.unwrap(), 1);
    let view = loop {
        let (_, view) = until_still(&runner, &waits.id).await.unwrap();
        if view.status.is_final() {
            break view;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((view.status, world.counts().len()), (RunStatus::Done, 0));
    assert!(texts(&view)[2].contains("nobody approved the call in time"));
}

#[tokio::test]
async fn two_processes_on_one_database() {
    let world = World::new();
    let here = world.runner_over(world.store().await, vec![("a", agent())], Arc::new(script()), "here").await;
    let there = world.runner_over(world.store().await, vec![("a", agent())], Arc::new(script()), "there").await;
    let waits = begun(&here, ask("a", "go")).await;
    let question = &waits.interrupts[0].id;
    let (one, two) = futures::future::join(
        here.answer(TENANT, &waits.id, question, approve()),
        there.answer(TENANT, &waits.id, question, refuse()),
    )
    .await;
    assert_ne!(one.is_ok(), two.is_ok(), "one wins: {one:?} {two:?}");
    let (winner, count) = if one.is_ok() { (&here, 1) } else { (&there, 0) };
    let (_, view) = until_still(winner, &waits.id).await.unwrap();
    assert_eq!((view.status, world.counts().len()), (RunStatus::Done, count));
    assert_eq!(all_runs(&here, TENANT).await, all_runs(&there, TENANT).await);
}

#[tokio::test]
async fn a_tool_that_has_changed_is_asked_about_again() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    drop(runner);
    let other = |world: &World| {
        let mut tools = world.tools();
        tools[3] = Counted::described("store", "Does something else.", Effect::Writes, &world.effects);
        let models = BTreeMap::from([("m".to_string(), Arc::new(script()) as _)]);
        Kit { models, tools }
    };
    let agents = vec![("a".to_string(), agent())];
    let runner = Runner::new(agents, other(&world), world.store().await, world.surroundings("here")).unwrap();
    let again = answered(&runner, &waits, approve()).await;
    assert_eq!((again.status, world.counts().len()), (RunStatus::Waiting, 0));
    assert_ne!(again.interrupts[0].id, waits.interrupts[0].id);
    let done = answered(&runner, &again, approve()).await;
    assert_eq!((done.status, world.counts()["store"]), (RunStatus::Done, 1));
}

#[tokio::test]
async fn what_was_forbidden_since_is_forbidden() {
    let world = World::new();
    let two =
        || Scripted::by_turn("m", vec![call(&[("store", json!({}))]), call(&[("write", json!({}))]), say("done")]);
    let runner = world.runner(vec![("a", agent())], two()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    drop(runner);
    let policy = serde_json::from_value(json!({"rules": [{"tool": "store", "then": "ask"}]})).unwrap();
    let runner = world.runner(vec![("a", AgentDefinition { policy, ..agent() })], two()).await;
    let done = answered(&runner, &waits, approve()).await;
    assert_eq!((done.status, world.counts().len()), (RunStatus::Done, 1));
    assert!(texts(&done)[4].contains("denied by the policy's default for what writes"), "{:?}", texts(&done));
}
