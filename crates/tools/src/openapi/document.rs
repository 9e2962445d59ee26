//! An OpenAPI file as data, within bounds, and what its local references mean. Opens one file and nothing that the file
//! names.

use narthex_base::{Error, text_file};
use serde_json::Value;
use std::path::Path;

/// Bytes of a file.
const FILE_BYTES_MAX: u64 = 8 << 20;
/// Values of a file, those of its references counted once.
const VALUES_MAX: usize = 400_000;
/// References that lead to references.
const CHAIN_MAX: usize = 16;
/// Aliases of a YAML file.
const ALIASES_MAX: usize = 1_000;
/// Values that all aliases of a YAML file may stand for.
const REPLAYED_MAX: usize = 50_000;
/// Values within each other.
const DEPTH_MAX: usize = 100;

/// An OpenAPI file.
#[derive(Debug)]
pub struct Document(Value);

impl Document {
    /// Reads a file of JSON or YAML, OpenAPI 3.0 or 3.1.
    ///
    /// # Errors
    /// If it is too large, or is not one.
    pub fn read(path: &Path) -> Result<Self, Error> {
        Self::read_within(path, VALUES_MAX)
    }

    fn read_within(path: &Path, values_max: usize) -> Result<Self, Error> {
        let bytes = std::fs::metadata(path).map_err(|error| Error::io("cannot read", path, error))?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(Error::input(format!("the file has {bytes} bytes, and {FILE_BYTES_MAX} is the most"))
                .at(path.display(), None)
                .help("keep only the paths that you need, and what they refer to"));
        }
        let bytes = std::fs::read(path).map_err(|error| Error::io("cannot read", path, error))?;
        let text = text_file::text_of(bytes, path)?;
        let wrong = |cause: &dyn std::fmt::Display, line: Option<usize>| {
            Error::input("the OpenAPI file is neither JSON nor YAML that can be read")
                .at(path.display(), line)
                .cause(cause)
        };
        let value = if text.trim_start().starts_with('{') {
            serde_json::from_str(&text).map_err(|error| wrong(&error, Some(error.line())))?
        } else {
            yaml(&text, values_max).map_err(|cause| wrong(&cause, None))?
        };
        Self::new(value, values_max).map_err(|error| error.at(path.display(), None))
    }

    /// Takes what was read from a file.
    ///
    /// # Errors
    /// If it is not OpenAPI 3, or has more values than `values_max`.
    pub fn new(value: Value, values_max: usize) -> Result<Self, Error> {
        let help = "take a file of OpenAPI 3.0 or 3.1; converters make one of Swagger 2.0";
        match value["openapi"].as_str() {
            Some(version) if version.starts_with("3.") => {}
            Some(version) => return Err(Error::input(format!("this is OpenAPI {version}")).help(help)),
            None => return Err(Error::input("the file has no field `openapi`").help(help)),
        }
        let mut open = vec![(&value, 0)];
        let mut values = 0;
        while let Some((value, depth)) = open.pop() {
            values += 1;
            if values > values_max || depth > DEPTH_MAX {
                return Err(Error::input("the OpenAPI file is too much")
                    .cause(format!("more than {values_max} values, or more than {DEPTH_MAX} within each other"))
                    .help("keep only the paths that you need, and what they refer to"));
            }
            match value {
                Value::Array(items) => open.extend(items.iter().map(|item| (item, depth + 1))),
                Value::Object(map) => open.extend(map.values().map(|item| (item, depth + 1))),
                _ => {}
            }
        }
        Ok(Self(value))
    }

    /// All of it.
    pub fn value(&self) -> &Value {
        &self.0
    }

    /// The value itself, or what it refers to.
    ///
    /// # Errors
    /// If it refers to another file or host, to nothing, or to itself.
    pub fn meant<'a>(&'a self, value: &'a Value) -> Result<&'a Value, String> {
        let mut at = value;
        for _ in 0..=CHAIN_MAX {
            let Some(reference) = at["$ref"].as_str() else { return Ok(at) };
            at = self.target(reference)?;
        }
        Err("a `$ref` leads from one to the next without an end".into())
    }

    /// What a reference leads to.
    ///
    /// # Errors
    /// If it leads to another file or host, or to nothing.
    pub fn target(&self, reference: &str) -> Result<&Value, String> {
        let shown: String = reference.chars().take(200).collect();
        let Some(pointer) = reference.strip_prefix('#') else {
            return Err(format!("`$ref: {shown}` leads out of the file, which is not followed: put it into the file"));
        };
        let pointer = decoded(pointer);
        self.0.pointer(&pointer).ok_or_else(|| format!("`$ref: {shown}` leads to nothing"))
    }
}

fn yaml(text: &str, values_max: usize) -> Result<Value, String> {
    let mut budget = serde_saphyr::Budget::default();
    (budget.max_nodes, budget.max_events, budget.max_depth) = (values_max, values_max * 4, DEPTH_MAX);
    (budget.max_aliases, budget.max_anchors) = (ALIASES_MAX, ALIASES_MAX);
    let mut options = serde_saphyr::Options::default();
    options.budget = Some(budget);
    options.alias_limits.max_total_replayed_events = REPLAYED_MAX.min(values_max);
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        // Errors quote the lines around the place, which may be long.
        error.to_string().chars().take(500).collect()
    })
}

/// A reference without percent signs (RFC 6901, section 6).
fn decoded(pointer: &str) -> String {
    let bytes = pointer.as_bytes();
    let (mut plain, mut at) = (vec![], 0);
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn references_stay_in_the_file() {
        let document = Document::new(
            json!({
                "openapi": "3.1.0",
                "a": {"x/y z": 1},
                "b": {"$ref": "#/a"},
                "c": {"$ref": "#/c"},
                "d": {"$ref": "#/e"},
                "e": {"$ref": "#/d"},
            }),
            100,
        )
        .unwrap();
        for (reference, expected) in [
            ("#/a/x~1y%20z", Ok(json!(1))),
            ("#/b", Ok(json!({"x/y z": 1}))),
            ("#/a/none", Err("leads to nothing")),
            ("#/c", Err("without an end")),
            ("#/d", Err("without an end")),
            ("other.yaml#/a", Err("out of the file")),
            ("http://169.254.169.254/", Err("out of the file")),
            ("file:///etc/passwd", Err("out of the file")),
            ("/etc/passwd", Err("out of the file")),
        ] {
            match (document.meant(&json!({"$ref": reference})), expected) {
                (Ok(value), Ok(expected)) => assert_eq!(*value, expected, "{reference}"),
                (Err(message), Err(part)) => assert!(message.contains(part), "{reference}: {message}"),
                (outcome, _) => panic!("{reference}: {outcome:?}"),
            }
        }
    }

    #[test]
    fn bombs_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut laughs = String::from("openapi: 3.1.0\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for level in 1..10 {
            let aliases = vec![format!("*a{}", level - 1); 10].join(",");
            laughs += &format!("a{level}: &a{level} [{aliases}]\n");
        }
        for (name, text, expected) in [
            ("a.json", "{\"openapi\": \"3.0.3\"}".to_string(), Ok(())),
            ("a.yaml", "openapi: \"3.1.0\"\n".into(), Ok(())),
            ("mark.json", "\u{feff}{\"openapi\": \"3.0.3\"}".into(), Ok(())),
            ("old.yaml", "swagger: \"2.0\"\n".into(), Err("no field `openapi`")),
            ("next.yaml", "openapi: \"4.0.0\"\n".into(), Err("OpenAPI 4.0.0")),
            ("laughs.yaml", laughs, Err("neither JSON nor YAML")),
            ("deep.json", format!("{{\"openapi\": \"3.0.3\", \"a\": {}", "[".repeat(100_000)), Err("neither")),
            ("deep.yaml", format!("openapi: 3.0.3\na: {}", "[".repeat(100_000)), Err("neither")),
            (
                "depth.json",
                format!("{{\"openapi\": \"3.0.3\", \"a\": {}{}}}", "[".repeat(110), "]".repeat(110)),
                Err("too much"),
            ),
            ("wide.json", format!("{{\"openapi\": \"3.0.3\", \"a\": [{}0]}}", "0,".repeat(30_000)), Err("too much")),
            ("wide.yaml", format!("openapi: 3.0.3\na: [{}0]", "0,".repeat(30_000)), Err("neither")),
            (
                "large.json",
                format!("{{\"openapi\": \"3.0.3\", \"a\": \"{}\"}}", "x".repeat(9 << 20)),
                Err("is the most"),
            ),
            ("not.json", "{".into(), Err("neither")),
            ("not.yaml", "a: b: c".into(), Err("neither")),
        ] {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            match (Document::read_within(&path, 20_000), expected) {
                (Ok(_), Ok(())) => {}
                (Err(error), Err(part)) => {
                    let text = error.to_string();
                    assert!(text.contains(part) && text.len() < 2000, "{name}: {text}");
                }
                (outcome, _) => panic!("{name}: {:?}", outcome.map(drop)),
            }
        }
    }
}
