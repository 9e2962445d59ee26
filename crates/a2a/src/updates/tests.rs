//! Events of a run, and the updates that are made of them.

use super::*;
use narthex_agent::Interrupt;
use narthex_base::chat::{FunctionCall, Message as Said, Role as Speaker, ToolCall, ToolKind};

fn view(status: RunStatus, messages: Vec<Said>, output: Option<Value>) -> RunView {
    RunView {
        id: "r".into(),
        thread: "t".into(),
        agent: "bard".into(),
        status,
        interrupts: vec![],
        messages,
        output,
        reason: None,
        started_ms: 1,
        changed_ms: 2,
        last_event: 3,
        metadata: Default::default(),
    }
}

fn piece(text: &str) -> RunEventKind {
    RunEventKind::Said { delta: Delta::Text(text.into()) }
}

fn whole(text: &str) -> RunEventKind {
    RunEventKind::Message { message: Said::new(Speaker::Assistant, text) }
}

fn call(text: &str) -> RunEventKind {
    let function = FunctionCall { name: "look".into(), arguments: "{}".into() };
    let tool_calls = vec![ToolCall { id: "c".into(), kind: ToolKind::Function, function }];
    RunEventKind::Message { message: Said { tool_calls, ..Said::new(Speaker::Assistant, text) } }
}

/// An update in short: `answer:text` with `+` where it is appended and `.` where it is the last piece; a state with its
/// message.
fn short(update: &StreamResponse) -> String {
    match update {
        StreamResponse::ArtifactUpdate(update) => {
            let append = if update.append == Some(true) { "+" } else { "" };
            let last = if update.last_chunk == Some(true) { "." } else { "" };
            let part = match &update.artifact.parts[0].content {
                PartContent::Text(text) => text.clone(),
                other => format!("{other:?}"),
            };
            format!("{append}{}:{part}{last}", update.artifact.artifact_id)
        }
        StreamResponse::StatusUpdate(update) => {
            let word = update.status.message.as_ref().and_then(|message| message.text()).unwrap_or_default();
            format!("{:?}{}{word}", update.status.state, if word.is_empty() { "" } else { " " })
        }
        other => panic!("{other:?}"),
    }
}

/// Tells events, then the end of this run.
fn check(pieces: bool, events: Vec<RunEventKind>, end: RunView, expected: &[&str]) {
    let mut updates = Updates::new(&end, pieces);
    let mut found = Vec::new();
    for (number, kind) in (1..).zip(events) {
        found.extend(updates.tell(&RunEvent { number, at_ms: 5, kind }));
    }
    found.extend(updates.end(&end));
    assert_eq!(found.iter().map(short).collect::<Vec<_>>(), expected);
    assert!(is_last(found.last().unwrap()));
}

#[test]
fn an_answer_comes_in_pieces_or_whole() {
    let done = |text: &str| view(RunStatus::Done, vec![Said::new(Speaker::Assistant, text)], None);
    let pieces = || vec![RunEventKind::Working, piece("a"), piece("b"), piece("c"), whole("abc")];
    check(true, pieces(), done("abc"), &["Working", "answer:a", "+answer:b", "+answer:c.", "Completed"]);
    check(false, pieces(), done("abc"), &["Working", "answer:abc.", "Completed"]);
    check(true, vec![whole("abc")], done("abc"), &["answer:abc.", "Completed"]);
    check(true, vec![piece("abc"), whole("abc")], done("abc"), &["answer:abc.", "Completed"]);
    // The end of an answer that was joined in the middle, or changed before it was given.
    check(true, vec![piece("b"), piece("c"), whole("abc")], done("abc"), &["answer:b", "answer:abc.", "Completed"]);
    check(true, vec![piece("secret"), whole("[cut]")], done("[cut]"), &["answer:[cut].", "Completed"]);
    // A reader who came after the last message.
    check(true, vec![], done("abc"), &["answer:abc.", "Completed"]);
    let long = "x".repeat(PIECES_BYTES_MAX);
    let held = ["answer:a".to_string(), format!("answer:{long}a."), "Completed".into()];
    let held: Vec<&str> = held.iter().map(String::as_str).collect();
    check(
        true,
        vec![piece("a"), piece("b"), piece(&long), whole(&format!("{long}a"))],
        done(&format!("{long}a")),
        &held,
    );
}

#[test]
fn a_call_after_all_begins_the_answer_anew() {
    let done = view(RunStatus::Done, vec![Said::new(Speaker::Assistant, "xy")], None);
    let started = RunEventKind::ToolStarted { call: "c".into(), tool: "look".into(), arguments: json!({"secret": 1}) };
    let progress = RunEventKind::ToolProgress { call: "c".into(), done: 1.0, of: Some(2.0), word: Some("half".into()) };
    let events =
        vec![piece("I "), piece("look"), call("I look"), started, progress, piece("x"), piece("y"), whole("xy")];
    let expected = ["answer:I ", "Working I look", "Working", "Working half", "answer:x", "+answer:y.", "Completed"];
    check(true, events, done, &expected);
}

#[test]
fn data_replaces_what_was_told() {
    let done = view(RunStatus::Done, vec![Said::new(Speaker::Assistant, "{}")], Some(json!(1)));
    check(true, vec![piece("{}"), whole("{}")], done, &["answer:{}.", "answer:Data(Number(1)).", "Completed"]);
}

#[test]
fn other_ends_give_no_artifact() {
    for (status, word) in
        [(RunStatus::Failed, "Failed"), (RunStatus::Limited, "Failed"), (RunStatus::Cancelled, "Canceled")]
    {
        let end = view(status, vec![Said::new(Speaker::Assistant, "a")], None);
        check(true, vec![piece("a"), piece("b")], end, &["answer:a", word]);
    }
}

#[test]
fn arguments_of_tools_are_not_told() {
    let mut updates = Updates::new(&view(RunStatus::Running, vec![], None), true);
    let kind = RunEventKind::ToolStarted { call: "c".into(), tool: "look".into(), arguments: json!({"secret": 1}) };
    let told = updates.tell(&RunEvent { number: 1, at_ms: 5, kind });
    let json = serde_json::to_string(&told).unwrap();
    assert!(json.contains("look") && !json.contains("secret"), "{json}");
    let interrupt = Interrupt { id: "i".into(), question: "?".into(), call: None, form: None, expires_ms: 0 };
    let waiting = RunView { interrupts: vec![interrupt], ..view(RunStatus::Waiting, vec![], None) };
    assert_eq!(short(&updates.pause(&waiting)), "InputRequired ?");
}
