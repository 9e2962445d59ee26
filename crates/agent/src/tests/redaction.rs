//! What is to be masked is nowhere: not in what a model is sent, not in what others are told, not in the file.

use super::world::{TENANT, World, agent, ask, until_still};
use crate::{
    agents::{Agents, Answer},
    event::Edit,
    redact::Redact,
    scripted::{Scripted, call, say},
    tool::{Call, Effect, Progress, Tool, ToolDefinition, ToolFailure, ToolResult},
};
use futures::future::BoxFuture;
use narthex_base::chat::MessageContent;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

const MAIL: &str = "anna@example.org";
const CARD: &str = "4111 1111 1111 1111";
const PHONE: &str = "+49 170 1234567";
const IBAN: &str = "DE89 3704 0044 0532 0130 00";
const IP: &str = "203.0.113.7";
const TOKEN: &str = "AKIAIOSFODNN7EXAMPLE";

/// Gives back what is nobody's business, and keeps what it was called with.
struct Leaky {
    definition: ToolDefinition,
    called: Arc<Mutex<Vec<Value>>>,
}

impl Tool for Leaky {
    fn definition(&self) -> &ToolDefinition {
        &self.definition
    }

    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>> {
        self.called.lock().unwrap().push(Value::Object(call.arguments));
        Box::pin(async move {
            progress(1.0, None, Some(MAIL));
            let mut result = ToolResult::text(format!("{MAIL} pays with {CARD} from {IP}"));
            result.structured = Some(json!({MAIL: [CARD, {"iban": IBAN}]}));
            Ok(result)
        })
    }
}

#[tokio::test]
async fn nothing_of_it_is_kept_sent_or_told() {
    let world = World::new();
    let called = Arc::new(Mutex::new(vec![]));
    let (name, description) = ("leaky".to_string(), "Tells all.".to_string());
    let input_schema = json!({"type": "object"});
    let definition = ToolDefinition { name, description, input_schema, output_schema: None, effect: Effect::Reads };
    let leaky = Arc::new(Leaky { definition, called: called.clone() });
    let answers = vec![
        call(&[("leaky", json!({"to": MAIL, "n": 4_111_111_111_111_111_u64}))]),
        call(&[("store", json!({"x": TOKEN}))]),
        say(format!("Call {PHONE}. It is {IP}. Or {MAIL}")),
    ];
    let model = Arc::new(Scripted::by_turn("m", answers));
    let mut definition = agent();
    definition.redact = Redact::ALL.to_vec();
    definition.tools.push("leaky".into());
    let mut kit = crate::kit::Kit { tools: world.tools(), ..Default::default() };
    kit.models.insert("m".into(), model.clone());
    kit.tools.push(leaky);
    let agents = vec![("a".to_string(), definition)];
    let runner = crate::Runner::new(agents, kit, world.store().await, world.surroundings("here")).unwrap();
    let mut asked = ask("a", &format!("I am {MAIL}, {IBAN}, {TOKEN}"));
    asked.metadata.insert("who".into(), MAIL.into());
    let run = runner.start(asked).await.unwrap();
    let (events, waits) = until_still(&runner, &run).await.unwrap();
    let refuse = Answer::Refuse { by: "berta".into(), why: format!("ask {MAIL}") };
    runner.answer(TENANT, &run, &waits.interrupts[0].id, refuse).await.unwrap();
    let (more, done) = until_still(&runner, &run).await.unwrap();
    assert_eq!(done.messages.last().unwrap().text(), "Call [phone]. It is [ip]. Or [email]");
    assert_eq!(*called.lock().unwrap(), [json!({"to": "[email]", "n": "[card]"})]);
    let edit = Edit { message: 0, content: MessageContent::Text(format!("I am {MAIL}")) };
    let fork = runner.fork(TENANT, &run, 1, Some(edit)).await.unwrap();
    until_still(&runner, &fork).await.unwrap();
    let mut seen = serde_json::to_string(&(events, more, done)).unwrap();
    seen += &serde_json::to_string(&model.requests()).unwrap();
    drop(runner);
    for ending in ["", "-wal"] {
        let path = world.folder.path().join(format!("runs.db{ending}"));
        seen += &String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default());
    }
    assert!(seen.contains("SQLite format 3") && seen.contains("[email]") && seen.contains("[iban]"));
    for secret in [MAIL, CARD, PHONE, IBAN, IP, TOKEN, "4111111111111111"] {
        let place = seen.find(secret).map(|at| &seen[seen.floor_char_boundary(at.saturating_sub(200))..at]);
        assert_eq!(place, None, "{secret}");
    }
}

#[tokio::test]
async fn agents_below_keep_no_more_than_those_above() {
    let world = World::new();
    let script = Scripted::new("m", |request| {
        let messages = &request.conversation.messages;
        Ok(match (messages.len(), messages[0].text().starts_with("above")) {
            (1, true) => call(&[("agent.below", json!({"task": "go"}))]),
            (1, false) => say(format!("ask {MAIL}")),
            _ => say("done"),
        })
    });
    let mut above = crate::AgentDefinition::new("m");
    above.tools = vec!["agent:below".into()];
    above.redact = vec![Redact::Email];
    let runner = world.runner(vec![("above", above), ("below", crate::AgentDefinition::new("m"))], script).await;
    let run = runner.start(ask("above", "above")).await.unwrap();
    until_still(&runner, &run).await.unwrap();
    let (_, logs) = runner.trace(TENANT, &run, true).await.unwrap();
    assert_eq!(logs.len(), 2);
    let text = format!("{logs:?}");
    assert!(text.contains("ask [email]") && !text.contains(MAIL));
}
