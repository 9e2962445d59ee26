//! Evaluations from the table to the report, with scripted models, recorded ones and replayed ones.

use super::world::{World, agent};
use crate::{
    definition::AgentDefinition,
    eval::{EvalFile, Report, carry_out},
    kit::Kit,
    model::Model,
    recorded::{Recorder, Replayed},
    scripted::{Scripted, call, say},
};
use serde_json::json;
use std::sync::Arc;

const TABLE: &str = r#"
agent = "a"
approve = ["store"]

[models.m]
kind = "scripted"
answers = [
    { calls = [{ tool = "look", arguments = { x = 1 } }, { tool = "store", arguments = { x = "y" } }] },
    "It is noon.",
]

[[tasks]]
id = "passes"
prompt = "What is the time?"
[tasks.expect]
answer = { contains = ["noon"] }
calls = [{ tool = "look", arguments = { x = 1 } }, { tool = "store" }]
never = ["send"]
limits = { model_calls = 2 }

[[tasks]]
id = "waits"
prompt = "Again?"
approve = []
[tasks.expect]
status = "waits"

[[tasks]]
id = "waits, and may not"
prompt = "Again?"
approve = []

[[tasks]]
id = "is refused"
messages = [{ role = "user", content = "Well?" }]
refuse = ["st*"]
[tasks.expect]
never = ["store"]

[[tasks]]
id = "runs what it must not"
prompt = "Go."
times = 2
[tasks.expect]
never = ["store"]

[[tasks]]
id = "has a script of its own"
prompt = "Go."
[tasks.models.m]
kind = "scripted"
answers = ["{\"a\": 1}"]
[tasks.expect]
answer = { json = { a = 1 } }
no_others = true
"#;

async fn done(world: &World, file: &EvalFile, agents: &[(String, AgentDefinition)], kit: &Kit) -> Report {
    carry_out(file, agents, kit, world.folder.path(), true, |_| {}).await.unwrap()
}

#[tokio::test]
async fn a_table_is_judged() {
    let world = World::new();
    let file: EvalFile = toml::from_str(TABLE).unwrap();
    let kit = Kit { tools: world.tools(), ..Kit::default() };
    let agents = [("a".to_string(), agent())];
    let report = done(&world, &file, &agents, &kit).await;
    let verdicts: Vec<_> = report.tasks.iter().map(|task| task.reason.clone().unwrap_or_default()).collect();
    let waits =
        "it waits for approval of `store`: name the tool in `approve` or `refuse`, or expect `status = \"waits\"`";
    let ran = "the tool `store` was run, and never may be";
    assert_eq!(verdicts, ["", "", waits, "", ran, ran, ""]);
    assert_eq!((report.passed, report.failed, report.tokens_in), (4, 3, 110));
    let seeds: Vec<_> = report.tasks.iter().map(|task| (task.time, task.seed)).collect();
    assert_eq!(seeds[3..6], [(1, None), (1, Some(0)), (2, Some(1))]);
    assert!(report.tasks[3].messages.iter().any(|message| message.text().contains("it is not wanted here")));
    let again = done(&world, &file, &agents, &kit).await;
    assert_eq!(serde_json::to_string(&report).unwrap(), serde_json::to_string(&again).unwrap(), "byte for byte");
    assert_eq!(std::fs::read_dir(world.folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn what_was_recorded_is_replayed() {
    let world = World::new();
    let mut file: EvalFile = toml::from_str(TABLE).unwrap();
    file.models.clear();
    file.tasks.truncate(1);
    let agents = [("a".to_string(), agent())];
    let path = world.folder.path().join("m.jsonl");
    let answers = vec![call(&[("look", json!({"x": 1})), ("store", json!({"x": 2}))]), say("It is noon.")];
    let model: Arc<dyn Model> = Arc::new(Scripted::by_turn("m", answers));
    let with = |model: Arc<dyn Model>| Kit { models: [("m".to_string(), model)].into(), tools: world.tools() };
    let recorded = done(&world, &file, &agents, &with(Arc::new(Recorder::new(model, &path).unwrap()))).await;
    assert_eq!((recorded.passed, recorded.failed), (1, 0));
    let mut transcripts = vec![serde_json::to_string(&recorded).unwrap()];
    for _ in 0..2 {
        let replayed = done(&world, &file, &agents, &with(Arc::new(Replayed::open("m", &path).unwrap()))).await;
        transcripts.push(serde_json::to_string(&replayed).unwrap());
    }
    assert!(transcripts[0] == transcripts[1] && transcripts[1] == transcripts[2], "byte for byte");
    file.tasks[0].prompt = Some("Something else.".into());
    let other = done(&world, &file, &agents, &with(Arc::new(Replayed::open("m", &path).unwrap()))).await;
    let reason = other.tasks[0].reason.clone().unwrap();
    assert!(reason.contains("the recording has no answer to this request") && reason.contains("record it again"));
}

#[test]
fn tables_that_are_wrong() {
    for (text, part) in [
        ("", "0 tasks"),
        ("[[tasks]]\nid = 'a'\nprompt = 'x'", "names no agent"),
        ("agent = 'a'\n[[tasks]]\nid = 'a'", "either `prompt` or `messages`"),
        ("agent = 'a'\n[[tasks]]\nid = 'a'\nprompt = 'x'\n[[tasks]]\nid = 'a'\nprompt = 'x'", "two tasks"),
        ("agent = 'a'\ntimes = 0\n[[tasks]]\nid = 'a'\nprompt = 'x'", "`times`"),
        ("agent = 'a'\n[[tasks]]\nid = 'a'\nprompt = 'x'\nexpect.answer.regex = '('", "`regex`"),
        ("agent = 'a'\n[[tasks]]\nid = 'a'\nprompt = 'x'\nexpect.answer.schema = { type = 'x' }", "`schema`"),
        ("agent = 'a'\n[[tasks]]\nid = 'a'\nprompt = 'x'\ntimeout_s = 0", "`timeout_s`"),
    ] {
        let error = toml::from_str::<EvalFile>(text).unwrap().check().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!(toml::from_str::<EvalFile>("[[tasks]]\nid = 'a'\nanswer = 'x'").is_err(), "misspelt keys are told");
    let lines = EvalFile::from_lines(
        "{\"id\": \"a\", \"prompt\": \"x\", \"agent\": \"b\"}\n\n{\"id\": \"c\", \"prompt\": \"y\", \"agent\": \"b\"}",
    )
    .unwrap();
    lines.check().unwrap();
    assert_eq!(lines.tasks.len(), 2);
    assert!(EvalFile::from_lines("\n{}").unwrap_err().to_string().contains("line 2"));
}
