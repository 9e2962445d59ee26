//! Calls with a tag around each argument: reading and grammar, by a description of the tags. Values of strings are
//! written as they are, others as JSON.

use super::{
    Tool, Wanted,
    input::{Broken, Input, Read},
    lark::{Lark, quoted},
    members::Members,
    typed::{Parameters, kind_of, list_of, resolved},
};
use serde_json::{Map, Value};

/// The tags.
pub(crate) struct Tags {
    /// Around the call, or several.
    pub(crate) open: &'static str,
    pub(crate) close: &'static str,
    /// Before and behind the tool's name, and at the call's end.
    pub(crate) call: [&'static str; 3],
    /// Before and behind a parameter's name.
    pub(crate) key: [&'static str; 2],
    /// Before a parameter's value, where there is a tag of its own, and behind it.
    pub(crate) value: [&'static str; 2],
    /// White space that models write: behind `open` and each call, behind the tool's name and each argument, and on
    /// both sides of a value. The last is no part of the value.
    pub(crate) spaces: [&'static str; 3],
    /// Some of the models write a newline behind each tag of a parameter, some don't.
    pub(crate) loose: bool,
    /// A parameter which the schema doesn't name may be JSON.
    pub(crate) untyped_is_json: bool,
}

impl Tags {
    /// Reads calls behind `open`; where `inside`, behind the tag before the name, without anything around the call.
    pub(crate) async fn read(&self, input: &Input, tools: &[Tool], inside: bool) -> Read<()> {
        if inside {
            self.read_call(input, tools).await?;
            input.maybe_close(self.close).await;
            return Ok(());
        }
        loop {
            input.space().await;
            input.literal(self.call[0]).await?;
            self.read_call(input, tools).await?;
            input.space().await;
            if input.maybe(self.close).await || input.peek().await.is_none() {
                return Ok(());
            }
        }
    }

    async fn read_call(&self, input: &Input, tools: &[Tool]) -> Read<()> {
        let (name, _) = input.name(&[self.call[1]]).await?;
        let parameters = Parameters::of(tools, &name, self.untyped_is_json);
        input.call(name, None);
        let mut members = Members::open(input);
        loop {
            input.space().await;
            match input.one_of(&[self.call[2], self.key[0]]).await.ok_or(Broken)? {
                end if end == self.call[2] => break,
                _ => self.read_argument(input, &parameters, &mut members).await?,
            }
        }
        members.close();
        Ok(())
    }

    pub(crate) async fn read_argument(
        &self,
        input: &Input,
        parameters: &Parameters,
        members: &mut Members<'_>,
    ) -> Read<()> {
        let (key, _) = input.name(&[self.key[1]]).await?;
        if !self.value[0].is_empty() {
            input.space().await;
            input.literal(self.value[0]).await?;
        }
        if !self.spaces[2].is_empty() {
            input.maybe(self.spaces[2]).await;
        }
        if !parameters.is_text(&key) {
            // A string within JSON may hold what looks like the tag behind the value.
            let raw = match input.json_before(self.value[1]).await {
                Some(raw) => raw,
                None => {
                    let mut raw = String::new();
                    input.until(&[self.value[1]], |part| raw.push_str(part)).await?;
                    raw.strip_suffix(self.spaces[2]).unwrap_or(&raw).to_string()
                }
            };
            members.add(&key, &parameters.value(&key, &raw));
            return Ok(());
        }
        let new = members.key(&key);
        let members = &*members;
        if new {
            members.quote();
        }
        // The white space at the end is held back, as it may be the frame's.
        let mut held = false;
        input
            .until(&[self.value[1]], |part| {
                if new && std::mem::take(&mut held) {
                    members.text(self.spaces[2]);
                }
                held = !self.spaces[2].is_empty() && part == self.spaces[2];
                if new && !held {
                    members.text(part);
                }
            })
            .await?;
        if new {
            members.quote();
        }
        Ok(())
    }

    /// The grammar: blocks of one call each where `again`, else one block of calls.
    pub(crate) fn grammar(&self, mut lark: Lark<'_>, tools: &[Tool], again: Option<&str>, wanted: Wanted) -> String {
        let [around, behind, _] = self.spaces;
        let mut calls = Vec::new();
        for (place, tool) in tools.iter().enumerate() {
            let head = quoted(&format!("{}{}{}{behind}", self.call[0], tool.name, self.call[1]));
            let arguments = self.arguments(&mut lark, tool, place);
            calls.push(format!("{head} {arguments} {}", quoted(&format!("{}{around}", self.call[2]))));
        }
        lark.rule("call", &calls.join(" | "));
        let more = if again.is_none() && wanted.parallel { "+" } else { "" };
        let open = if around.is_empty() { String::new() } else { quoted(around) };
        let close = lark.mark(self.close);
        lark.rule("body", &format!("{open} call{more} {close}"));
        lark.marked(self.open, "body", again, wanted)
    }

    /// Rules for a tool's arguments, in the schema's order, and what refers to them.
    pub(crate) fn arguments(&self, lark: &mut Lark<'_>, tool: &Tool, place: usize) -> String {
        let behind = match self.spaces[1] {
            "" if self.loose => " \"\\n\"?".to_string(),
            "" => String::new(),
            space => format!(" {}", quoted(space)),
        };
        let mut parts = Vec::new();
        let root = &tool.parameters;
        let object = resolved(root, root).unwrap_or(root);
        let required: Vec<&str> = list_of(object, "required").filter_map(Value::as_str).collect();
        let properties = object.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
        for (number, (key, schema)) in properties.iter().enumerate() {
            let rule = format!("value_{place}_{number}");
            self.value_rule(lark, &rule, schema, root);
            let head = self.head(lark, [self.key[0], key, self.key[1]]);
            let part = format!("{head} {rule}{behind}");
            parts.push(if required.contains(&key.as_str()) { part } else { format!("({part})?") });
        }
        if properties.is_empty() && object.get("additionalProperties") != Some(&Value::Bool(false)) && is_open(object) {
            let rule = format!("value_{place}");
            lark.text_before(&rule, self.value[1]);
            let name = format!("/[A-Za-z_][A-Za-z0-9_]{{0,63}}/ {}", self.head(lark, [self.key[1]]));
            parts.push(format!("({} {name} {rule}{behind})*", lark.mark(self.key[0])));
        }
        parts.join(" ")
    }

    /// A parameter's name, then what stands before its value.
    fn head<const N: usize>(&self, lark: &Lark<'_>, name: [&str; N]) -> String {
        let name = name.into_iter();
        if self.loose {
            format!("{} \"\\n\"? {}", self.sequence(lark, name), self.sequence(lark, [self.value[0]]))
        } else {
            self.sequence(lark, name.chain([self.value[0], self.spaces[2]]))
        }
    }

    /// Markers and texts in a row, neighbouring texts as one.
    fn sequence<'t>(&self, lark: &Lark<'_>, texts: impl IntoIterator<Item = &'t str>) -> String {
        let (mut parts, mut text) = (Vec::new(), String::new());
        for part in texts {
            if lark.is_token(part) {
                if !text.is_empty() {
                    parts.push(quoted(&std::mem::take(&mut text)));
                }
                parts.push(lark.mark(part));
            } else {
                text.push_str(part);
            }
        }
        if !text.is_empty() {
            parts.push(quoted(&text));
        }
        parts.join(" ")
    }

    /// A rule for a value and the tag behind it.
    fn value_rule(&self, lark: &mut Lark<'_>, rule: &str, schema: &Value, root: &Value) {
        let space = self.spaces[2];
        let end = self.sequence(lark, [space, self.value[1]]);
        let schema = resolved(schema, root).unwrap_or(schema);
        let choices: Vec<&Value> = schema.get("const").into_iter().chain(list_of(schema, "enum")).collect();
        if !choices.is_empty() && choices.iter().all(|choice| choice.is_string()) {
            let choices: Vec<String> = choices.iter().filter_map(|choice| choice.as_str()).map(quoted).collect();
            lark.rule(rule, &format!("({}) {end}", choices.join(" | ")));
            return;
        }
        match kind_of(schema, root) {
            Some("string") | None => lark.text_before(rule, self.value[1]),
            Some(_) => {
                // A reference needs what it refers to.
                let mut schema = schema.as_object().cloned().unwrap_or_else(Map::new);
                for key in ["$defs", "definitions"] {
                    if let Some(definitions) = root.get(key) {
                        schema.entry(key).or_insert_with(|| definitions.clone());
                    }
                }
                lark.json(&format!("json_{rule}"), &Value::Object(schema));
                lark.rule(rule, &format!("json_{rule} {end}"));
            }
        }
    }
}

/// The schema says nothing of what the arguments are.
fn is_open(object: &Value) -> bool {
    object.get("properties").is_none()
}
