//! Masks texts, values, messages, results and answers. Knows their forms, and nothing of where they are kept.

use super::find::{Redact, find};
use crate::{
    agents::Answer,
    model::{ModelAnswer, ModelFailure, ModelRequest},
    tool::{Content, ToolFailure, ToolResult},
};
use narthex_base::chat::{Message, MessageContent, Part, Role};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// What an agent wants masked; nothing costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masker {
    kinds: Vec<Redact>,
}

impl Masker {
    /// Masks these.
    pub fn new(kinds: &[Redact]) -> Self {
        let mut kinds = kinds.to_vec();
        kinds.sort_unstable();
        kinds.dedup();
        Self { kinds }
    }

    /// Whether it masks anything.
    pub fn is_idle(&self) -> bool {
        self.kinds.is_empty()
    }

    /// A text with a word such as `[email]` in place of whatever is to be masked.
    pub fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let found = if self.is_idle() { vec![] } else { find(text, &self.kinds) };
        if found.is_empty() {
            return Cow::Borrowed(text);
        }
        let (mut masked, mut from) = (String::with_capacity(text.len()), 0);
        for found in found {
            masked.push_str(&text[from..found.start]);
            masked.push_str(found.kind.mask());
            from = found.end;
        }
        masked.push_str(&text[from..]);
        Cow::Owned(masked)
    }

    /// All texts of a value, its keys and its numbers too.
    pub fn value(&self, value: &mut Value) {
        match value {
            _ if self.is_idle() => {}
            Value::String(text) => self.string(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => self.fields(fields),
            Value::Number(number) => {
                let text = number.to_string();
                if let Cow::Owned(masked) = self.text(&text) {
                    *value = Value::String(masked);
                }
            }
            Value::Null | Value::Bool(_) => {}
        }
    }

    /// The same of an object.
    pub fn fields(&self, fields: &mut Map<String, Value>) {
        if self.is_idle() {
            return;
        }
        fields.values_mut().for_each(|field| self.value(field));
        if fields.keys().any(|key| matches!(self.text(key), Cow::Owned(_))) {
            let mut masked = Map::new();
            for (place, (key, field)) in std::mem::take(fields).into_iter().enumerate() {
                let mut key = self.text(&key).into_owned();
                // Two keys must not become one.
                if masked.contains_key(&key) {
                    key = format!("{key} {place}");
                }
                masked.insert(key, field);
            }
            *fields = masked;
        }
    }

    fn string(&self, text: &mut String) {
        if let Cow::Owned(masked) = self.text(text) {
            *text = masked;
        }
    }

    /// What a message says.
    pub fn content(&self, content: &mut MessageContent) {
        match content {
            MessageContent::Text(text) => self.string(text),
            MessageContent::Parts(parts) => parts.iter_mut().for_each(|part| match part {
                Part::Text { text } => self.string(text),
                // A picture in the message itself is not looked at.
                Part::ImageUrl { image_url } if image_url.url.starts_with("data:") => {}
                Part::ImageUrl { image_url } => self.string(&mut image_url.url),
                Part::InputAudio { .. } => {}
            }),
            MessageContent::Nothing => {}
        }
    }

    /// A message: what it says, thinks and asks for. Ids and names of tools stay.
    pub fn message(&self, message: &mut Message) {
        if self.is_idle() {
            return;
        }
        self.content(&mut message.content);
        self.fields(&mut message.others);
        if message.role != Role::Tool
            && let Some(name) = &mut message.name
        {
            self.string(name);
        }
        for call in &mut message.tool_calls {
            let arguments = &mut call.function.arguments;
            match serde_json::from_str::<Value>(arguments) {
                Ok(mut value) => {
                    let before = value.clone();
                    self.value(&mut value);
                    if value != before {
                        *arguments = value.to_string();
                    }
                }
                Err(_) => self.string(arguments),
            }
        }
    }

    /// What a model is asked: all but the instructions, which are the operator's own.
    pub(crate) fn request(&self, request: &mut ModelRequest) {
        let said = request.conversation.messages.iter_mut().filter(|message| message.role != Role::System);
        said.for_each(|message| self.message(message));
    }

    /// What a model answered.
    pub(crate) fn answered(&self, result: Result<ModelAnswer, ModelFailure>) -> Result<ModelAnswer, ModelFailure> {
        match result {
            Ok(mut answer) => {
                self.message(&mut answer.message);
                Ok(answer)
            }
            Err(mut failure) => {
                self.string(&mut failure.message);
                Err(failure)
            }
        }
    }

    /// What a tool gave back. Bytes that are no picture and no sound are left out: they may hold a text.
    pub(crate) fn given(&self, result: Result<ToolResult, ToolFailure>) -> Result<ToolResult, ToolFailure> {
        match result {
            _ if self.is_idle() => result,
            Ok(mut result) => {
                result.content.iter_mut().for_each(|content| self.piece(content));
                if let Some(structured) = &mut result.structured {
                    self.value(structured);
                }
                Ok(result)
            }
            Err(mut failure) => {
                self.string(&mut failure.message);
                Err(failure)
            }
        }
    }

    fn piece(&self, content: &mut Content) {
        match content {
            Content::Text { text } => self.string(text),
            Content::Resource { uri, text, blob, mime_type } => {
                self.string(uri);
                text.iter_mut().for_each(|text| self.string(text));
                if let Some(blob) = blob {
                    let (bytes, kind) = (blob.len() / 4 * 3, mime_type.as_deref().unwrap_or("unknown type"));
                    let text =
                        format!("{uri}: about {bytes} bytes of {kind}, left out: `redact` cannot look into them");
                    *content = Content::Text { text };
                }
            }
            Content::Link { uri, name, .. } => {
                self.string(uri);
                self.string(name);
            }
            Content::Image { .. } | Content::Audio { .. } => {}
        }
    }

    /// What a person answers. Who answers stays: an approval without a name is none.
    pub(crate) fn answer(&self, answer: &mut Answer) {
        match answer {
            Answer::Approve { .. } => {}
            Answer::Edit { arguments, .. } => self.fields(arguments),
            Answer::Refuse { why, .. } => self.string(why),
            Answer::Say { value } => self.value(value),
        }
    }
}
