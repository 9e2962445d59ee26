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
pub fn warn(what: &str) {
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
        let ignored = exchange.ignored();
        if !ignored.is_empty() {
            line["ignored_fields"] = ignored.into();
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
