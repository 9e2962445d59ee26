//! Chat messages as the OpenAI API and Hugging Face templates name them. Knows their form, not who answers.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::borrow::Cow;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions to the model.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// The result of a tool call.
    Tool,
}

impl Role {
    /// The name in templates and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation. A plain one is written as `{"role", "content"}` and nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    #[serde(default, deserialize_with = "or_nothing")]
    pub content: MessageContent,
    /// The tools that the model asks for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tool_calls: Vec<ToolCall>,
    /// Of a tool's result, the call that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool_call_id: Option<String>,
    /// Who of several with this role speaks; of a tool's result, the tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether a model that is tuned on the conversation learns what is said; an assistant's is, unless it says no.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub train: bool,
    /// What else it says, for the template: `reasoning_content`, `thinking` and others.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

fn or_nothing<'de, D: Deserializer<'de>>(deserializer: D) -> Result<MessageContent, D::Error> {
    Ok(Option::<MessageContent>::deserialize(deserializer)?.unwrap_or_default())
}

fn yes() -> bool {
    true
}

fn is_yes(value: &bool) -> bool {
    *value
}

/// Messages with the tools that the model may call in them. Without tools it is written as the list of its messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Written", into = "Written")]
pub struct Conversation {
    /// The messages.
    pub messages: Vec<Message>,
    /// The tools, each as the OpenAI API describes one: `{"type": "function", "function": {…}}`.
    pub tools: Vec<Value>,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Messages(Vec<Message>),
    WithTools { messages: Vec<Message>, tools: Vec<Value> },
}

impl From<Written> for Conversation {
    fn from(written: Written) -> Self {
        match written {
            Written::Messages(messages) => Self { messages, tools: vec![] },
            Written::WithTools { messages, tools } => Self { messages, tools },
        }
    }
}

impl From<Conversation> for Written {
    fn from(Conversation { messages, tools }: Conversation) -> Self {
        if tools.is_empty() { Self::Messages(messages) } else { Self::WithTools { messages, tools } }
    }
}

impl From<Vec<Message>> for Conversation {
    fn from(messages: Vec<Message>) -> Self {
        Self { messages, tools: vec![] }
    }
}

/// What a message says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum MessageContent {
    /// A text.
    Text(String),
    /// Texts, images and sounds, in their order.
    Parts(Vec<Part>),
    /// Nothing: the message only calls tools. `null` on the wire.
    #[default]
    Nothing,
}

/// A part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// A text.
    Text {
        /// The text.
        text: String,
    },
    /// An image.
    ImageUrl {
        /// Where it is.
        image_url: ImageUrl,
    },
    /// A sound.
    InputAudio {
        /// What it is.
        input_audio: InputAudio,
    },
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageUrl {
    /// `https:`, or `data:` with the image itself.
    pub url: String,
    /// How closely to look: `low`, `high` or `auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A sound.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputAudio {
    /// Its bytes in base64.
    pub data: String,
    /// `wav` or `mp3`.
    pub format: String,
}

/// A tool that the model asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolCall {
    /// What the result names it by; empty where a conversation does not say it.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// What kind of tool it is.
    #[serde(rename = "type", default, deserialize_with = "or_default")]
    pub kind: ToolKind,
    /// The function and its arguments.
    pub function: FunctionCall,
}

/// `null` is what is meant where a key is absent: some exporters fill them all.
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> std::result::Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// What kind of tool is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToolKind {
    /// A function of the caller's.
    #[default]
    Function,
}

/// A function with its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FunctionCall {
    /// The function's name.
    pub name: String,
    /// A JSON object as the model wrote it: it need not be valid. Read as text, or as the object itself.
    #[serde(default, deserialize_with = "as_text")]
    pub arguments: String,
}

fn as_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text,
        Value::Null => "{}".into(),
        other => other.to_string(),
    })
}

impl Message {
    /// A message of text.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        let content = MessageContent::Text(content.into());
        let (tool_calls, tool_call_id, name, train, others) = (vec![], None, None, true, Map::new());
        Self { role, content, tool_calls, tool_call_id, name, train, others }
    }

    /// What is said in words: the text, or those of its parts with line ends between them.
    pub fn text(&self) -> Cow<'_, str> {
        match &self.content {
            MessageContent::Text(text) => text.into(),
            MessageContent::Parts(parts) => {
                let texts =
                    parts.iter().filter_map(|part| if let Part::Text { text } = part { Some(text) } else { None });
                texts.map(String::as_str).collect::<Vec<_>>().join("\n").into()
            }
            MessageContent::Nothing => "".into(),
        }
    }

    /// Changes every text in it.
    pub fn change_texts(&mut self, change: impl Fn(String) -> String) {
        let change = |text: &mut String| *text = change(std::mem::take(text));
        match &mut self.content {
            MessageContent::Text(text) => change(text),
            MessageContent::Parts(parts) => {
                for part in parts {
                    if let Part::Text { text } = part {
                        change(text);
                    }
                }
            }
            MessageContent::Nothing => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Reads a message, which is written as it was, and has this text.
    fn check(message: Value, text: &str) {
        let read: Message = serde_json::from_value(message.clone()).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), message.to_string());
        assert_eq!(read.text(), text, "{message}");
    }

    #[test]
    fn messages_in_the_forms_of_openai() {
        check(json!({"role": "user", "content": "hi"}), "hi");
        check(
            json!({"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}, {"type": "text", "text": "b"},
            ]}),
            "a\nb",
        );
        let function = json!({"name": "add", "arguments": "{\"a\": 1"});
        check(
            json!({"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}),
            "",
        );
        check(json!({"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}), "3");
        let silent: Message = serde_json::from_value(json!({"role": "assistant"})).unwrap();
        assert_eq!(silent.content, MessageContent::Nothing);
        for wrong in [json!({"role": "user", "content": 1}), json!({"role": "bard", "content": "x"})] {
            assert!(serde_json::from_value::<Message>(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conversations_with_and_without_tools() {
        let plain = json!([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "a", "train": false}]);
        let with = json!({"messages": plain, "tools": [{"type": "function", "function": {"name": "f"}}]});
        for (json, tools) in [(plain, 0), (with, 1)] {
            let read: Conversation = serde_json::from_value(json.clone()).unwrap();
            assert_eq!((read.messages[0].train, read.messages[1].train, read.tools.len()), (true, false, tools));
            assert_eq!(serde_json::to_value(&read).unwrap(), json);
        }
        let call = json!({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
            "reasoning_content": "r"});
        let read: Message = serde_json::from_value(call).unwrap();
        assert_eq!(
            (read.tool_calls[0].function.arguments.as_str(), &read.others["reasoning_content"]),
            ("{\"a\":1}", &json!("r"))
        );
    }

    #[test]
    fn texts_are_changed_where_they_stand() {
        let mut message = Message::new(Role::User, "ab");
        message.change_texts(|text| text.to_uppercase());
        assert_eq!(message, Message::new(Role::User, "AB"));
        message.content = MessageContent::Parts(vec![Part::Text { text: "c".into() }]);
        message.change_texts(|text| text.to_uppercase());
        assert_eq!(message.text(), "C");
    }
}
