//! Free text in which some beginnings open a form, as vLLM's structural tags have it: what follows the beginning is
//! JSON of a schema, up to the tag's end. Makes a grammar of it; knows no tokens.

use super::schema::{Spacing, prepared_schema};
use narthex_base::{Error, Result};
use serde_json::Value;

/// Tags of one answer, and triggers, at most.
const TAGS_MAX: usize = 128;

/// A form within a text.
#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    /// How it begins; one of the triggers begins it.
    pub begin: String,
    /// The JSON that follows.
    pub schema: Value,
    /// How it ends.
    pub end: String,
}

/// Free text with tags in it.
#[derive(Clone, Debug, PartialEq)]
pub struct Tags {
    /// The tags.
    pub tags: Vec<Tag>,
    /// Texts that may only be written where a tag begins.
    pub triggers: Vec<String>,
    /// Whether there must be a tag.
    pub at_least_one: bool,
    /// Whether the answer ends with the first tag.
    pub stop_after_first: bool,
}

/// The grammar, in the engine's dialect of Lark.
///
/// # Errors
/// If a tag begins as no trigger does, a trigger has no tag, or a schema cannot be honoured.
pub fn grammar(wanted: &Tags) -> Result<String> {
    let Tags { tags, triggers, at_least_one, stop_after_first } = wanted;
    for (what, count) in [("tags", tags.len()), ("triggers", triggers.len())] {
        if !(1..=TAGS_MAX).contains(&count) {
            return Err(Error::input(format!("there must be from 1 to {TAGS_MAX} {what}")));
        }
    }
    if triggers.iter().any(String::is_empty) {
        return Err(Error::input("a trigger must not be empty"));
    }
    let trigger_of = |tag: &Tag| triggers.iter().position(|trigger| tag.begin.starts_with(trigger.as_str()));
    let mut bodies = vec![vec![]; triggers.len()];
    let mut rules = "%llguidance {}\n".to_string();
    for (index, tag) in tags.iter().enumerate() {
        let Some(trigger) = trigger_of(tag) else {
            return Err(Error::input(format!("no trigger begins the tag `{}`", tag.begin)));
        };
        let schema = prepared_schema(&tag.schema, &Spacing::default())?;
        rules += &format!("json_{index}: %json {schema}\n");
        let literal = |text: &str| if text.is_empty() { String::new() } else { Value::from(text).to_string() };
        let rest = literal(&tag.begin[triggers[trigger].len()..]);
        bodies[trigger].push(format!("{rest} json_{index} {}", literal(&tag.end)));
    }
    let mut parts = vec![];
    for (index, (trigger, bodies)) in triggers.iter().zip(&bodies).enumerate() {
        if bodies.is_empty() {
            return Err(Error::input(format!("the trigger `{trigger}` begins no tag")));
        }
        rules += &format!("head_{index}[lazy]: /(?s:.*){}/\nbody_{index}: {}\n", escaped(trigger), bodies.join(" | "));
        parts.push(format!("head_{index} body_{index}"));
    }
    let part = format!("({})", parts.join(" | "));
    let start = match (at_least_one, stop_after_first) {
        (false, false) => format!("{part}* prose?"),
        (true, false) => format!("{part}+ prose?"),
        (false, true) => format!("{part} | prose?"),
        (true, true) => part,
    };
    Ok(format!("{rules}prose: /(?s:.+)/\nstart: {start}\n"))
}

/// A text within a regular expression.
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for char in text.chars() {
        match char {
            '\n' => escaped.push_str("\\n"),
            char if r"\.+*?()|[]{}^$/".contains(char) => escaped.extend(['\\', char]),
            char => escaped.push(char),
        }
    }
    escaped
}
