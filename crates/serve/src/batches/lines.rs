//! The requests of a batch, read line by line from its file, and what can be wrong with them. Knows no store, and
//! answers nothing.

use super::records::BatchError;
use serde_json::{Map, Value};
use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
};

/// Requests of a batch at most.
const LINES_MAX: usize = 50_000;

/// Bytes of a `custom_id` at most: all are kept in mind at once.
const CUSTOM_ID_BYTES_MAX: usize = 512;

/// Faults that are told at most; further ones are not looked for.
const FAULTS_MAX: usize = 100;

/// What may stand in a line.
const FIELDS: [&str; 4] = ["custom_id", "method", "url", "body"];

/// One request.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    /// From 1.
    pub number: usize,
    pub custom_id: String,
    pub body: Map<String, Value>,
}

/// What reading all requests tells of them.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Survey {
    pub requests: usize,
    /// The model that all name.
    pub model: Option<String>,
    /// Nothing should be asked if there are any.
    pub faults: Vec<BatchError>,
}

/// Reads the requests one after the other. A line that is no request ends as an error.
pub(crate) struct Lines {
    reader: BufReader<File>,
    endpoint: String,
    number: usize,
}

impl Lines {
    /// Opens a file whose requests all go to one endpoint.
    pub fn open(path: &Path, endpoint: &str) -> io::Result<Self> {
        Ok(Self { reader: BufReader::new(File::open(path)?), endpoint: endpoint.into(), number: 0 })
    }
}

impl Iterator for Lines {
    type Item = io::Result<Result<Line, BatchError>>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut text = vec![];
            match self.reader.read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            self.number += 1;
            // Some editors begin a file so.
            let text = text.strip_prefix("\u{feff}".as_bytes()).filter(|_| self.number == 1).unwrap_or(&text);
            if !text.trim_ascii().is_empty() {
                return Some(Ok(read_line(text, self.number, &self.endpoint)));
            }
        }
    }
}

/// Collects what is known of all requests before any is asked.
#[derive(Default)]
pub(crate) struct Surveyor {
    survey: Survey,
    custom_ids: HashSet<String>,
    models: HashSet<Option<String>>,
}

impl Surveyor {
    /// Looks at one more line; whether it makes sense to look at further ones.
    pub fn add(&mut self, line: Result<Line, BatchError>) -> bool {
        let survey = &mut self.survey;
        survey.requests += 1;
        if survey.requests > LINES_MAX {
            let message = format!("the file has too many requests: a batch takes at most {LINES_MAX}");
            survey.faults.push(BatchError::new("too_many_requests", message));
            return false;
        }
        match line {
            Err(fault) => survey.faults.push(fault),
            Ok(line) => {
                // One name besides the first is enough to know that there are several.
                if self.models.len() < 2 {
                    self.models.insert(line.body.get("model").and_then(Value::as_str).map(str::to_string));
                }
                if self.custom_ids.contains(&line.custom_id) {
                    let message = format!(
                        "the `custom_id` {:?} stands in the file twice: answers are told apart by it",
                        line.custom_id
                    );
                    survey.faults.push(fault("duplicate_custom_id", message, Some("custom_id"), line.number));
                } else {
                    self.custom_ids.insert(line.custom_id);
                }
            }
        }
        survey.faults.len() < FAULTS_MAX
    }

    /// All lines have been looked at.
    pub fn finish(mut self) -> Survey {
        if self.survey.requests == 0 {
            self.survey.faults.push(BatchError::new("empty_file", "the file has no request"));
        }
        if self.models.len() == 1 {
            self.survey.model = self.models.into_iter().next().flatten();
        }
        self.survey
    }
}

fn fault(code: &str, message: impl Into<String>, param: Option<&str>, line: usize) -> BatchError {
    BatchError { param: param.map(str::to_string), line: Some(line), ..BatchError::new(code, message) }
}

fn read_line(text: &[u8], number: usize, endpoint: &str) -> Result<Line, BatchError> {
    let wrong = |code: &str, param: &'static str, message: String| fault(code, message, Some(param), number);
    let map = match serde_json::from_slice(text) {
        Ok(Value::Object(map)) => map,
        Ok(_) => return Err(fault("invalid_json_line", "this line is not a JSON object", None, number)),
        // The error's own line would be that within this line.
        Err(error) => {
            let message = format!("this line is not valid JSON: column {}: {}", error.column(), cause(&error));
            return Err(fault("invalid_json_line", message, None, number));
        }
    };
    let mut map = map;
    let mut take = |name: &'static str| match map.shift_remove(name) {
        Some(value) if !value.is_null() => Ok(value),
        _ => Err(wrong("missing_required_parameter", name, format!("the field `{name}` is missing"))),
    };
    let string = |name: &'static str, value: Value| match value {
        Value::String(text) => Ok(text),
        _ => Err(wrong("invalid_type", name, format!("`{name}` must be a string"))),
    };
    let custom_id = string("custom_id", take("custom_id")?)?;
    if custom_id.is_empty() || custom_id.len() > CUSTOM_ID_BYTES_MAX {
        let message = format!("`custom_id` must have from 1 to {CUSTOM_ID_BYTES_MAX} bytes");
        return Err(wrong("invalid_custom_id", "custom_id", message));
    }
    let method = string("method", take("method")?)?;
    if method != "POST" {
        return Err(wrong("invalid_method", "method", "`method` must be POST".into()));
    }
    let url = string("url", take("url")?)?;
    if url != endpoint {
        let message = format!("`url` must be {endpoint}, as the batch says");
        return Err(wrong("invalid_url", "url", message));
    }
    let Value::Object(body) = take("body")? else {
        return Err(wrong("invalid_type", "body", "`body` must be an object".into()));
    };
    if let Some(name) = map.keys().next() {
        let name: String = name.chars().take(64).collect();
        let message =
            format!("unknown field `{name}`: a line has {}", FIELDS.map(|name| format!("`{name}`")).join(", "));
        return Err(fault("unknown_parameter", message, Some(&name), number));
    }
    Ok(Line { number, custom_id, body })
}

/// What a JSON error says, without the place.
fn cause(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn survey(text: &[u8]) -> Survey {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in");
        std::fs::write(&path, text).unwrap();
        let mut surveyor = Surveyor::default();
        for line in Lines::open(&path, "/v1/completions").unwrap() {
            if !surveyor.add(line.unwrap()) {
                break;
            }
        }
        surveyor.finish()
    }

    fn line(more: Value) -> String {
        let body = json!({"model": "m", "prompt": "x"});
        let mut line = json!({"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body});
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        format!("{line}\n")
    }

    #[test]
    fn files_of_requests_are_surveyed() {
        let other = |id: &str, model: &str| line(json!({"custom_id": id, "body": {"model": model}}));
        let check = |text: &str, requests: usize, model: Option<&str>| {
            let expected = Survey { requests, model: model.map(str::to_string), faults: vec![] };
            assert_eq!(survey(text.as_bytes()), expected, "{text}");
        };
        let good = line(json!({}));
        check(&good, 1, Some("m"));
        check(good.trim(), 1, Some("m"));
        check(&format!("\u{feff}\n\n  {good}\r\n\t\n{}", other("b", "m")), 2, Some("m"));
        check(&format!("{good}{}", other("b", "n")), 2, None);
        check(&line(json!({"body": {}})), 1, None);
        check(&format!("{good}{}", line(json!({"custom_id": "b", "body": {"model": 1}}))), 2, None);
        check(&line(json!({"custom_id": "x".repeat(512)})), 1, Some("m"));
    }

    #[test]
    fn faults_name_code_field_and_line() {
        let good = line(json!({"custom_id": "first"}));
        for (text, expected) in [
            (line(json!({"custom_id": "first"})), "duplicate_custom_id custom_id 3: the `custom_id` \"first\" stands"),
            ("nonsense\n".into(), "invalid_json_line - 3: this line is not valid JSON: column 2: expected ident"),
            ("{\"custom_id\": \"a\"".into(), "invalid_json_line - 3: this line is not valid JSON: column 17: EOF"),
            ("[]\n".into(), "invalid_json_line - 3: this line is not a JSON object"),
            ("\u{feff}{}\n".into(), "invalid_json_line - 3: this line is not valid JSON"),
            (
                line(json!({"custom_id": null})),
                "missing_required_parameter custom_id 3: the field `custom_id` is missing",
            ),
            (line(json!({"custom_id": 1})), "invalid_type custom_id 3: `custom_id` must be a string"),
            (
                line(json!({"custom_id": ""})),
                "invalid_custom_id custom_id 3: `custom_id` must have from 1 to 512 bytes",
            ),
            (line(json!({"custom_id": "é".repeat(257)})), "invalid_custom_id custom_id 3: "),
            (line(json!({"method": null})), "missing_required_parameter method 3: "),
            (line(json!({"method": "GET"})), "invalid_method method 3: `method` must be POST"),
            (line(json!({"method": "post"})), "invalid_method method 3: "),
            (line(json!({"url": null})), "missing_required_parameter url 3: "),
            (
                line(json!({"url": "/v1/chat/completions"})),
                "invalid_url url 3: `url` must be /v1/completions, as the batch says",
            ),
            (line(json!({"url": "https://evil.example/v1/completions"})), "invalid_url url 3: "),
            (line(json!({"url": ["/v1/completions"]})), "invalid_type url 3: `url` must be a string"),
            (line(json!({"body": null})), "missing_required_parameter body 3: "),
            (line(json!({"body": "{}"})), "invalid_type body 3: `body` must be an object"),
            (
                line(json!({"colour": 1})),
                "unknown_parameter colour 3: unknown field `colour`: a line has `custom_id`, ",
            ),
        ] {
            let survey = survey(format!("{good}\n{text}").as_bytes());
            let shown: Vec<_> = survey.faults.iter().map(shown).collect();
            assert!(shown.len() == 1 && shown[0].starts_with(expected), "{text}: {shown:?}");
            assert_eq!(survey.requests, 2);
        }
        for empty in ["", "\n", " \r\n\n"] {
            assert_eq!(shown(&survey(empty.as_bytes()).faults[0]), "empty_file - -: the file has no request");
        }
        let binary = survey(b"\xff\xfe\n");
        assert!(shown(&binary.faults[0]).starts_with("invalid_json_line - 1: "), "{binary:?}");
    }

    fn shown(fault: &BatchError) -> String {
        let line = fault.line.map_or("-".into(), |line| line.to_string());
        format!("{} {} {line}: {}", fault.code, fault.param.as_deref().unwrap_or("-"), fault.message)
    }

    #[test]
    fn too_much_is_not_read_to_its_end() {
        let many: String = (0..LINES_MAX + 5).map(|n| line(json!({"custom_id": n.to_string()}))).collect();
        let found = survey(many.as_bytes());
        assert_eq!((found.requests, found.faults.len()), (LINES_MAX + 1, 1));
        assert_eq!(found.faults[0].code, "too_many_requests");
        let found = survey("nonsense\n".repeat(FAULTS_MAX * 2).as_bytes());
        assert_eq!((found.requests, found.faults.len()), (FAULTS_MAX, FAULTS_MAX));
    }
}
