//! Each limit: exactly at it a run is done, one beyond it the run is limited and says by what.

use super::world::{World, agent, ask, begun, texts};
use crate::{
    agents::RunStatus,
    definition::{AgentDefinition, Context, Limits, Price, Retry},
    model::{ModelAnswer, ModelFailure},
    scripted::{Scripted, busy, call, say},
};
use serde_json::json;
use std::collections::BTreeMap;

/// Two calls of tools in one answer, one in the next, and an end: 3 model calls, 3 tool calls, 15 + 15 + 11 tokens.
fn script() -> Vec<ModelAnswer> {
    vec![call(&[("look", json!({})), ("write", json!({}))]), call(&[("list", json!({}))]), say("done")]
}

async fn check(limits: Limits, limit: Option<&str>) {
    let world = World::new();
    let prices = BTreeMap::from([("m".to_string(), Price { input: 1e6, output: 0.0 })]);
    let definition = AgentDefinition { limits: limits.clone(), prices, ..agent() };
    let runner = world.runner(vec![("a", definition)], Scripted::by_turn("m", script())).await;
    let view = begun(&runner, ask("a", "go")).await;
    match limit {
        None => assert_eq!(view.status, RunStatus::Done, "{limits:?} {:?}", view.reason),
        Some(name) => {
            assert_eq!(view.status, RunStatus::Limited, "{limits:?}");
            let reason = view.reason.unwrap();
            assert!(reason.contains(&format!("`{name}`")) && reason.contains("[agents.a.limits]"), "{reason}");
        }
    }
}

#[tokio::test]
async fn each_limit_and_one_beyond() {
    let all = Limits::default;
    check(Limits { model_calls: 3, ..all() }, None).await;
    check(Limits { model_calls: 2, ..all() }, Some("model_calls")).await;
    check(Limits { model_calls: 0, ..all() }, Some("model_calls")).await;
    check(Limits { tool_calls: 3, ..all() }, None).await;
    check(Limits { tool_calls: 2, ..all() }, Some("tool_calls")).await;
    check(Limits { tool_calls: 1, ..all() }, Some("tool_calls")).await;
    check(Limits { tokens: 31, ..all() }, None).await;
    check(Limits { tokens: 30, ..all() }, Some("tokens")).await;
    check(Limits { money: Some(20.5), ..all() }, None).await;
    check(Limits { money: Some(20.0), ..all() }, Some("money")).await;
    check(Limits { wall_s: 0, ..all() }, Some("wall_s")).await;
    check(Limits { parallel: 1, ..all() }, None).await;
}

#[tokio::test]
async fn calls_beyond_the_limit_are_not_made() {
    let world = World::new();
    let definition = AgentDefinition { limits: Limits { tool_calls: 1, ..Limits::default() }, ..agent() };
    let runner = world.runner(vec![("a", definition)], Scripted::by_turn("m", script())).await;
    begun(&runner, ask("a", "go")).await;
    assert_eq!(world.counts().len(), 0);
}

#[tokio::test]
async fn wrong_calls_count_and_are_told_to_the_model() {
    let world = World::new();
    let mut cut = call(&[("look", json!({}))]);
    cut.message.tool_calls[0].function.arguments = r#"{"x": "#.into();
    let mut deep = call(&[("look", json!({}))]);
    deep.message.tool_calls[0].function.arguments = format!("{{\"x\": {}{}}}", "[".repeat(90), "]".repeat(90));
    let script = vec![
        call(&[("lok", json!({}))]),
        cut,
        call(&[("look", json!({"x": []}))]),
        deep,
        call(&[("look", json!({"x": "panic"})), ("look", json!({"x": "fail"}))]),
        say("done"),
    ];
    let definition = AgentDefinition { limits: Limits { tool_calls: 6, ..Limits::default() }, ..agent() };
    let runner = world.runner(vec![("a", definition.clone())], Scripted::by_turn("m", script.clone())).await;
    let view = begun(&runner, ask("a", "go")).await;
    let texts = texts(&view);
    assert_eq!(view.status, RunStatus::Done);
    assert_eq!(texts[2], "tool: error:\nthere is no tool `lok`: did you mean `look`?");
    assert!(texts[4].contains("the arguments are no JSON"), "{}", texts[4]);
    assert!(texts[6].contains("`/x`"), "{}", texts[6]);
    assert!(texts[8].contains("nested deeper than 64"), "{}", texts[8]);
    assert_eq!(texts[10], "tool: error:\nit panicked: as it was told; whether it had an effect is not known");
    assert_eq!(texts[11], "tool: error:\nit broke; whether it had an effect is not known");
    let definition = AgentDefinition { limits: Limits { tool_calls: 5, ..Limits::default() }, ..definition };
    let runner = world.runner(vec![("a", definition)], Scripted::by_turn("m", script)).await;
    assert_eq!(begun(&runner, ask("a", "go")).await.status, RunStatus::Limited);
}

#[tokio::test]
async fn retries_and_fallback() {
    let lasting = ModelFailure { passing: false, ..busy("no") };
    let asks_to_wait = ModelFailure { wait_ms: Some(5000), ..busy("full") };
    let retry = Retry { times: 2, ..Retry::default() };
    for (answers, status, calls, waited_ms) in [
        (vec![Err(busy("503")), Err(busy("cut")), Ok(say("yes"))], RunStatus::Done, 3, 750..=1500),
        (vec![Err(asks_to_wait), Ok(say("yes"))], RunStatus::Done, 2, 5000..=5000),
        (vec![Err(lasting.clone()), Ok(say("yes"))], RunStatus::Done, 2, 0..=0),
        (vec![Err(lasting.clone()), Err(lasting)], RunStatus::Failed, 2, 0..=0),
    ] {
        let world = World::new();
        let definition =
            AgentDefinition { retry: retry.clone(), fallback: vec!["m".into()], ..AgentDefinition::new("m") };
        let model = std::sync::Arc::new(Scripted::list("m", answers));
        let runner = world.runner_over(world.store().await, vec![("a", definition)], model.clone(), "here").await;
        let view = begun(&runner, ask("a", "go")).await;
        assert_eq!((view.status, model.requests().len()), (status, calls));
        let waited = super::world::now_ms(&world) - super::world::NOW_MS;
        assert!(waited_ms.contains(&waited), "{waited} ms");
    }
}

#[tokio::test]
async fn long_results_are_cut_and_kept() {
    let world = World::new();
    let definition = AgentDefinition { limits: Limits { result_bytes: 10, ..Limits::default() }, ..agent() };
    let script = vec![call(&[("look", json!({"x": "long".repeat(50)}))]), say("done")];
    let runner = world.runner(vec![("a", definition)], Scripted::by_turn("m", script)).await;
    let view = begun(&runner, ask("a", "go")).await;
    assert!(texts(&view)[2].starts_with("tool: look did {\n[207 of 217 bytes left out: `limits.result_bytes`"));
    let kept = serde_json::to_string(&runner.show(super::world::TENANT, &view.id).await.unwrap()).unwrap();
    assert!(kept.contains(&"long".repeat(50)), "the whole result is in the store");
}

#[tokio::test]
async fn old_messages_are_summed_up() {
    let world = World::new();
    let context = Context { keep: 2, summarize_at: 300 };
    let tools = ["look", "look_back"].map(String::from).into();
    let definition = AgentDefinition { context, tools, ..agent() };
    let long = "word ".repeat(250);
    let model = std::sync::Arc::new(Scripted::new("m", move |request| {
        let messages = &request.conversation.messages;
        if messages[0].text().starts_with("Sum up") {
            // The first time it reads the code, later its own summary.
            let before = ["the code is 4711", "earlier: there was a code"];
            assert!(before.iter().any(|text| messages[1].text().contains(text)), "{}", messages[1].text());
            return Ok(say("there was a code"));
        }
        let last = messages.last().unwrap().text().into_owned();
        Ok(match last.as_str() {
            "what was the code?" => {
                assert!(messages.iter().all(|message| !message.text().contains("4711")), "it is out of sight");
                assert!(messages[0].text().contains("there was a code"));
                call(&[("look_back", json!({"words": "4711 code"}))])
            }
            found if found.contains("the code is 4711") && found.contains("message 0") => say("it was 4711"),
            _ => say(&long),
        })
    }));
    let runner = world.runner_over(world.store().await, vec![("a", definition)], model, "here").await;
    let mut last = None;
    for text in ["the code is 4711", "go on", "what was the code?"] {
        let mut next = ask("a", text);
        next.thread = Some("talk".into());
        last = Some(begun(&runner, next).await);
    }
    let last = last.unwrap();
    assert_eq!(texts(&last).last().unwrap(), "assistant: it was 4711", "{:?}", last.reason);
}
