//! Puts a grammar together: llguidance's dialect of Lark. Knows how calls stand in an answer, no syntax of a call.

use super::{TokenOf, Tool, Wanted};
use serde_json::{Map, Value, json};

/// A grammar in the making.
pub(crate) struct Lark<'a> {
    rules: String,
    token: TokenOf<'a>,
}

impl<'a> Lark<'a> {
    pub(crate) fn new(token: TokenOf<'a>) -> Self {
        Self { rules: "%llguidance {}\n".to_string(), token }
    }

    /// A marker: the token, or the text where it is none.
    pub(crate) fn mark(&self, marker: &str) -> String {
        match (self.token)(marker) {
            Some(id) => format!("<[{id}]>"),
            None => quoted(marker),
        }
    }

    pub(crate) fn is_token(&self, marker: &str) -> bool {
        (self.token)(marker).is_some()
    }

    /// Adds a rule, or a terminal if the name is in capitals.
    pub(crate) fn rule(&mut self, name: &str, body: &str) {
        self.rules += &format!("{name}: {body}\n");
    }

    /// Adds a rule for JSON by a schema, written as Python's `json.dumps` writes it: models learned it so, and fixed
    /// white space leaves nothing to run on with.
    pub(crate) fn json(&mut self, name: &str, schema: &Value) {
        let mut schema = match schema {
            Value::Object(schema) => schema.clone(),
            Value::Bool(false) => Map::from_iter([("not".to_string(), json!({}))]),
            _ => Map::new(),
        };
        // Escapes by number are left out: half a pair of them is no character.
        let spacing = json!({
            "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": ", "json_allowed_escapes": "nrbtf\\\"",
        });
        schema.insert("x-guidance".to_string(), spacing);
        self.rules += &format!("{name}: %json {}\n", Value::Object(schema));
    }

    /// Adds a rule for any text up to a marker, and the marker.
    pub(crate) fn text_before(&mut self, name: &str, marker: &str) {
        if self.is_token(marker) {
            let body = format!("/(?s:.+)/? {}", self.mark(marker));
            self.rule(name, &body);
        } else {
            self.rule(&format!("{name}[lazy]"), &format!("/(?s:.*){}/", escaped(marker)));
        }
    }

    /// The answer: calls that a marker opens, `body` being what follows the marker up to a call's end. `again` is the
    /// white space before the next call; without it there is one such block.
    pub(crate) fn marked(mut self, open: &str, body: &str, again: Option<&str>, wanted: Wanted) -> String {
        let mark = self.mark(open);
        let more = again.filter(|_| wanted.parallel);
        if wanted.least > 0 {
            let more = more.map(|space| format!(" ({} {body})*", self.spaced(space, open))).unwrap_or_default();
            self.rule("start", &format!("{mark} {body}{more}"));
        } else if self.is_token(open) {
            let calls = match more {
                Some(_) => format!("({mark} {body} prose?)*"),
                None => format!("({mark} {body})?"),
            };
            self.rule("prose", "/(?s:.+)/");
            self.rule("start", &format!("prose? {calls}"));
        } else {
            self.text_before("head", open);
            let calls = match more {
                Some(_) => format!("(head {body})* prose?"),
                None => format!("head {body} | prose?"),
            };
            self.rule("prose", "/(?s:.+)/");
            self.rule("start", &calls);
        }
        self.rules
    }

    /// The answer: one section of calls, `call` being what stands between a call's markers. The markers: a section's
    /// begin, a call's begin and end, the section's end. `again` is the white space between calls.
    pub(crate) fn section(mut self, marks: [&str; 4], call: &str, again: &str, wanted: Wanted) -> String {
        let [_, open, close, end] = marks.map(|mark| self.mark(mark));
        let next = self.spaced(again, marks[1]);
        let more = if wanted.parallel { format!(" ({next} {call} {close})*") } else { String::new() };
        self.rule("body", &format!("{open} {call} {close}{more} {end}"));
        self.marked(marks[0], "body", None, wanted)
    }

    /// White space, then a marker; one text where both are text.
    pub(crate) fn spaced(&self, space: &str, marker: &str) -> String {
        match (space, self.is_token(marker)) {
            ("", _) => self.mark(marker),
            (_, true) => format!("{} {}", quoted(space), self.mark(marker)),
            (_, false) => quoted(&format!("{space}{marker}")),
        }
    }

    /// The answer: calls that only their first character tells from text, so that they begin the answer. `marked` are
    /// calls with a token before them, which may stand behind text.
    pub(crate) fn at_start(mut self, first: char, body: &str, marked: Option<String>, wanted: Wanted) -> String {
        if wanted.least > 0 {
            let calls = [body].into_iter().chain(marked.as_deref()).collect::<Vec<_>>().join(" | ");
            self.rule("start", &calls);
        } else {
            let marked = marked.map(|marked| format!(" | prose? {marked}")).unwrap_or_default();
            self.rule("prose", &format!("/\\s*[^\\s{}](?s:.*)/", escaped(&first.to_string())));
            self.rule("start", &format!("prose? | {body}{marked}"));
        }
        self.rules
    }
}

/// A text as a literal.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// A text within a regular expression.
pub(crate) fn escaped(text: &str) -> String {
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

/// The schema of a tool's arguments: an object in any case.
pub(crate) fn arguments(tool: &Tool) -> Value {
    let mut schema = tool.parameters.as_object().cloned().unwrap_or_default();
    if !schema.contains_key("type") {
        schema.insert("type".to_string(), "object".into());
    }
    Value::Object(schema)
}
