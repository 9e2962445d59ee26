//! The system under test of the official suite: an agent that does what the suite's message ids ask for. Listens on
//! 127.0.0.1; the store is the second argument, `once` as the third keeps a message that comes twice one task.

#[path = "../tests/scripted/mod.rs"]
mod scripted;

use narthex_a2a::{A2aOptions, CardSigner, Screen, Store, router};
use narthex_agent::{Answer, Ask, RunStatus};
use narthex_base::chat::Message;
use scripted::{Script, Scripted, Step, agent, interrupt, message_id, said, with_files};
use serde_json::{Map, Value, json};
use std::{path::Path, sync::Arc, time::Duration};

/// How long the suite waits for a stream; it may be told so.
fn streaming_timeout() -> Duration {
    let seconds = std::env::var("TCK_STREAMING_TIMEOUT").ok().and_then(|text| text.parse().ok());
    Duration::from_secs_f64(seconds.unwrap_or(2.0))
}

fn asks() -> Vec<Step> {
    vec![Step::Ask(interrupt("input", "What else?", None))]
}

fn streamed(text: &'static str) -> Vec<Step> {
    vec![Step::Piece(text), Step::Done(said(text))]
}

/// By <https://github.com/a2aproject/a2a-tck>, `scenarios/*.feature`. An answer has no message id: its words tell it.
/// Other suites name the same behaviours by the first word of the text.
fn script(ask: &Ask, answer: Option<&Answer>) -> Vec<Step> {
    let id = message_id(ask);
    let text = ask.messages.last().map(|message| message.text().to_string()).unwrap_or_default();
    let is = |name: &str| id.starts_with(name) || id.starts_with(&format!("tck-{name}")) || text.starts_with(name);
    if let Some(answer) = answer {
        let said_so =
            |words: &str| matches!(answer, Answer::Say { value: Value::String(text) } if text.starts_with(words));
        let again = said_so("TCK history message") || (is("tck-multi-turn") && !said_so("done"));
        return if again { asks() } else { vec![Step::Done(said("Hello from TCK"))] };
    }
    let text_file =
        json!([{"type": "resource", "uri": "file:output.txt", "mime_type": "text/plain", "text": "output"}]);
    let with_link = json!([
        {"type": "link", "uri": "https://example.com/output.txt", "name": "output.txt", "mime_type": "text/plain"}
    ]);
    let chunks = || vec![Step::Piece("chunk-1 "), Step::Piece("chunk-2"), Step::Done(said("chunk-1 chunk-2"))];
    match () {
        () if is("tck-artifact-text") => vec![Step::Done(said("Generated text content"))],
        () if is("tck-artifact-file-url") => vec![Step::Done(with_files(with_link))],
        () if is("tck-artifact-file") => vec![Step::Done(with_files(text_file))],
        () if is("tck-artifact-data") => vec![Step::Structured(json!({"key": "value", "count": 42}))],
        () if is("tck-message-response") => {
            let others = Map::from_iter([("direct".to_string(), json!(true))]);
            vec![Step::Done(Message { others, ..said("Direct message response") })]
        }
        () if is("tck-input-required") || is("tck-multi-turn") => asks(),
        () if is("tck-reject-task") || is("tck-task-failure") => vec![Step::Fail(RunStatus::Failed, "rejected")],
        () if is("tck-cancel") => vec![Step::Wait(Duration::from_secs(60)), Step::Done(said("Hello from TCK"))],
        () if is("tck-delayed-complete") || is("tck-long-running") => {
            vec![Step::Wait(streaming_timeout()), Step::Done(said("Hello from TCK"))]
        }
        () if is("tck-stream-001") || is("tck-stream-basic") => streamed("Stream hello from TCK"),
        () if is("tck-stream-002") => vec![Step::Done(said(""))],
        () if is("tck-stream-003") => streamed("Stream task lifecycle"),
        () if is("tck-stream-ordering-001") => streamed("Ordered output"),
        () if is("tck-stream-artifact-text") => streamed("Streamed text content"),
        () if is("tck-stream-artifact-file") => vec![Step::Done(with_files(text_file))],
        () if is("tck-stream-artifact-chunked") || is("tck-stream-chunked") => chunks(),
        () if is("test-resubscribe-message-id") => {
            vec![Step::Wait(2 * streaming_timeout()), Step::Done(said("Hello from TCK"))]
        }
        () => vec![Step::Done(said("Hello from TCK"))],
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let port: u16 = arguments.next().unwrap_or("9999".into()).parse()?;
    let path = arguments.next().unwrap_or("tck-sut.db".into());
    let store = Store::open(Path::new(&path)).await.map_err(|error| error.to_string())?;
    let mut options = A2aOptions::new(format!("http://127.0.0.1:{port}"), store);
    options.once = arguments.next().as_deref() == Some("once");
    let key = include_str!("../tests/keys/key.pem");
    options.signer = Some(CardSigner::from_pem(key, Path::new("key.pem")).map_err(|error| error.to_string())?);
    // The suite's own receiver of push notifications listens there.
    options.screen =
        Screen::new(std::env::var("A2A_ALLOWED").unwrap_or_default().split(',').filter(|host| !host.is_empty()));
    // The kit's test of a media type that is not supported fails unless the message is taken.
    options.input_modes.extend(std::env::var("A2A_INPUT_MODE").ok());
    options.warn = Arc::new(|what| eprintln!("{what}"));
    let script: Script = Arc::new(script);
    let routes = router(Arc::new(Scripted::new(vec![agent("tck"), agent("other")], script)), options);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://127.0.0.1:{port}");
    axum::serve(listener, routes).await?;
    Ok(())
}
