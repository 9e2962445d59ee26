//! The answers of a batch, written line by line as they come: those of status 200 to one file, the others to another.
//! What an interruption left of a line is cut off. Knows no store, and asks nothing.

use super::{ids::new_answer_id, records::BatchUsage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::HashSet,
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::Path,
};

/// A line of either file.
#[derive(Serialize)]
pub(crate) struct Answer {
    id: String,
    pub custom_id: String,
    pub response: Option<Response>,
    pub error: Option<Failure>,
}

/// What the endpoint answered.
#[derive(Serialize)]
pub(crate) struct Response {
    pub status_code: u16,
    pub request_id: String,
    pub body: Value,
}

/// Why there is no answer.
#[derive(Serialize)]
pub(crate) struct Failure {
    pub code: &'static str,
    pub message: String,
}

impl Answer {
    /// The endpoint's answer.
    pub fn new(custom_id: String, response: Response) -> Self {
        Self { id: new_answer_id(), custom_id, response: Some(response), error: None }
    }

    /// That there is none.
    pub fn failed(custom_id: String, code: &'static str, message: impl Into<String>) -> Self {
        let error = Some(Failure { code, message: message.into() });
        Self { id: new_answer_id(), custom_id, response: None, error }
    }

    fn is_good(&self) -> bool {
        self.response.as_ref().is_some_and(|response| response.status_code == 200)
    }

    /// The line to write.
    pub fn line(&self) -> io::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self).map_err(io::Error::other)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Both files and what they hold.
pub(crate) struct Answers {
    output: Tail,
    errors: Tail,
    known: HashSet<String>,
    pub completed: usize,
    pub failed: usize,
    pub usage: BatchUsage,
}

impl Answers {
    /// Opens both files, or makes them, and reads what they hold.
    pub fn open(output: &Path, errors: &Path) -> io::Result<Self> {
        let (mut known, mut usage) = (HashSet::new(), BatchUsage::default());
        let (mut completed, mut failed) = (0, 0);
        let output = Tail::open(output, |line| {
            completed += usize::from(known.insert(line.custom_id));
            line.response.iter().for_each(|response| usage.add(&response["body"]));
        })?;
        let errors = Tail::open(errors, |line| failed += usize::from(known.insert(line.custom_id)))?;
        Ok(Self { output, errors, known, completed, failed, usage })
    }

    /// Whether a request has its answer.
    pub fn knows(&self, custom_id: &str) -> bool {
        self.known.contains(custom_id)
    }

    /// Bytes of both files.
    pub fn bytes(&self) -> u64 {
        self.output.bytes + self.errors.bytes
    }

    /// Writes an answer; `line` is its own.
    pub fn write(&mut self, answer: &Answer, line: &[u8]) -> io::Result<()> {
        if answer.is_good() {
            self.output.write(line)?;
            self.completed += 1;
            answer.response.iter().for_each(|response| self.usage.add(&response.body));
        } else {
            self.errors.write(line)?;
            self.failed += 1;
        }
        self.known.insert(answer.custom_id.clone());
        Ok(())
    }
}

/// A file that grows by whole lines.
struct Tail {
    file: File,
    bytes: u64,
}

/// What must be in a line that was written before.
#[derive(Deserialize)]
struct Known {
    custom_id: String,
    response: Option<Value>,
}

impl Tail {
    fn open(path: &Path, mut each: impl FnMut(Known)) -> io::Result<Self> {
        // Whatever is written goes to the end.
        let file = OpenOptions::new().create(true).read(true).append(true).open(path)?;
        let (mut reader, mut bytes, mut text) = (BufReader::new(&file), 0, vec![]);
        loop {
            text.clear();
            let read = reader.read_until(b'\n', &mut text)?;
            // After the first line that is none nothing can be trusted: what follows is asked again.
            let Some(line) = text.strip_suffix(b"\n").and_then(|line| serde_json::from_slice(line).ok()) else { break };
            each(line);
            bytes += read as u64;
        }
        file.set_len(bytes)?;
        Ok(Self { file, bytes })
    }

    /// Half a line, as on a full disk, is taken back.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(line) {
            self.file.set_len(self.bytes)?;
            return Err(error);
        }
        self.bytes += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::fs;

    fn answer(id: &str, status_code: u16) -> Answer {
        let body = json!({"usage": {"prompt_tokens": 2, "completion_tokens": 3}});
        Answer::new(id.into(), Response { status_code, request_id: "r".into(), body })
    }

    #[test]
    fn lines_have_the_form_of_the_api() {
        let shown = |answer: &Answer| {
            let mut line: Value = serde_json::from_slice(&answer.line().unwrap()).unwrap();
            let id = line["id"].take();
            assert!(id.as_str().unwrap().starts_with("batch_req_"), "{id}");
            line
        };
        let body = json!({"usage": {"prompt_tokens": 2, "completion_tokens": 3}});
        let response = json!({"status_code": 200, "request_id": "r", "body": body});
        assert_eq!(
            shown(&answer("a", 200)),
            json!({"id": null, "custom_id": "a", "response": response, "error": null})
        );
        let failed = Answer::failed("a".into(), "batch_expired", "too late");
        let error = json!({"code": "batch_expired", "message": "too late"});
        assert_eq!(shown(&failed), json!({"id": null, "custom_id": "a", "response": null, "error": error}));
        assert_eq!(answer("a\nb", 200).line().unwrap().iter().filter(|byte| **byte == b'\n').count(), 1);
    }

    #[test]
    fn what_is_torn_is_cut_and_the_rest_known() {
        let folder = tempfile::tempdir().unwrap();
        let (output, errors) = (folder.path().join("out"), folder.path().join("err"));
        let mut answers = Answers::open(&output, &errors).unwrap();
        for each in [answer("a", 200), answer("b", 400), answer("c", 200), Answer::failed("d".into(), "x", "y")] {
            answers.write(&each, &each.line().unwrap()).unwrap();
        }
        let figures = |answers: &Answers| (answers.completed, answers.failed, answers.usage.total_tokens);
        assert_eq!(figures(&answers), (2, 2, 10));
        let whole = fs::read(&output).unwrap();
        let first = whole.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        for (text, completed, kept) in [
            (whole.clone(), 2, whole.len()),
            (whole[..whole.len() - 1].to_vec(), 1, first),
            (whole[..first + 1].to_vec(), 1, first),
            (whole[..first].to_vec(), 1, first),
            (whole[..first - 1].to_vec(), 0, 0),
            ([&whole[..first], b"\n", &whole[first..]].concat(), 1, first),
            ([&whole[..first], &[0; 5000][..]].concat(), 1, first),
            ([&whole[..first], b"{\"custom_id\": 1}\n"].concat(), 1, first),
            (vec![], 0, 0),
        ] {
            fs::write(&output, &text).unwrap();
            let mut answers = Answers::open(&output, &errors).unwrap();
            assert_eq!(figures(&answers), (completed, 2, completed as u64 * 5));
            assert_eq!(fs::read(&output).unwrap(), &whole[..kept]);
            assert_eq!(answers.bytes(), fs::metadata(&errors).unwrap().len() + kept as u64);
            let known = ["a", "b", "c", "d", "e"].map(|id| answers.knows(id));
            assert_eq!(known, [completed > 0, true, completed > 1, true, false]);
            let next = answer("e", 200);
            answers.write(&next, &next.line().unwrap()).unwrap();
            let text = fs::read(&output).unwrap();
            assert!(text.starts_with(&whole[..kept]) && text.ends_with(b"}\n"));
        }
    }
}
