//! Answers that call tools, in pieces of every size, held against vLLM's parsers (`xtask/goldens/calls.py`). Knows
//! what is read, not what a grammar allows.

use narthex_text::calls::{self, Seen, Tool};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

#[derive(Deserialize)]
struct Golden {
    tools: Vec<Value>,
    /// By the names of vLLM's parsers.
    parsers: BTreeMap<String, Parser>,
}

#[derive(Deserialize)]
struct Parser {
    /// Our name of what it reads.
    syntax: String,
    /// What tokenizers of the family have as tokens.
    markers: Vec<String>,
    cases: Vec<Case>,
}

/// What it is, the answer, what the parser gives for the whole answer, and, where it isn't that, what is right and why.
/// Markers that came as tokens stand between « and ».
#[derive(Deserialize)]
#[serde(untagged)]
enum Case {
    Same(String, String, Outcome),
    Other(String, String, Outcome, Outcome, String),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    /// A text if there is one, then calls: name, arguments, and the id if the model wrote one.
    Seen(Vec<Part>),
    /// All of it is text, as it was written.
    AsWritten(AsWritten),
    /// An error.
    Raises { raises: String },
}

#[derive(Deserialize)]
enum AsWritten {
    #[serde(rename = "text")]
    AsWritten,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text(String),
    Call(Vec<String>),
}

impl Outcome {
    fn plain(&self, answer: &str) -> String {
        let mut found = Found::default();
        match self {
            Self::Raises { raises } => return format!("raises {raises}"),
            Self::AsWritten(AsWritten::AsWritten) => found.text = answer.replace(['«', '»'], ""),
            Self::Seen(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => found.text.clone_from(text),
                        Part::Call(call) => found.calls.push(call.clone()),
                    }
                }
            }
        }
        found.plain()
    }
}

#[derive(Default)]
struct Found {
    text: String,
    /// Name, arguments, and the id if the model wrote one.
    calls: Vec<Vec<String>>,
}

impl Found {
    /// The same for the same JSON and the same text, but for white space around it.
    fn plain(&self) -> String {
        let arguments = |text: &str| match serde_json::from_str::<Value>(text) {
            Ok(value) => value.to_string(),
            Err(_) => format!("not JSON: {text}"),
        };
        let mut plain = self.text.trim().to_string();
        for call in &self.calls {
            plain += &format!("|{}{}#{}", call[0], arguments(&call[1]), call.get(2).map_or("", String::as_str));
        }
        plain
    }
}

enum Piece {
    Text(Vec<char>),
    Marker(String),
}

/// With markers as tokens, or as text.
fn pieces(answer: &str, as_tokens: bool) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (place, part) in answer.split(['«', '»']).enumerate().filter(|(_, part)| !part.is_empty()) {
        match pieces.last_mut() {
            _ if place % 2 == 1 && as_tokens => pieces.push(Piece::Marker(part.to_string())),
            Some(Piece::Text(text)) => text.extend(part.chars()),
            _ => pieces.push(Piece::Text(part.chars().collect())),
        }
    }
    pieces
}

fn read(syntax: &str, tools: &[Tool], tokens: &[String], pieces: &[Piece], size: usize) -> Found {
    let token = |marker: &str| tokens.iter().position(|token| token == marker).map(|place| place as u32);
    let mut reader = calls::by_name(syntax).unwrap().reader(tools, &token, false);
    let mut seen = Vec::new();
    for piece in pieces {
        match piece {
            Piece::Marker(marker) => seen.extend(reader.token(marker)),
            Piece::Text(text) => {
                for part in text.chunks(size) {
                    seen.extend(reader.text(&part.iter().collect::<String>()));
                }
            }
        }
    }
    seen.extend(reader.finish());
    let mut found = Found::default();
    for seen in seen {
        match seen {
            Seen::Text(text) => found.text += &text,
            Seen::Call { name, id } => found.calls.push([name, String::new()].into_iter().chain(id).collect()),
            Seen::Arguments(text) => found.calls.last_mut().unwrap()[1] += &text,
        }
    }
    found
}

#[test]
fn calls_are_those_of_vllm() {
    let golden: Golden = serde_json::from_str(include_str!("golden/calls.json")).unwrap();
    let tools: Vec<Tool> = golden
        .tools
        .iter()
        .map(|tool| Tool {
            name: tool["function"]["name"].as_str().unwrap().to_string(),
            parameters: tool["function"]["parameters"].clone(),
            strict: false,
        })
        .collect();
    let mut wrong = Vec::new();
    for (parser, about) in &golden.parsers {
        for case in &about.cases {
            let (what, answer, expected) = match case {
                Case::Same(what, answer, vllm) => (what, answer, vllm.plain(answer)),
                Case::Other(what, answer, vllm, ours, why) => {
                    let (vllm, ours) = (vllm.plain(answer), ours.plain(answer));
                    assert!(vllm != ours && !why.is_empty(), "{parser}, {what}: no difference");
                    (what, answer, ours)
                }
            };
            for as_tokens in [true, false] {
                if let Some(found) = first_other(about, &tools, answer, as_tokens, &expected) {
                    let how = if as_tokens { "tokens" } else { "text" };
                    wrong.push(format!("{parser}, {what}: {answer}\n  marks as {how}, {found}\n  not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}

/// Reads the answer in pieces of every size, and tells the first time that something else comes out.
fn first_other(about: &Parser, tools: &[Tool], answer: &str, as_tokens: bool, expected: &str) -> Option<String> {
    let pieces = pieces(answer, as_tokens);
    let tokens = if as_tokens { &about.markers[..] } else { &[] };
    let longest = pieces.iter().map(|piece| if let Piece::Text(text) = piece { text.len() } else { 1 }).max();
    (1..=longest.unwrap_or(1)).find_map(|size| {
        let found = read(&about.syntax, tools, tokens, &pieces, size);
        for call in &found.calls {
            assert!(serde_json::from_str::<Map<String, Value>>(&call[1]).is_ok(), "{answer}: {call:?}");
        }
        let found = found.plain();
        (found != *expected).then(|| format!("in pieces of {size}: {found}"))
    })
}
