//! Runs in every state, as tasks.

use super::*;
use narthex_base::chat::{FunctionCall, ToolCall, ToolKind};

fn view(status: RunStatus, messages: Vec<Said>) -> RunView {
    RunView {
        id: "r1".into(),
        thread: "t1".into(),
        agent: "bard".into(),
        status,
        interrupts: vec![],
        messages,
        output: None,
        reason: None,
        started_ms: 1_000,
        changed_ms: 2_500,
        last_event: 3,
        metadata: Default::default(),
    }
}

fn user(text: &str) -> Said {
    Said::new(Speaker::User, text)
}

fn agent(text: &str) -> Said {
    Said::new(Speaker::Assistant, text)
}

fn calls(text: &str) -> Said {
    let function = FunctionCall { name: "look".into(), arguments: "{}".into() };
    Said { tool_calls: vec![ToolCall { id: "c".into(), kind: ToolKind::Function, function }], ..agent(text) }
}

#[test]
fn states_have_a_word_each() {
    for (status, expected) in [
        (RunStatus::Running, TaskState::Working),
        (RunStatus::Waiting, TaskState::InputRequired),
        (RunStatus::Done, TaskState::Completed),
        (RunStatus::Failed, TaskState::Failed),
        (RunStatus::Limited, TaskState::Failed),
        (RunStatus::Cancelled, TaskState::Canceled),
    ] {
        assert_eq!(state(status), expected);
        assert_eq!(status.is_final(), state(status).is_terminal());
    }
    let limited = RunView { reason: Some("10 model calls".into()), ..view(RunStatus::Limited, vec![]) };
    assert_eq!(status(&limited).message.unwrap().text(), Some("10 model calls"));
    assert_eq!(status(&limited).timestamp.unwrap().to_rfc3339(), "1970-01-01T00:00:02.500+00:00");
}

/// The artifacts of a run with this last message: their ids, and their parts as JSON.
fn check_artifacts(status: RunStatus, last: Said, output: Option<Value>, expected: Value) {
    let view = RunView { output, ..view(status, vec![user("u"), last]) };
    let found: Vec<Value> = artifacts(&view).iter().map(|found| json!([found.artifact_id, found.parts])).collect();
    assert_eq!(json!(found), expected);
}

#[test]
fn artifacts_are_the_answer_and_its_files() {
    use RunStatus::*;
    check_artifacts(Done, agent("a"), None, json!([["answer", [{"text": "a"}]]]));
    check_artifacts(Done, agent(""), None, json!([]));
    check_artifacts(Running, agent("a"), None, json!([]));
    check_artifacts(Failed, agent("a"), None, json!([]));
    check_artifacts(Done, calls("a"), None, json!([]));
    let data = json!([["answer", [{"data": {"k": 1}, "mediaType": "application/json"}]]]);
    check_artifacts(Done, agent("{\"k\":1}"), Some(json!({"k": 1})), data);
    let image =
        |url: &str| SaidPart::ImageUrl { image_url: narthex_base::chat::ImageUrl { url: url.into(), detail: None } };
    let parts = Said {
        content: MessageContent::Parts(vec![
            SaidPart::Text { text: "see".into() },
            image("data:image/png;base64,AAA="),
            image("https://example.com/a.png"),
        ]),
        ..agent("")
    };
    let url = "https://example.com/a.png";
    let shown = json!([["answer", [{"text": "see"}, {"raw": "AAA=", "mediaType": "image/png"}, {"url": url}]]]);
    check_artifacts(Done, parts, None, shown);
    let mut files = agent("done");
    files.others.insert(
        ATTACHMENTS.into(),
        json!([
            {"type": "resource", "uri": "file:/tmp/out.txt", "mime_type": "text/plain", "text": "hi"},
            {"type": "link", "uri": "https://example.com/x", "name": "x.csv", "mime_type": null},
            {"type": "image", "data": "not base64!", "mime_type": "image/png"},
            {"type": "bard"},
            {"type": "text", "text": "note"},
        ]),
    );
    let shown = json!([
        ["answer", [{"text": "done"}]],
        ["file-1", [{"raw": "aGk=", "filename": "out.txt", "mediaType": "text/plain"}]],
        ["file-2", [{"url": "https://example.com/x", "filename": "x.csv"}]],
        ["file-5", [{"text": "note"}]],
    ]);
    check_artifacts(Done, files, None, shown);
}

#[test]
fn a_direct_answer_is_no_task() {
    let mut message = agent("hello");
    message.others.insert(DIRECT.into(), json!(true));
    let done = view(RunStatus::Done, vec![user("u"), message]);
    let found = direct(&done).unwrap();
    assert_eq!(
        (found.text(), found.task_id.as_deref(), found.context_id.as_deref()),
        (Some("hello"), None, Some("t1"))
    );
    assert!(direct(&view(RunStatus::Done, vec![user("u"), agent("hello")])).is_none());
}

fn sent(position: usize, id: &str, text: &str, question: Option<&str>) -> Exchange {
    let message = |role, id: &str, text: &str| {
        serde_json::to_string(&Message { message_id: id.into(), ..Message::new(role, vec![Part::text(text)]) }).unwrap()
    };
    Exchange {
        position,
        message_id: id.into(),
        content: String::new(),
        done: true,
        interrupt: None,
        question: question.map(|question| message(Role::Agent, "q", question)),
        message: message(Role::User, id, text),
    }
}

/// The history of a run: ids and texts.
fn check_history(
    messages: Vec<Said>,
    status: RunStatus,
    exchanges: &[Exchange],
    length: Option<usize>,
    expected: &[&str],
) {
    let task = task(&view(status, messages), exchanges, length, true);
    let found: Vec<String> = task
        .history
        .iter()
        .flatten()
        .map(|message| format!("{}:{}", message.message_id, message.text().unwrap_or_default()))
        .collect();
    assert_eq!(found, expected);
    assert!(task.history.is_none_or(|history| !history.is_empty()), "absent, not empty");
}

#[test]
fn histories_are_what_was_sent_and_said() {
    use RunStatus::*;
    let first = [sent(0, "m1", "u", None)];
    check_history(vec![user("u"), agent("a")], Done, &first, None, &["m1:u"]);
    check_history(vec![user("u"), agent("a")], Running, &first, None, &["m1:u", "r1-1:a"]);
    check_history(vec![user("u"), calls("look"), agent("a")], Done, &first, None, &["m1:u", "r1-1:look"]);
    check_history(vec![user("u"), calls(""), agent("a")], Done, &first, None, &["m1:u"]);
    // A thread that was there before, and a run that began elsewhere.
    check_history(vec![user("old"), agent("o"), user("u"), agent("a")], Done, &first, None, &["m1:u"]);
    check_history(vec![user("u"), agent("a")], Done, &[], None, &["r1-0:u"]);
    // What was asked and answered stands where it happened.
    let answered = [sent(0, "m1", "u", None), sent(2, "m2", "yes", Some("may I?"))];
    let run = vec![user("u"), calls("hm"), agent("so"), agent("a")];
    let all = ["m1:u", "r1-1:hm", "q:may I?", "m2:yes", "r1-2:so"];
    check_history(run.clone(), Done, &answered, None, &all);
    check_history(run.clone(), Done, &answered, Some(2), &all[3..]);
    check_history(run, Done, &answered, Some(0), &[]);
    check_history(
        vec![user("u")],
        Waiting,
        &[sent(0, "m1", "u", None), sent(1, "m2", "b", None)],
        None,
        &["m1:u", "m2:b"],
    );
}

#[test]
fn questions_name_the_call_and_its_arguments() {
    let call = Interrupt {
        id: "i1".into(),
        question: "Send it?".into(),
        call: Some(("mail.send".into(), json!({"to": "a@example.com"}))),
        form: None,
        expires_ms: 9,
    };
    let form = Interrupt {
        id: "i2".into(),
        question: "Which?".into(),
        call: None,
        form: Some(json!({"type": "string"})),
        ..call.clone()
    };
    let waiting = RunView { interrupts: vec![call, form], ..view(RunStatus::Waiting, vec![]) };
    let asked = status(&waiting).message.unwrap();
    assert_eq!(asked.text(), Some("Send it?\nWhich?"));
    let PartContent::Data(data) = &asked.parts[1].content else { panic!("{asked:?}") };
    assert_eq!(data["interrupts"][0]["call"], json!({"tool": "mail.send", "arguments": {"to": "a@example.com"}}));
    assert_eq!(
        (&data["interrupts"][1]["form"], &data["interrupts"][1]["id"]),
        (&json!({"type": "string"}), &json!("i2"))
    );
}
