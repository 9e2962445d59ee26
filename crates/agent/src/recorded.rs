//! Answers of a model written down, and given again: an evaluation that costs nothing and gives the same each time.
//! A line of the file is a request's digest with the answer. Knows no network; what it records is another [`Model`].

use crate::{
    canonical::canonical_digest,
    model::{Delta, Model, ModelAnswer, ModelFailure, ModelRequest},
};
use futures::future::BoxFuture;
use narthex_base::{Digest, Error, Result};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, VecDeque},
    fs::{File, OpenOptions},
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

/// A larger file is not read.
const RECORD_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    request: Digest,
    answer: ModelAnswer,
}

fn digest(request: &ModelRequest) -> Digest {
    canonical_digest(&serde_json::to_value(request).unwrap_or_default())
}

/// Asks another model, and writes down what it answers.
pub struct Recorder {
    model: Arc<dyn Model>,
    file: Arc<Mutex<File>>,
}

impl Recorder {
    /// Adds to a file, or begins it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn new(model: Arc<dyn Model>, path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| Error::io("cannot write the recording", path, error))?;
        Ok(Self { model, file: Arc::new(Mutex::new(file)) })
    }
}

impl Model for Recorder {
    fn name(&self) -> &str {
        self.model.name()
    }

    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, std::result::Result<ModelAnswer, ModelFailure>> {
        let (file, digest) = (self.file.clone(), digest(&request));
        let answer = self.model.answer(request, said);
        Box::pin(async move {
            let answer = answer.await?;
            let failed = |why: String| ModelFailure {
                message: format!("cannot write the recording: {why}"),
                passing: false,
                wait_ms: None,
            };
            let line = Line { request: digest, answer: answer.clone() };
            let mut line = serde_json::to_string(&line).map_err(|error| failed(error.to_string()))?;
            line.push('\n');
            // One write, so that two answers at once do not mix.
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            file.write_all(line.as_bytes()).map_err(|error| failed(error.to_string()))?;
            Ok(answer)
        })
    }
}

/// Gives the answers of a recording again. A request that was made several times gets its answers in their order, and
/// then the last one again.
pub struct Replayed {
    name: String,
    answers: Arc<Mutex<HashMap<Digest, VecDeque<ModelAnswer>>>>,
}

impl Replayed {
    /// Reads a recording.
    ///
    /// # Errors
    /// If it cannot be read, or a line of it is none of ours.
    pub fn open(name: impl Into<String>, path: &Path) -> Result<Self> {
        let unreadable = |error| Error::io("cannot read the recording", path, error);
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > RECORD_BYTES_MAX {
            let what = format!("the recording has {bytes} bytes, and {RECORD_BYTES_MAX} are the limit");
            return Err(Error::input(what).at(path.display(), None));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let mut answers: HashMap<Digest, VecDeque<ModelAnswer>> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line: Line = serde_json::from_str(line).map_err(|error| {
                Error::input("a line of the recording cannot be read").at(path.display(), index + 1).cause(error)
            })?;
            answers.entry(line.request).or_default().push_back(line.answer);
        }
        Ok(Self { name: name.into(), answers: Arc::new(Mutex::new(answers)) })
    }
}

impl Model for Replayed {
    fn name(&self) -> &str {
        &self.name
    }

    fn answer(
        &self,
        request: ModelRequest,
        said: Arc<dyn Fn(Delta) + Send + Sync>,
    ) -> BoxFuture<'static, std::result::Result<ModelAnswer, ModelFailure>> {
        let digest = digest(&request);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = answers.get_mut(&digest).and_then(|answers| match answers.len() {
            0 | 1 => answers.front().cloned(),
            _ => answers.pop_front(),
        });
        drop(answers);
        Box::pin(async move {
            let answer = answer.ok_or_else(|| ModelFailure {
                message: format!(
                    "the recording has no answer to this request ({}): instructions, tools or messages differ from \
                     those that were recorded; record it again",
                    digest.short()
                ),
                passing: false,
                wait_ms: None,
            })?;
            said(Delta::Text(answer.message.text().into_owned()));
            Ok(answer)
        })
    }
}
