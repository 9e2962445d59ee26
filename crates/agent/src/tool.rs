//! The seam between the loop and what it can call. A tool is described once, judged by the policy, and called with
//! arguments that its schema has accepted. Knows no protocol: MCP, HTTP, a shell or another agent stand behind it.

use futures::future::BoxFuture;
use narthex_base::Digest;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A tool as a model sees it and as a person approves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    /// What the model calls it by: 1 to 128 of `A–Z a–z 0–9 _ - .`, unique within an agent.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// JSON Schema (2020-12) of its arguments; of type `object`.
    pub input_schema: Value,
    /// JSON Schema of its structured result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// What a call does to the world, as far as whoever configured it says so. A server's own word does not count.
    pub effect: Effect,
}

impl ToolDefinition {
    /// Of everything that a person approved: the name, the description and the schemas, in canonical form.
    pub fn digest(&self) -> Digest {
        let shown = serde_json::json!([self.name, self.description, self.input_schema, self.output_schema]);
        Digest::of(shown.to_string().as_bytes())
    }
}

/// What a call does to the world.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it may be called again after a crash.
    Reads,
    /// It changes something here; what has begun is never begun again by itself.
    Writes,
    /// It reaches out to others, or nobody said what it does.
    #[default]
    Reaches,
}

/// A call with its arguments.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// The same after a crash: what an idempotency key is made of.
    pub id: String,
    /// The run that it is part of.
    pub run: String,
    /// Whose run it is.
    pub tenant: String,
    /// The arguments, valid for the schema.
    pub arguments: Map<String, Value>,
}

/// What a tool gives back, in the forms that MCP has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// What the model reads.
    pub content: Vec<Content>,
    /// The result as data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
    /// Whether the tool says that it failed: the model reads why and goes on.
    #[serde(default)]
    pub is_error: bool,
}

impl ToolResult {
    /// A result of text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { content: vec![Content::Text { text: text.into() }], structured: None, is_error: false }
    }

    /// An error that the model reads.
    pub fn error(text: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::text(text) }
    }
}

/// A piece of a result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Content {
    /// A text.
    Text {
        /// The text.
        text: String,
    },
    /// An image, in base64.
    Image {
        /// The bytes.
        data: String,
        /// Their media type.
        mime_type: String,
    },
    /// A sound, in base64.
    Audio {
        /// The bytes.
        data: String,
        /// Their media type.
        mime_type: String,
    },
    /// A resource with what it holds.
    Resource {
        /// Its address.
        uri: String,
        /// Its media type.
        mime_type: Option<String>,
        /// What it holds, if that is text.
        text: Option<String>,
        /// What it holds in base64, if it is not.
        blob: Option<String>,
    },
    /// A resource that is only named.
    Link {
        /// Its address.
        uri: String,
        /// Its name.
        name: String,
        /// Its media type.
        mime_type: Option<String>,
    },
}

/// Why a tool gave nothing back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolFailure {
    /// What is wrong, for a person and the model.
    pub message: String,
    /// Whether the call certainly had no effect, and may be made again.
    pub harmless: bool,
}

/// Told how far a call has come: done, of how many if that is known, and a word for it.
pub type Progress = Arc<dyn Fn(f64, Option<f64>, Option<&str>) + Send + Sync>;

/// Something that can be called.
pub trait Tool: Send + Sync {
    /// How it is described. Stays as it is for as long as this is: a tool that has changed is another one.
    fn definition(&self) -> &ToolDefinition;

    /// Whether it is described otherwise than when somebody last took it as it was: then a person is asked, whatever a
    /// rule allows.
    fn has_changed(&self) -> bool {
        false
    }

    /// Calls it. Dropping the future cancels the call, as far as it can be.
    fn call(&self, call: Call, progress: Progress) -> BoxFuture<'static, Result<ToolResult, ToolFailure>>;
}
