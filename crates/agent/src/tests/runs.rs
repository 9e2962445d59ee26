//! Runs from start to end: conversations, forks, other agents, forms, events for those who look on, and their cost.

use super::world::{TENANT, World, agent, all_runs, answered, approve, ask, begun, texts, until_still};
use crate::{
    agents::{AgentError, Agents, Page, RunEvent, RunEventKind, RunFilter, RunStatus},
    definition::{AgentDefinition, Context, Limits, Output},
    event::Edit,
    kit::Kit,
    model::{Delta, Model, ModelAnswer, ModelFailure, ModelRequest},
    recorded::{Recorder, Replayed},
    runner::Runner,
    scripted::{Scripted, call, say},
    state::{Earlier, State},
    step::fold,
};
use futures::{StreamExt, future::BoxFuture};
use narthex_base::chat::{MessageContent, Role};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// More than a process works on at once.
const RUNS_THAT_WAIT: usize = 300;

fn script() -> Scripted {
    let first = call(&[("look", json!({"x": 1})), ("write", json!({"x": 2}))]);
    Scripted::by_turn("m", vec![first, call(&[("store", json!({"x": 3}))]), say("all done")])
}

/// Waits until no task works on a run: one that only waits for an answer has none.
async fn at_rest(runner: &Runner) {
    while runner.at_work() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Says what it was asked last, and how many messages it sees.
fn echo() -> Scripted {
    Scripted::new("m", |request| {
        let messages = &request.conversation.messages;
        Ok(say(format!("{} of {}", messages.last().unwrap().text(), messages.len())))
    })
}

#[tokio::test]
async fn the_same_twice_is_the_same() {
    let mut transcripts = vec![];
    for _ in 0..2 {
        let world = World::new();
        let runner = world.runner(vec![("a", agent())], script()).await;
        let waits = begun(&runner, ask("a", "go")).await;
        let done = answered(&runner, &waits, approve()).await;
        assert_eq!(done.status, RunStatus::Done);
        let events = runner.show(TENANT, &done.id).await.unwrap();
        transcripts.push(serde_json::to_string(&(done, events)).unwrap());
    }
    assert_eq!(transcripts[0], transcripts[1]);
}

#[tokio::test]
async fn those_who_look_on_see_the_same_wherever_the_line_is_cut() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let run = runner.start(ask("a", "go")).await.unwrap();
    let live: Vec<RunEvent> = runner.follow(TENANT, &run, 0).map(Result::unwrap).collect().await;
    let waits = runner.run(TENANT, &run).await.unwrap();
    let after = waits.last_event;
    runner.answer(TENANT, &run, &waits.interrupts[0].id, approve()).await.unwrap();
    let more: Vec<RunEvent> = runner.follow(TENANT, &run, after).map(Result::unwrap).collect().await;
    let live: Vec<RunEvent> = live.into_iter().chain(more).collect();
    let kept: Vec<_> = live.iter().filter(|event| event.number > 0).cloned().collect();
    let numbers: Vec<u64> = kept.iter().map(|event| event.number).collect();
    assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "counted from 1 without gaps");
    for after in 0..=kept.len() {
        let again: Vec<_> = runner.follow(TENANT, &run, after as u64).map(Result::unwrap).collect().await;
        assert_eq!(again, kept[after..], "after {after}");
    }
    let name = |event: &RunEvent| serde_json::to_value(&event.kind).unwrap()["type"].as_str().unwrap().to_string();
    let names: Vec<String> = kept.iter().map(name).collect();
    let expected = "working message message tool_started tool_started message message message waiting working \
        tool_started message message ended";
    assert_eq!(names.join(" "), expected);
}

/// Says a word, and the rest when it is let.
struct Halting(Arc<tokio::sync::Notify>);

impl Model for Halting {
    fn name(&self) -> &str {
        "m"
    }

    fn answer(
        &self,
        _: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, Result<ModelAnswer, ModelFailure>> {
        let go_on = self.0.clone();
        Box::pin(async move {
            said(Delta::Text("well".into()));
            go_on.notified().await;
            Ok(say("well then"))
        })
    }
}

#[tokio::test]
async fn pieces_are_told_as_they_come() {
    let (world, go_on) = (World::new(), Arc::new(tokio::sync::Notify::new()));
    let runner = world.runner(vec![("a", AgentDefinition::new("m"))], Halting(go_on.clone())).await;
    let run = runner.start(ask("a", "go")).await.unwrap();
    let mut events = runner.follow(TENANT, &run, 0).map(Result::unwrap);
    let piece = loop {
        let event = events.next().await.unwrap();
        if event.number == 0 {
            break event;
        }
    };
    assert_eq!(piece.kind, RunEventKind::Said { delta: Delta::Text("well".into()) });
    go_on.notify_one();
    let rest: Vec<u64> = events.map(|event| event.number).collect().await;
    assert_eq!(rest, [3, 4], "the whole message, and the end");
}

#[tokio::test]
async fn a_model_that_hangs_is_cut_off() {
    for cancelled in [true, false] {
        let world = World::new();
        let runner = world.runner(vec![("a", AgentDefinition::new("m"))], Halting(Arc::default())).await;
        let run = runner.start(ask("a", "go")).await.unwrap();
        let mut events = runner.follow(TENANT, &run, 0).map(Result::unwrap);
        while events.next().await.unwrap().number != 0 {}
        if cancelled {
            runner.cancel(TENANT, &run).await.unwrap();
        } else {
            world.clock.advance(3600 * 1000);
        }
        let last = events.map(|event| event.kind).collect::<Vec<_>>().await.pop();
        let expected = if cancelled { RunStatus::Cancelled } else { RunStatus::Limited };
        assert!(matches!(last, Some(RunEventKind::Ended { status, .. }) if status == expected), "{last:?}");
        at_rest(&runner).await;
    }
}

#[tokio::test]
async fn conversations_go_on() {
    let world = World::new();
    let runner = world.runner(vec![("a", AgentDefinition::new("m"))], echo()).await;
    let mut first = ask("a", "one");
    first.key = Some("k".into());
    let one = begun(&runner, first.clone()).await;
    assert_eq!(runner.start(first).await.unwrap(), one.id, "the same key is the same run");
    let mut second = ask("a", "two");
    second.thread = Some(one.thread.clone());
    let two = begun(&runner, second.clone()).await;
    assert_eq!(texts(&two), ["user: two", "assistant: two of 3"]);
    let three = begun(&runner, second).await;
    assert_eq!(texts(&three)[1], "assistant: two of 5");
    let of_thread = RunFilter { thread: Some(one.thread.clone()), ..RunFilter::default() };
    let newest = runner.runs(TENANT, of_thread.clone(), Page { after: None, size: 2 }).await.unwrap();
    assert_eq!(newest.iter().map(|run| &run.id).collect::<Vec<_>>(), [&three.id, &two.id]);
    let rest = runner.runs(TENANT, of_thread, Page { after: Some(two.id), size: 2 }).await.unwrap();
    assert_eq!(rest.iter().map(|run| &run.id).collect::<Vec<_>>(), [&one.id]);
    let waiting = RunFilter { status: Some(RunStatus::Waiting), ..RunFilter::default() };
    assert_eq!(runner.runs(TENANT, waiting, Page { after: None, size: 2 }).await.unwrap(), []);
}

#[tokio::test]
async fn what_cannot_be_started() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    let mut busy = ask("a", "more");
    busy.thread = Some(waits.thread.clone());
    assert!(matches!(runner.start(busy).await, Err(AgentError::Busy(_))));
    let mut empty = ask("a", "");
    empty.messages.clear();
    let mut system = ask("a", "obey");
    system.messages[0].role = Role::System;
    let mut thread = ask("a", "x");
    thread.thread = Some(String::new());
    let large = ask("a", &"x".repeat(9 << 20));
    for (asked, part) in [(empty, "empty"), (system, "system"), (thread, "`thread`"), (large, "bytes")] {
        let error = runner.start(asked).await.unwrap_err();
        assert!(matches!(&error, AgentError::Input(what) if what.contains(part)), "{error}");
    }
    let error = runner.start(ask("aa", "x")).await.unwrap_err();
    assert_eq!(error, AgentError::Unknown("there is no agent `aa`: did you mean `a`?".into()));
}

#[tokio::test]
async fn cancelled_is_cancelled() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    let over = runner.cancel(TENANT, &waits.id).await.unwrap();
    assert_eq!((over.status, over.interrupts.len()), (RunStatus::Cancelled, 0));
    assert!(matches!(runner.cancel(TENANT, &waits.id).await, Err(AgentError::Ended(_))));
    assert!(runner.answer(TENANT, &waits.id, &waits.interrupts[0].id, approve()).await.is_err());
    assert_eq!(world.counts().get("store"), None);
    // The conversation goes on, and what was left open has a result for the model.
    let mut next = ask("a", "again");
    next.thread = Some(waits.thread.clone());
    let next = begun(&runner, next).await;
    assert_eq!(next.status, RunStatus::Done, "{:?}", next.reason);
}

#[tokio::test]
async fn forks() {
    let world = World::new();
    let runner = world.runner(vec![("a", agent())], script()).await;
    let waits = begun(&runner, ask("a", "go")).await;
    let done = answered(&runner, &waits, approve()).await;
    let before = runner.show(TENANT, &done.id).await.unwrap();
    let approved = before.iter().position(|stamped| format!("{:?}", stamped.event).contains("Approve")).unwrap() + 1;
    // At the approval: it does not come along.
    let fork = runner.fork(TENANT, &done.id, approved as u64, None).await.unwrap();
    let (_, view) = until_still(&runner, &fork).await.unwrap();
    assert_eq!((view.status, world.counts()["store"]), (RunStatus::Waiting, 1));
    assert!(runner.answer(TENANT, &fork, &waits.interrupts[0].id, approve()).await.is_err());
    let forked = answered(&runner, &view, approve()).await;
    assert_eq!((forked.status, world.counts()["store"], world.counts()["write"]), (RunStatus::Done, 2, 1));
    assert_eq!(forked.messages, done.messages);
    // With a message changed, it begins anew from there.
    let edit = |message| Some(Edit { message, content: MessageContent::Text("other".into()) });
    let fork = runner.fork(TENANT, &done.id, before.len() as u64, edit(0)).await.unwrap();
    let (_, view) = until_still(&runner, &fork).await.unwrap();
    assert_eq!((texts(&view)[0].as_str(), view.status), ("user: other", RunStatus::Waiting));
    assert_ne!(view.thread, done.thread);
    for (at, edit) in [(0, None), (99, None), (3, edit(7)), (3, edit(1))] {
        assert!(matches!(runner.fork(TENANT, &done.id, at, edit).await, Err(AgentError::Input(_))));
    }
    assert_eq!(runner.show(TENANT, &done.id).await.unwrap(), before, "the other run is as it was");
}

#[tokio::test]
async fn other_agents_have_no_more_rights() {
    let world = World::new();
    let boss = AgentDefinition {
        tools: vec!["agent:worker".into()],
        policy: serde_json::from_value(json!({"rules": [{"tool": "look", "then": "allow"},
            {"tool": "store", "then": "allow"}, {"tool": "send", "then": "deny"}]}))
        .unwrap(),
        ..AgentDefinition::new("m")
    };
    let worker = AgentDefinition { description: "works".into(), ..agent() };
    let all = [("look", json!({})), ("write", json!({})), ("send", json!({})), ("store", json!({}))];
    let (first, work) = (call(&[("agent.worker", json!({"task": "work"}))]), call(&all));
    let script = Scripted::new("m", move |request| {
        let messages = &request.conversation.messages;
        Ok(match (messages.len(), messages[0].text().as_ref()) {
            (1, "work") => work.clone(),
            (1, _) => first.clone(),
            _ => say(messages.iter().skip(2).map(|message| message.text().into_owned()).collect::<Vec<_>>().join("|")),
        })
    });
    let runner = world.runner(vec![("boss", boss), ("worker", worker)], script).await;
    let waits = begun(&runner, ask("boss", "go")).await;
    // The worker asks its person although the boss would not.
    assert_eq!((waits.status, waits.interrupts.len(), world.counts().len()), (RunStatus::Waiting, 1, 1));
    assert_eq!(waits.interrupts[0].call, Some(("store".into(), json!({}))));
    at_rest(&runner).await;
    let done = answered(&runner, &waits, approve()).await;
    assert_eq!(done.status, RunStatus::Done, "{:?}", done.reason);
    let said = done.messages.last().unwrap().text().into_owned();
    let denied = "error:\nthe call was not made: it is denied by";
    let default = "the policy's default for what writes";
    let rule = "the rule for `send` of the policy";
    assert_eq!(said, format!("look did {{}}|{denied} {default}|{denied} {rule}|store did {{}}"));
    assert_eq!(world.counts(), BTreeMap::from([("look".into(), 1), ("store".into(), 1)]));
    let runs = all_runs(&runner, TENANT).await;
    assert_eq!(runs.iter().map(|run| run.agent.as_str()).collect::<Vec<_>>(), ["worker", "boss"]);

    let again = begun(&runner, ask("boss", "go")).await;
    runner.cancel(TENANT, &again.id).await.unwrap();
    let runs = all_runs(&runner, TENANT).await;
    assert_eq!((runs[0].status, runs[1].status), (RunStatus::Cancelled, RunStatus::Cancelled), "both are stopped");
}

#[tokio::test]
async fn agents_that_call_themselves_come_to_an_end() {
    let world = World::new();
    let definition = AgentDefinition { tools: vec!["agent:a".into()], ..AgentDefinition::new("m") };
    let deeper = call(&[("agent.a", json!({"task": "deeper"}))]);
    let script = Scripted::new("m", move |request| match request.conversation.messages.len() {
        1 => Ok(deeper.clone()),
        _ => Ok(say(request.conversation.messages.last().unwrap().text())),
    });
    let runner = world.runner(vec![("a", definition)], script).await;
    let run = begun(&runner, ask("a", "go")).await;
    assert!(texts(&run).last().unwrap().contains("too many agents stand above"), "{:?}", texts(&run));
    assert_eq!(all_runs(&runner, TENANT).await.len(), 5);
}

#[tokio::test]
async fn answers_as_data() {
    let schema = json!({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]});
    let output = Some(Output::Schema(schema.as_object().unwrap().clone()));
    let plain = AgentDefinition { output: output.clone(), ..AgentDefinition::new("m") };
    let tools = AgentDefinition { output, ..agent() };
    let (good, bad) = (|| Ok(say("{\"n\": 1}")), || Ok(say("n is one")));
    for (definition, answers, status, forms) in [
        (&plain, vec![good()], RunStatus::Done, vec![true]),
        (&plain, vec![Ok(say("```json\n{\"n\": 1}\n```"))], RunStatus::Done, vec![true]),
        (&plain, vec![bad(), good()], RunStatus::Done, vec![true, true]),
        (&plain, vec![bad(), bad()], RunStatus::Failed, vec![true, true]),
        (&tools, vec![good()], RunStatus::Done, vec![false]),
        (&tools, vec![bad(), good()], RunStatus::Done, vec![false, true]),
        (&tools, vec![bad(), bad(), good()], RunStatus::Done, vec![false, true, true]),
        (&tools, vec![bad(), bad(), bad()], RunStatus::Failed, vec![false, true, true]),
    ] {
        let world = World::new();
        let model = Arc::new(Scripted::list("m", answers));
        let agents = vec![("a", definition.clone())];
        let runner = world.runner_over(world.store().await, agents, model.clone(), "here").await;
        let run = begun(&runner, ask("a", "go")).await;
        assert_eq!(run.status, status, "{:?}", run.reason);
        assert_eq!(run.output, (status == RunStatus::Done).then(|| json!({"n": 1})));
        let asked: Vec<bool> = model.requests().iter().map(|request| request.wish.form.is_some()).collect();
        assert_eq!(asked, forms);
    }
}

#[tokio::test]
async fn a_list_of_what_is_to_be_done() {
    let world = World::new();
    let items = json!([{"text": "one", "status": "done"}, {"text": "two", "status": "open"}]);
    let definition = AgentDefinition { tools: vec!["todo".into()], ..AgentDefinition::new("m") };
    let script = Scripted::by_turn("m", vec![call(&[("todo", json!({"items": items}))]), say("noted")]);
    let runner = world.runner(vec![("a", definition)], script).await;
    let run = begun(&runner, ask("a", "go")).await;
    assert_eq!(texts(&run)[2], "tool: 1 open, 0 doing, 1 done");
    let events = runner.show(TENANT, &run.id).await.unwrap();
    let state = fold(State::new(&run.id, TENANT, Earlier::default()), &events).state;
    assert_eq!(Value::Array(state.todo), items);
}

#[tokio::test]
async fn recorded_and_played_again() {
    let world = World::new();
    let path = world.folder.path().join("answers.jsonl");
    let recorder = Recorder::new(Arc::new(script()), &path).unwrap();
    let runner = world.runner(vec![("a", agent())], recorder).await;
    let first = answered(&runner, &begun(&runner, ask("a", "go")).await, approve()).await;
    let again = World::new();
    let replayed = || Replayed::open("m", &path).unwrap();
    let runner = again.runner(vec![("a", agent())], replayed()).await;
    let second = answered(&runner, &begun(&runner, ask("a", "go")).await, approve()).await;
    assert_eq!((second.status, &second.messages), (RunStatus::Done, &first.messages));
    let other = begun(&runner, ask("a", "something else")).await;
    assert!(other.reason.unwrap().contains("record it again"));
    std::fs::write(&path, "{}\n").unwrap();
    assert!(Replayed::open("m", &path).err().unwrap().to_string().contains("answers.jsonl:1"));
}

#[tokio::test]
async fn a_thousand_steps_with_a_large_file_stay_small() {
    let world = World::new();
    let script = Scripted::new("m", |request| {
        Ok(match request.conversation.messages.len() {
            0..500 => call(&[("look", json!({"x": "file"}))]),
            _ => say("done"),
        })
    });
    let limits = Limits { model_calls: 300, tool_calls: 300, result_bytes: 256, ..Limits::default() };
    let context = Context { keep: 1, summarize_at: u64::MAX };
    let runner = world.runner(vec![("a", AgentDefinition { limits, context, ..agent() })], script).await;
    let run = begun(&runner, ask("a", "go")).await;
    assert_eq!(run.status, RunStatus::Done, "{:?}", run.reason);
    drop(runner);
    let row = world.store().await.row(TENANT, &run.id).await.unwrap();
    let (steps, bytes) = (row.unwrap().events, world.bytes().await);
    assert!(steps >= 1000 && bytes < 3 << 20, "{steps} steps, {bytes} bytes");
}

#[tokio::test]
async fn many_runs_that_wait_are_rows() {
    let world = World::new();
    let script = Scripted::by_turn("m", vec![call(&[("store", json!({}))]), say("done")]);
    let runner = world.runner(vec![("a", agent())], script).await;
    let mut runs = vec![];
    for _ in 0..RUNS_THAT_WAIT {
        runs.push(runner.start(ask("a", "go")).await.unwrap());
    }
    for run in &runs {
        let (_, view) = until_still(&runner, run).await.unwrap();
        assert_eq!(view.status, RunStatus::Waiting);
    }
    at_rest(&runner).await;
    let one = runner.run(TENANT, &runs[RUNS_THAT_WAIT / 2]).await.unwrap();
    assert_eq!(answered(&runner, &one, approve()).await.status, RunStatus::Done);
    at_rest(&runner).await;
}

#[tokio::test]
async fn what_is_wrong_with_an_agent_is_told_before_it_runs() {
    let world = World::new();
    let definition = AgentDefinition::new;
    let with_tools = |tools: &[&str]| AgentDefinition {
        tools: tools.iter().map(|tool| tool.to_string()).collect(),
        ..definition("m")
    };
    let model: Arc<dyn Model> = Arc::new(script());
    for (agent, part) in [
        (definition("n"), "there is no model `n`"),
        (with_tools(&["lok"]), "did you mean `look`"),
        (with_tools(&["agent:b"]), "there is no agent `b`"),
        (with_tools(&["files.*"]), "there is no tool `files.*`"),
        (AgentDefinition { output: Some(Output::File("x".into())), ..definition("m") }, "was not read"),
    ] {
        let kit = Kit { models: BTreeMap::from([("m".to_string(), model.clone())]), tools: world.tools() };
        let store = world.store().await;
        let error = Runner::new(vec![("a".into(), agent)], kit, store, world.surroundings("here")).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
    let kit = |name: &str| {
        let tool = super::world::Counted::tool(name, crate::tool::Effect::Reads, &world.effects);
        Kit { models: BTreeMap::new(), tools: vec![tool.clone(), tool] }
    };
    for (name, part) in [("todo", "one of ours"), ("agent.x", "one of ours"), ("a b", "no name"), ("x", "two tools")] {
        let error = Runner::new(vec![], kit(name), world.store().await, world.surroundings("here")).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
}
