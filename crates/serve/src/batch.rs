//! Requests from a file, answers to a file, in the form of OpenAI's batches
//! (<https://platform.openai.com/docs/guides/batch>): each line goes through the same routes as a request over HTTP. An
//! answer is written as soon as it is there, so that an interrupted batch goes on where it stopped.

use crate::{Models, ServeOptions, Served, Serving, router};
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
};
use futures::{StreamExt, stream};
use narthex_base::{Error, Observer, Result};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tower::ServiceExt;

/// How long a line waits before it asks a full queue again.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// What a line may ask.
const URLS: [&str; 3] = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"];

/// Bytes of an answer at most; larger ones are not answers.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BatchSummary {
    /// Lines of the input.
    pub lines: usize,
    /// Lines that an earlier run had answered.
    pub known: usize,
    /// Lines answered now.
    pub answered: usize,
    /// Of those, lines whose answer is an error.
    pub failed: usize,
}

/// A line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    custom_id: String,
    method: String,
    url: String,
    body: Value,
}

/// A line of the output.
#[derive(Serialize)]
struct Answer<'a> {
    id: String,
    custom_id: &'a str,
    response: Response,
    error: Option<()>,
}

#[derive(Serialize)]
struct Response {
    status_code: u16,
    request_id: String,
    body: Value,
}

/// Answers every line of `input` that `output` does not hold yet, `at_once` at a time.
///
/// # Errors
/// If a line is not a request (it is named, and nothing has been answered), a file cannot be read or written, or the
/// work is interrupted.
pub fn run_batch(
    model: Served,
    input: &Path,
    output: &Path,
    at_once: usize,
    observer: Observer,
) -> Result<BatchSummary> {
    let known = known_ids(output)?;
    let mut summary = BatchSummary::default();
    let mut seen = HashSet::new();
    for_lines(input, |number, line| {
        if !seen.insert(line.custom_id.clone()) {
            return Err(Error::input(format!("`custom_id` {:?} stands in the file twice", line.custom_id))
                .at(input.display(), number)
                .help("answers are told apart by it: give each line one of its own"));
        }
        summary.lines += 1;
        summary.known += usize::from(known.contains(&line.custom_id));
        Ok(())
    })?;
    let cannot_write = |error: std::io::Error| Error::io("cannot write", output, error);
    let mut file = OpenOptions::new().create(true).append(true).open(output).map_err(cannot_write)?;
    // The guards are for other sites and keys; here the caller is the user.
    let routes = router(Models::of(Arc::new(Serving::new(model))), &ServeOptions::default())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::input("cannot start the batch").cause(error))?;
    let mut lines = Vec::new();
    for_lines(input, |_, line| {
        if !known.contains(&line.custom_id) {
            lines.push(line);
        }
        Ok(())
    })?;
    let total = lines.len() as u64;
    runtime.block_on(async {
        let answers = stream::iter(lines).map(|line| answer(routes.clone(), line)).buffer_unordered(at_once.max(1));
        let mut answers = std::pin::pin!(answers);
        while let Some((custom_id, response)) = answers.next().await {
            summary.answered += 1;
            summary.failed += usize::from(response.status_code != StatusCode::OK.as_u16());
            let id = format!("batch_req_{}", summary.known + summary.answered);
            let answer = Answer { id, custom_id: &custom_id, response, error: None };
            let mut text = serde_json::to_string(&answer).expect("our own types serialize");
            text.push('\n');
            file.write_all(text.as_bytes()).map_err(cannot_write)?;
            observer.progress(summary.answered as u64, total, "requests", "");
            observer.check()?;
        }
        file.sync_all().map_err(cannot_write)
    })?;
    Ok(summary)
}

/// One line through the routes; a full queue is asked again.
async fn answer(routes: Router, line: Line) -> (String, Response) {
    let body = line.body.to_string();
    loop {
        let request = Request::builder()
            .method(line.method.as_str())
            .uri(&line.url)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.clone()))
            .expect("method and path were checked");
        let reply = match routes.clone().oneshot(request).await {
            Ok(reply) => reply,
            Err(never) => match never {},
        };
        let status = reply.status();
        let bytes = to_bytes(reply.into_body(), ANSWER_BYTES_MAX).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if status == StatusCode::SERVICE_UNAVAILABLE && body["error"]["code"] == "queue_full" {
            tokio::time::sleep(RETRY_AFTER).await;
            continue;
        }
        let request_id = body["id"].as_str().unwrap_or_default().to_string();
        return (line.custom_id, Response { status_code: status.as_u16(), request_id, body });
    }
}

/// Reads the input line by line; empty lines do not count.
fn for_lines(input: &Path, mut each: impl FnMut(usize, Line) -> Result<()>) -> Result<()> {
    let file = File::open(input).map_err(|error| Error::io("cannot read", input, error))?;
    for (index, text) in BufReader::new(file).lines().enumerate() {
        let text = text.map_err(|error| Error::io("cannot read", input, error))?;
        if text.trim().is_empty() {
            continue;
        }
        let wrong = |what: String| Error::input(what).at(input.display(), index + 1);
        let line: Line = serde_json::from_str(&text).map_err(|error| {
            wrong("this line is not a request".into()).cause(error).help(
                "a line is like {\"custom_id\": \"1\", \"method\": \"POST\", \"url\": \"/v1/chat/completions\", \"body\": {…}}",
            )
        })?;
        if line.method != "POST" || !URLS.contains(&line.url.as_str()) {
            return Err(wrong(format!("a batch cannot do {} {}", line.method, line.url))
                .help("`method` is POST, `url` is /v1/chat/completions, /v1/completions or /v1/embeddings"));
        }
        if line.body["stream"] == json!(true) {
            return Err(wrong("a batch does not stream".into()).help("leave `stream` out of the body"));
        }
        each(index + 1, line)?;
    }
    Ok(())
}

/// The `custom_id`s that the output holds. What an interruption left of a line is cut off.
fn known_ids(output: &Path) -> Result<HashSet<String>> {
    #[derive(Deserialize)]
    struct Known {
        custom_id: String,
    }
    let cannot = |error: std::io::Error| Error::io("cannot read", output, error);
    let file = match OpenOptions::new().read(true).write(true).open(output) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashSet::new()),
        other => other.map_err(cannot)?,
    };
    let (mut known, mut whole) = (HashSet::new(), 0);
    let mut reader = BufReader::new(&file);
    let mut text = String::new();
    for number in 1.. {
        text.clear();
        let read = reader.read_line(&mut text).map_err(cannot)?;
        if read == 0 || !text.ends_with('\n') {
            break;
        }
        let line: Known = serde_json::from_str(&text).map_err(|error| {
            Error::input("this is not an answer of a batch")
                .at(output.display(), number)
                .cause(error)
                .help("name another file for the answers")
        })?;
        known.insert(line.custom_id);
        whole += read as u64;
    }
    let mut file = &file;
    file.set_len(whole).and_then(|()| file.seek(SeekFrom::End(0))).map_err(cannot)?;
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use std::fs;

    fn line(id: &str, body: Value) -> String {
        let line = json!({"custom_id": id, "method": "POST", "url": "/v1/completions", "body": body});
        format!("{line}\n")
    }

    fn run(input: &str, output: &Path) -> Result<BatchSummary> {
        let path = output.with_extension("in");
        fs::write(&path, input).unwrap();
        let model = testing::model(testing::answer("yes"));
        run_batch(model, &path, output, 3, Observer::silent())
    }

    fn answers(output: &Path) -> Vec<(String, u64, Value)> {
        let text = fs::read_to_string(output).unwrap();
        let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut found: Vec<_> = lines
            .map(|line| {
                let status = line["response"]["status_code"].as_u64().unwrap();
                (line["custom_id"].as_str().unwrap().to_string(), status, line["response"]["body"].clone())
            })
            .collect();
        found.sort_by(|a, b| a.0.cmp(&b.0));
        found
    }

    #[test]
    fn answers_every_line_and_goes_on_where_it_stopped() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let body = json!({"model": "m", "prompt": "x"});
        let mut input: String = (0..5).map(|i| line(&i.to_string(), body.clone())).collect();
        assert_eq!(run(&input, &output).unwrap(), BatchSummary { lines: 5, known: 0, answered: 5, failed: 0 });
        let whole = fs::read_to_string(&output).unwrap();
        // As an interruption leaves it: half a line at the end.
        let kept = whole.lines().next().unwrap().len() + 10;
        fs::write(&output, &whole[..kept]).unwrap();
        input += &line("bad", json!({"model": "m", "prompt": "x", "n": 0}));
        assert_eq!(run(&input, &output).unwrap(), BatchSummary { lines: 6, known: 1, answered: 5, failed: 1 });
        let found = answers(&output);
        assert_eq!(found.len(), 6);
        assert!(found[..5].iter().all(|(_, status, body)| *status == 200 && body["choices"][0]["text"] == "yes"));
        assert_eq!((found[5].1, &found[5].2["error"]["param"]), (400, &json!("n")));
        assert_eq!(run(&input, &output).unwrap(), BatchSummary { lines: 6, known: 6, answered: 0, failed: 0 });
    }

    #[test]
    fn lines_that_are_no_requests_are_named_before_any_work() {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("out.jsonl");
        let good = line("a", json!({}));
        for (bad, expected) in [
            ("nonsense\n".to_string(), "this line is not a request"),
            (good.clone(), "stands in the file twice"),
            (line("b", json!({"stream": true})), "a batch does not stream"),
            (good.replace("/v1/completions", "/v1/models"), "a batch cannot do POST /v1/models"),
            (good.replace("POST", "GET"), "a batch cannot do GET /v1/completions"),
            (good.replace("method", "colour"), "this line is not a request"),
        ] {
            let error = run(&format!("{good}\n{bad}"), &output).unwrap_err();
            assert!(error.what().contains(expected), "{error}");
            assert!(error.to_string().contains(".in:3"), "{error}");
            assert!(!output.exists());
        }
        fs::write(&output, "something else\n").unwrap();
        let error = run(&good, &output).unwrap_err();
        assert!(error.what().contains("not an answer of a batch"), "{error}");
        assert_eq!(fs::read_to_string(&output).unwrap(), "something else\n");
    }
}
