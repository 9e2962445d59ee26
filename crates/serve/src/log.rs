//! The access log: a JSON object a line for each request, without its content; and what is said to the operator.

use crate::exchange::{Exchange, Outcome};
use chrono::{DateTime, SecondsFormat, Utc};
use narthex_base::{Error, Result};
use serde_json::json;
use std::{
    fs::OpenOptions,
    io::{self, Write},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Tells the operator.
pub(crate) fn warn(what: &str) {
    // Not `eprintln!`, which would panic if nobody listens.
    _ = writeln!(io::stderr(), "warning: {what}");
}

/// Where lines go.
pub(crate) struct AccessLog {
    to: Mutex<Box<dyn Write + Send>>,
    failed: AtomicBool,
}

impl AccessLog {
    /// Appends to a file; `-` is standard error.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn open(path: &Path) -> Result<Self> {
        if path == Path::new("-") {
            return Ok(Self::new(Box::new(io::stderr())));
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Error::io("cannot write the access log", path, error))?;
        Ok(Self::new(Box::new(file)))
    }

    fn new(to: Box<dyn Write + Send>) -> Self {
        Self { to: Mutex::new(to), failed: AtomicBool::new(false) }
    }

    /// Writes a line. If that fails, says so once: answers matter more than the log.
    pub fn write(&self, exchange: &Exchange, outcome: Outcome) {
        let generation = exchange.generation();
        let mut line = json!({
            "time": DateTime::<Utc>::from(exchange.time).to_rfc3339_opts(SecondsFormat::Millis, true),
            "request_id": exchange.id,
            "peer": exchange.peer,
            "method": exchange.method.as_str(),
            "path": exchange.path,
            "status": outcome.status.as_u16(),
            "complete": outcome.complete,
            "seconds": (exchange.begun.elapsed().as_secs_f64() * 1e6).round() / 1e6,
        });
        if let Some(generation) = generation {
            line["model"] = generation.model.into();
            line["prompt_tokens"] = generation.prompt_tokens.into();
            line["completion_tokens"] = generation.completion_tokens.into();
            line["first_token_seconds"] = generation.first_token_s.map(|s| (s * 1e6).round() / 1e6).into();
            line["finish_reasons"] = generation.finish_reasons.into();
        }
        let mut text = line.to_string();
        text.push('\n');
        let written = self.to.lock().unwrap_or_else(PoisonError::into_inner).write_all(text.as_bytes());
        if let Err(error) = written
            && !self.failed.swap(true, Ordering::Relaxed)
        {
            warn(&format!("the access log is incomplete: {error}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ServeOptions,
        testing::{self, answer, get, send},
    };
    use axum::{body::Body, http::Request};
    use futures::StreamExt;
    use serde_json::{Value, json};
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_line_for_each_request_and_none_of_its_content() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let options = ServeOptions { access_log: Some(path.clone()), ..ServeOptions::default() };
        let router = testing::router_with(answer("secret answer"), &options);
        let body = json!({"model": "m", "prompt": "secret prompt", "max_tokens": 6, "n": 2, "user": "secret user"});
        let request = Request::post("/v1/completions?secret=query")
            .header("content-type", "application/json")
            .header("authorization", "Bearer secret")
            .header("x-request-id", "mine-1");
        let reply = send(&router, request.body(body.to_string().into()).unwrap()).await;
        assert_eq!(reply.header("x-request-id"), "mine-1");
        let reply = get(&router, "/nowhere").await;
        let id = reply.header("x-request-id").to_string();
        assert!(id.starts_with("req-") && id.len() == 36, "{id}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("secret"), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let shown = |line: &Value, names: &[&str]| names.iter().map(|name| line[name].clone()).collect::<Value>();
        let names =
            ["request_id", "method", "path", "status", "complete", "model", "prompt_tokens", "completion_tokens"];
        assert_eq!(shown(&lines[0], &names), json!(["mine-1", "POST", "/v1/completions", 200, true, "m", 13, 12]));
        assert_eq!(lines[0]["finish_reasons"], json!(["length", "length"]));
        assert!(lines[0]["seconds"].as_f64().unwrap() >= lines[0]["first_token_seconds"].as_f64().unwrap());
        assert_eq!(shown(&lines[1], &names), json!([id, "GET", "/nowhere", 404, true, null, null, null]));
        assert_eq!(lines.len(), 2);
    }

    #[tokio::test]
    async fn a_client_that_leaves_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let options = ServeOptions { access_log: Some(path.clone()), ..ServeOptions::default() };
        let router = testing::router_with(answer("some"), &options);
        let body = json!({"model": "m", "prompt": "x", "stream": true}).to_string();
        let request = Request::post("/v1/completions").header("content-type", "application/json");
        let reply = router.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        let mut pieces = reply.into_body().into_data_stream();
        assert!(pieces.next().await.unwrap().unwrap().starts_with(b"data: "));
        drop(pieces);
        let line: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!((&line["status"], &line["complete"]), (&json!(200), &json!(false)));
        assert!(line["completion_tokens"].as_u64().unwrap() >= 1, "{line}");
    }
}
