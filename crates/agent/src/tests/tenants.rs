//! Tenants: for one, nothing of another is there, whatever is asked.

use super::world::{TENANT, World, agent, all_runs, approve, ask, begun};
use crate::{
    agents::{AgentError, Agents, Page, RunFilter},
    definition::AgentDefinition,
    scripted::{Scripted, call, say},
};
use futures::StreamExt;
use serde_json::json;

const OTHER: &str = "bruno";

#[tokio::test]
async fn nobody_sees_anothers_runs() {
    let world = World::new();
    let script = Scripted::by_turn("m", vec![call(&[("store", json!({"x": 1}))]), say("done")]);
    let runner = world.runner(vec![("a", agent())], script).await;
    let mut first = ask("a", "a secret");
    (first.thread, first.key) = (Some("talk".into()), Some("key".into()));
    let run = begun(&runner, first.clone()).await;
    let question = &run.interrupts[0].id;
    let unknown = |error: AgentError| assert!(matches!(error, AgentError::Unknown(_)), "{error}");
    unknown(runner.run(OTHER, &run.id).await.unwrap_err());
    unknown(runner.answer(OTHER, &run.id, question, approve()).await.unwrap_err());
    unknown(runner.cancel(OTHER, &run.id).await.unwrap_err());
    unknown(runner.show(OTHER, &run.id).await.unwrap_err());
    unknown(runner.fork(OTHER, &run.id, 1, None).await.unwrap_err());
    let followed: Vec<_> = runner.follow(OTHER, &run.id, 0).collect().await;
    assert!(matches!(&followed[..], [Err(AgentError::Unknown(_))]));
    assert_eq!(all_runs(&runner, OTHER).await, []);
    let behind = Page { after: Some(run.id.clone()), size: 10 };
    assert_eq!(runner.runs(OTHER, RunFilter::default(), behind).await.unwrap(), []);
    // The same names mean other things to another.
    let mut same = first;
    (same.tenant, same.messages[0]) = (OTHER.into(), ask("a", "mine").messages[0].clone());
    let other = runner.start(same).await.unwrap();
    assert_ne!(other, run.id);
    let theirs: Vec<_> = runner.follow(OTHER, &other, 0).collect().await;
    assert!(!format!("{theirs:?}").contains("a secret"));
    assert_eq!(runner.run(TENANT, &run.id).await.unwrap(), run, "and the run is as it was");
}

#[tokio::test]
async fn memories_are_of_a_tenant_and_an_agent() {
    let world = World::new();
    let policy = json!({"rules": [{"tool": "remember", "then": "allow"}]});
    let definition = AgentDefinition {
        tools: ["remember", "recall"].map(String::from).into(),
        policy: serde_json::from_value(policy).unwrap(),
        ..AgentDefinition::new("m")
    };
    let script = Scripted::new("m", |request| {
        let messages = &request.conversation.messages;
        Ok(match (messages.len(), messages[0].text().as_ref()) {
            (1, "keep") => call(&[("remember", json!({"text": "the cat is called \"Miez\" AND sleeps"}))]),
            (1, words) => call(&[("recall", json!({"words": words}))]),
            _ => say(messages.last().unwrap().text()),
        })
    });
    let without = AgentDefinition { policy: Default::default(), ..definition.clone() };
    let agents = vec![("a", definition.clone()), ("b", definition), ("c", without)];
    let runner = world.runner(agents, script).await;
    let said = async |agent: &str, tenant: &str, text: &str| {
        let mut asked = ask(agent, text);
        asked.tenant = tenant.into();
        let run = runner.start(asked).await.unwrap();
        let _: Vec<_> = runner.follow(tenant, &run, 0).collect().await;
        runner.run(tenant, &run).await.unwrap().messages.last().unwrap().text().into_owned()
    };
    assert_eq!(said("a", TENANT, "keep").await, "kept");
    let (kept, nothing) = ("- the cat is called \"Miez\" AND sleeps", "nothing was found");
    for (agent, tenant, words, expected) in [
        ("a", TENANT, "miez?", kept),
        ("a", TENANT, "dog OR cat\"", kept),
        ("a", TENANT, "dog", nothing),
        ("a", TENANT, "text:* NOT", nothing),
        ("a", TENANT, "\"", nothing),
        ("a", OTHER, "cat", nothing),
        ("b", TENANT, "cat", nothing),
    ] {
        assert_eq!(said(agent, tenant, words).await, expected, "{agent} {tenant} {words}");
    }
    assert!(said("c", TENANT, "keep").await.contains("denied"), "nothing is kept that no rule allows");
}
