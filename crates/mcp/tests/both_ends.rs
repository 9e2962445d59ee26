//! Our client against our server, in both revisions, over HTTP and over a program's pipes.

use crate::support::{Echo, Script, call, call_told, offered, options, text};
use futures::future::BoxFuture;
use narthex_agent::{Answer, Effect};
use narthex_mcp::{
    Ability, Answered, ClientOptions, Credentials, Offer, Question, Questions, Reach, Revision, ServerSpec, connect,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

/// Answers every form so, and keeps what was asked.
struct Answers {
    abilities: Vec<Ability>,
    answer: Answered,
    asked: Mutex<Vec<Question>>,
}

impl Questions for Answers {
    fn abilities(&self) -> Vec<Ability> {
        self.abilities.clone()
    }

    fn answer(&self, _: &str, question: Question) -> BoxFuture<'static, Answered> {
        self.asked.lock().unwrap().push(question);
        Box::pin(std::future::ready(self.answer.clone()))
    }
}

fn answering(abilities: &[Ability], answer: Answered) -> (Arc<Answers>, ClientOptions) {
    let answers = Arc::new(Answers { abilities: abilities.to_vec(), answer, asked: Mutex::default() });
    (answers.clone(), ClientOptions { questions: answers, ..ClientOptions::default() })
}

fn over_http(url: &str, revision: Revision) -> ServerSpec {
    let mut spec = ServerSpec::new("ours", Reach::Http { url: url.into(), credentials: Credentials::None });
    spec.revision = revision;
    spec
}

#[tokio::test]
async fn tools_are_called() {
    let offer = Offer { name: "test".into(), tools: vec![Arc::new(Echo::new("echo"))], ..Offer::default() };
    let url = offered(offer, options()).await;
    for (revision, expected) in
        [(Revision::Auto, "2026-07-28"), (Revision::Newest, "2026-07-28"), (Revision::Older, "2025-11-25")]
    {
        let mut spec = over_http(&url, revision);
        spec.effects.insert("echo".into(), Effect::Writes);
        let server = connect(spec, ClientOptions::default()).await.unwrap();
        assert_eq!(server.revision().await.as_deref(), Some(expected));
        let tools = server.tools();
        let definition = tools[0].definition();
        assert_eq!((definition.name.as_str(), definition.effect), ("ours.echo", Effect::Writes), "{revision:?}");
        for (arguments, expected, is_error) in [
            (json!({"text": "hello"}), "hello", false),
            (json!({"text": "fail"}), "it failed", true),
            (json!({"text": "break"}), "it broke", true),
            (json!({"text": 1}), "do not fit", true),
            (json!({}), "missing properties", true),
            (json!({"text": "a", "more": 1}), "more", true),
        ] {
            let (result, told) = call_told(&tools[0], arguments.clone()).await;
            let result = result.unwrap();
            let said = text(&result);
            assert!(said.contains(expected), "{revision:?} {arguments}: {said}");
            assert_eq!(result.is_error, is_error, "{revision:?} {arguments}");
            let reached = !said.contains("fit its schema");
            assert_eq!(told, if reached { vec!["half"] } else { vec![] }, "{revision:?} {arguments}");
        }
    }
}

#[tokio::test]
async fn agents_ask_for_approval() {
    let filled = |approve: bool| {
        let fields = json!({"approve": approve, "why": "too late"});
        Answered::Filled(fields.as_object().unwrap().clone())
    };
    let by = || "local".to_string();
    for revision in [Revision::Newest, Revision::Older] {
        for (answer, said, sent) in [
            (filled(true), "sent, as local said", Answer::Approve { by: by() }),
            (filled(false), "not sent: too late", Answer::Refuse { by: by(), why: "too late".into() }),
            (Answered::Declined, "not sent: declined", Answer::Refuse { by: by(), why: "declined".into() }),
        ] {
            let script = Script::default();
            let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
            let url = offered(offer, options()).await;
            let (answers, options) = answering(&[Ability::Form], answer);
            let server = connect(over_http(&url, revision), options).await.unwrap();
            let tool = &server.tools()[0];
            let (result, told) = call_told(tool, json!({"message": "Write to Bob", "thread": "t7"})).await;
            let result = result.unwrap();
            assert_eq!(text(&result), said, "{revision:?}");
            assert!(!result.is_error);
            let structured = result.structured.unwrap();
            let expected = json!([structured["run"], structured["thread"], structured["status"]]);
            assert_eq!(expected, json!(["r1", "t7", "done"]), "{structured}");
            assert_eq!(structured["output"]["sent"], matches!(sent, Answer::Approve { .. }), "{structured}");
            assert_eq!(told, ["I ", "think."], "{revision:?}");
            // One run was started, and answered once.
            let runs = script.look();
            assert_eq!((runs.asked.len(), &runs.answers[..]), (1, &[("r1".to_string(), sent)][..]));
            assert!(runs.cancelled.is_empty());
            let Question::Form { message, .. } = &answers.asked.lock().unwrap()[0] else { panic!("no form") };
            assert!(message.contains(r#"mail.send {"to":"bob"}"#), "{message}");
        }
    }
}

#[tokio::test]
async fn who_cannot_be_asked_is_told() {
    for revision in [Revision::Newest, Revision::Older] {
        let script = Script::default();
        let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
        let server = connect(over_http(&offered(offer, options()).await, revision), ClientOptions::default()).await;
        let server = server.unwrap();
        let result = call(&server.tools()[0], json!({"message": "Write to Bob"})).await.unwrap();
        assert!(result.is_error && text(&result).contains("narthex agent approve r1"), "{}", text(&result));
        assert!(script.look().answers.is_empty() && script.look().cancelled.is_empty());
    }
}

#[tokio::test]
async fn a_run_whose_caller_goes_away_is_cancelled() {
    for revision in [Revision::Newest, Revision::Older] {
        let script = Script::default();
        script.look().endless = true;
        let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
        let url = offered(offer, options()).await;
        let server = connect(over_http(&url, revision), ClientOptions::default()).await.unwrap();
        let tool = server.tools()[0].clone();
        let calling = tokio::spawn(async move { call(&tool, json!({"message": "Write to Bob"})).await.is_ok() });
        while script.look().asked.is_empty() {
            tokio::task::yield_now().await;
        }
        calling.abort();
        while script.look().cancelled.is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(script.look().cancelled, ["r1"], "{revision:?}");
    }
}

fn fixture(revision: Revision, before: &str) -> ServerSpec {
    let tests = std::env::current_exe().unwrap();
    // Cargo builds examples beside the tests.
    let program = tests.ancestors().nth(2).unwrap().join("examples/fixture");
    let reach = Reach::Stdio {
        program: "/bin/sh".into(),
        arguments: vec!["-c".into(), format!("{before} exec {} stdio", program.display())],
        environment: BTreeMap::new(),
        folder: None,
    };
    let mut spec = ServerSpec::new("ours", reach);
    spec.revision = revision;
    spec
}

#[tokio::test]
async fn a_program_is_used_and_ends_with_its_tools() {
    for (revision, expected) in [(Revision::Auto, "2026-07-28"), (Revision::Older, "2025-11-25")] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        // A child of its own, which must not outlive it.
        let before = format!("sleep 1000 & echo $! $$ > {};", file.display());
        let (_, options) = answering(&[Ability::Form], Answered::Declined);
        let server = connect(fixture(revision, &before), options).await.unwrap();
        assert_eq!(server.revision().await.as_deref(), Some(expected));
        let tools = server.tools();
        let find = |name: &str| tools.iter().find(|tool| tool.definition().name == format!("ours.{name}")).unwrap();
        let (result, told) = call_told(find("test_tool_with_progress"), json!({})).await;
        assert_eq!((text(&result.unwrap()).as_str(), told.len()), ("done", 3));
        let result = call(find("test_elicitation"), json!({"message": "who?"})).await.unwrap();
        assert_eq!(text(&result), "User response: action=decline, content={}");
        assert_eq!(server.resources(None).await.unwrap().entries.len(), 2);
        assert_eq!(server.templates(None).await.unwrap().entries[0].uri, "test://template/{id}/data");
        assert!(format!("{:?}", server.read("test://static-text").await.unwrap()).contains("static text resource"));
        let error = server.read("test://none").await.unwrap_err();
        assert!(error.causes()[0].contains("test://none"), "{error:?}");
        assert_eq!(server.prompts(None).await.unwrap().entries.len(), 5);
        let variables = BTreeMap::from([("arg1".into(), "a".into()), ("arg2".into(), "b".into())]);
        let messages = server.prompt("test_prompt_with_arguments", &variables).await.unwrap();
        assert!(format!("{messages:?}").contains("arg1='a', arg2='b'"), "{messages:?}");
        let written = std::fs::read_to_string(&file).unwrap();
        let processes: Vec<String> = written.split_whitespace().map(|id| format!("/proc/{id}/stat")).collect();
        assert!(processes.iter().all(|process| std::fs::exists(process).unwrap()), "{written}");
        drop((server, tools));
        // A zombie waits for whoever adopted it, and runs no more.
        let runs = |process: &String| std::fs::read_to_string(process).is_ok_and(|stat| !stat.contains(") Z "));
        while processes.iter().any(runs) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn programs_that_do_not_speak_are_explained() {
    let program = |program: &str, arguments: &[&str]| {
        let arguments = arguments.iter().map(|word| word.to_string()).collect();
        let reach = Reach::Stdio { program: program.into(), arguments, environment: BTreeMap::new(), folder: None };
        ServerSpec::new("theirs", reach)
    };
    for (spec, expected) in [
        (program("no-such-program-anywhere", &[]), "there is no program"),
        (program("/bin/sh", &["-c", "echo 'no token' >&2; exit 1"]), "it wrote: no token"),
        (program("/bin/sh", &["-c", "read line; echo hello"]), "connection closed"),
    ] {
        let error = connect(spec, ClientOptions::default()).await.err().unwrap();
        let all = format!("{}: {}", error.what(), error.causes().join(": "));
        assert!(all.contains(expected), "{expected}: {all}");
    }
    // No time at all is the same as too little of it.
    let limits = narthex_mcp::ClientLimits { connect_s: 0, ..Default::default() };
    let silent = program("/bin/sh", &["-c", "while read line; do :; done"]);
    let error = connect(silent, ClientOptions { limits, ..ClientOptions::default() }).await.err().unwrap();
    assert!(error.what().contains("did not answer within 0 s"), "{error:?}");
}

#[tokio::test]
async fn calls_end() {
    for (limit_of_ours, limit_of_theirs, expected) in
        [(0, 600, "no answer came within 0 s"), (300, 0, "took longer than 0 s")]
    {
        let script = Script::default();
        script.look().endless = true;
        let offer = Offer { agents: Some(Arc::new(script.clone())), ..Offer::default() };
        let mut server_options = options();
        server_options.limits.agent_s = limit_of_theirs;
        let url = offered(offer, server_options).await;
        let limits = narthex_mcp::ClientLimits { call_s: limit_of_ours, ..Default::default() };
        let spec = over_http(&url, Revision::Newest);
        let server = connect(spec, ClientOptions { limits, ..ClientOptions::default() }).await.unwrap();
        let said = match call(&server.tools()[0], json!({"message": "Write to Bob"})).await {
            Ok(result) => text(&result),
            Err(failure) => failure.message,
        };
        assert!(said.contains(expected), "{said}");
    }
}
