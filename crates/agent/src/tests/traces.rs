//! Runs as spans: one tree, the same ids each time, and no contents unless they are asked for.

use super::world::{TENANT, World, agent, answered, approve, ask, begun, until_still};
use crate::{
    agents::{Agents, RunStatus},
    definition::AgentDefinition,
    scripted::{Scripted, call, say},
    spans::{RunLog, Span, otlp, spans},
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn all(root: &str, logs: &[RunLog], with_content: bool) -> Vec<Span> {
    logs.iter().flat_map(|log| spans(root, log, with_content)).collect()
}

/// Each span below the one that it is a part of.
fn tree(spans: &[Span]) -> Vec<String> {
    let names: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
    assert_eq!(names.len(), spans.len(), "ids differ");
    let path = |span: &Span| {
        let (mut path, mut next) = (span.name.clone(), span.parent.as_deref());
        while let Some(parent) = next {
            let parent = names[parent];
            (path, next) = (format!("{} > {path}", parent.name), parent.parent.as_deref());
        }
        path
    };
    spans.iter().map(path).collect()
}

fn attribute<'a>(span: &'a Span, name: &str) -> &'a Value {
    span.attributes.iter().find(|(known, _)| *known == name).map_or(&Value::Null, |(_, value)| value)
}

#[tokio::test]
async fn agents_that_ask_agents_are_one_tree() {
    let world = World::new();
    let script = Scripted::new("m", |request| {
        let messages = &request.conversation.messages;
        Ok(match (messages.len(), messages[0].text().as_ref()) {
            (1, "above") => call(&[("agent.below", json!({"task": "go"})), ("look", json!({"x": "fail"}))]),
            (1, _) => call(&[("look", json!({"x": 1}))]),
            _ => say("secret words"),
        })
    });
    let mut above = agent();
    above.tools.push("agent:below".into());
    let runner = world.runner(vec![("above", above), ("below", agent())], script).await;
    let run = begun(&runner, ask("above", "above")).await;
    assert_eq!(run.status, RunStatus::Done);
    let (root, logs) = runner.trace(TENANT, &run.id, true).await.unwrap();
    let spans = all(&root, &logs, false);
    let mut paths = tree(&spans);
    paths.sort();
    assert_eq!(
        paths,
        [
            "invoke_agent above",
            "invoke_agent above > chat m",
            "invoke_agent above > chat m",
            "invoke_agent above > execute_tool agent.below",
            "invoke_agent above > execute_tool agent.below > invoke_agent below",
            "invoke_agent above > execute_tool agent.below > invoke_agent below > chat m",
            "invoke_agent above > execute_tool agent.below > invoke_agent below > chat m",
            "invoke_agent above > execute_tool agent.below > invoke_agent below > execute_tool look",
            "invoke_agent above > execute_tool look",
        ]
    );
    assert!(spans.iter().all(|span| span.trace == spans[0].trace && span.ended_by.is_some()));
    let failed: Vec<&str> = spans.iter().filter(|span| span.error.is_some()).map(|span| span.name.as_str()).collect();
    assert_eq!(failed, ["execute_tool look"]);
    let top = spans.iter().find(|span| span.name == "invoke_agent above").unwrap();
    assert_eq!((attribute(top, "gen_ai.usage.input_tokens"), &top.parent), (&json!(20), &None));
    // The run below by itself has the same ids, and no content is in either.
    let (again, alone) = runner.trace(TENANT, &logs[1].run, false).await.unwrap();
    assert_eq!((again, alone.len()), (root.clone(), 1));
    assert!(all(&root, &alone, false).iter().all(|span| spans.contains(span)));
    let quiet = otlp(&spans, "t").to_string();
    assert_eq!(quiet, otlp(&all(&root, &logs, false), "t").to_string(), "the same twice");
    assert!(!quiet.contains("secret words") && !quiet.contains("it broke") && !quiet.contains("\\\"x\\\""));
    let seen = runner.spans(TENANT, &run.id, false).await.unwrap();
    assert_eq!(seen, otlp(&spans, crate::SERVICE));
    assert!(runner.spans("otto", &run.id, false).await.is_err(), "not another's");
    let loud = otlp(&all(&root, &logs, true), "t").to_string();
    assert!(loud.contains("secret words") && loud.contains("it broke") && loud.contains("tool_call_response"));
}

#[tokio::test]
async fn in_the_form_of_the_protocol() {
    let world = World::new();
    let script = Scripted::by_turn("m", vec![call(&[("store", json!({"x": 1}))]), say("done")]);
    let mut definition = agent();
    (definition.sampling.temperature, definition.instructions) = (Some(0.7), "Be brief.".into());
    let runner = world.runner(vec![("a", definition)], script).await;
    let waits = begun(&runner, ask("a", "go")).await;
    let (root, logs) = runner.trace(TENANT, &waits.id, true).await.unwrap();
    let open: Vec<_> = all(&root, &logs, false).into_iter().filter(|span| span.ended_by.is_none()).collect();
    assert_eq!((open.len(), open[0].name.as_str()), (1, "invoke_agent a"), "what has not ended is there, and marked");
    world.clock.advance(1500);
    answered(&runner, &waits, approve()).await;
    while runner.at_work() > 0 {
        tokio::task::yield_now().await;
    }
    let still = world.still.lock().unwrap().clone();
    assert!(still.len() >= 2 && still.iter().all(|run| run == "anna/run-1"), "told when it waits and ends: {still:?}");
    let (root, logs) = runner.trace(TENANT, &waits.id, true).await.unwrap();
    let written = otlp(&all(&root, &logs, true), "desk");
    let scope = &written["resourceSpans"][0]["scopeSpans"][0];
    let spans = scope["spans"].as_array().unwrap();
    assert_eq!(written["resourceSpans"][0]["resource"]["attributes"][0]["value"]["stringValue"], "desk");
    let named = |name: &str| spans.iter().find(|span| span["name"] == name).unwrap();
    let top = named("invoke_agent a");
    assert_eq!(top["startTimeUnixNano"], "1700000000000000000");
    assert_eq!(top["endTimeUnixNano"], "1700000001500000000");
    assert_eq!(top["events"][0]["name"], "narthex.approval.approved");
    assert_eq!((top["traceId"].as_str().unwrap().len(), top["spanId"].as_str().unwrap().len()), (32, 16));
    let chat = named("chat m");
    assert_eq!((&chat["kind"], &chat["parentSpanId"]), (&json!(3), &top["spanId"]));
    let value = |span: &Value, key: &str| {
        let attributes = span["attributes"].as_array().unwrap();
        attributes.iter().find(|attribute| attribute["key"] == key).map(|attribute| attribute["value"].clone())
    };
    assert_eq!(value(chat, "gen_ai.request.temperature"), Some(json!({"doubleValue": 0.7})));
    assert_eq!(value(chat, "gen_ai.usage.output_tokens"), Some(json!({"intValue": "5"})));
    let reasons = json!({"arrayValue": {"values": [{"stringValue": "tool_calls"}]}});
    assert_eq!(value(chat, "gen_ai.response.finish_reasons"), Some(reasons));
    let instructions = json!({"stringValue": "[{\"type\":\"text\",\"content\":\"Be brief.\"}]"});
    assert_eq!(value(chat, "gen_ai.system_instructions"), Some(instructions));
    assert_eq!(
        value(named("execute_tool store"), "gen_ai.tool.call.arguments"),
        Some(json!({"stringValue": "{\"x\":1}"}))
    );
    // A copy is a trace of its own, without the spans of the other, and says what it is a copy of.
    let fork = runner.fork(TENANT, &waits.id, 2, None).await.unwrap();
    until_still(&runner, &fork).await.unwrap();
    let (root, logs) = runner.trace(TENANT, &fork, true).await.unwrap();
    let copy = all(&root, &logs, false);
    let top_of_copy = copy.iter().find(|span| span.name == "invoke_agent a").unwrap();
    assert_ne!(copy[0].trace, top["traceId"].as_str().unwrap());
    assert_eq!(top_of_copy.link.as_ref().unwrap().1, top["spanId"].as_str().unwrap());
    assert_eq!(tree(&copy).len(), copy.len());
}

#[tokio::test]
async fn what_fails_is_marked() {
    let world = World::new();
    let script = Scripted::list("m", vec![Err(crate::scripted::busy("full of words"))]);
    let mut definition = AgentDefinition::new("m");
    definition.retry.times = 0;
    let runner = world.runner(vec![("a", definition)], script).await;
    let run = begun(&runner, ask("a", "go")).await;
    let (root, logs) = runner.trace(TENANT, &run.id, true).await.unwrap();
    for (with_content, part) in [(false, ""), (true, "full of words")] {
        let spans = all(&root, &logs, with_content);
        let errors: Vec<_> = spans.iter().map(|span| span.error.clone().unwrap()).collect();
        assert!(errors.iter().all(|error| error.contains(part) && (with_content || error.is_empty())), "{errors:?}");
        let kinds: Vec<_> = spans.iter().map(|span| attribute(span, "error.type").as_str().unwrap()).collect();
        assert!(kinds.contains(&"failed") && kinds.contains(&"unavailable"));
    }
}
