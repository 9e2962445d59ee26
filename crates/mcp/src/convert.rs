//! Between the forms of our seams and those of the SDK. Changes nothing on the way but what it says.

use narthex_agent::{Content, Effect, ToolDefinition, ToolResult};
use rmcp::model::{
    AudioContent, CallToolResult, ContentBlock, EmbeddedResource, ImageContent, JsonObject, Resource, ResourceContents,
    TextContent, Tool, ToolAnnotations,
};
use serde_json::{Map, Value};
use std::sync::Arc;

/// A tool as the wire names it.
pub(crate) fn tool(definition: &ToolDefinition) -> Tool {
    let mut tool = Tool::new(definition.name.clone(), definition.description.clone(), object(&definition.input_schema));
    tool.annotations = hints(definition.effect);
    tool.output_schema = definition.output_schema.as_ref().map(|schema| Arc::new(object(schema)));
    tool
}

/// What a host may know of a call before it asks a person: whether it only reads, and whether it stays here.
fn hints(effect: Effect) -> Option<ToolAnnotations> {
    match effect {
        Effect::Reads => Some(ToolAnnotations::new().read_only(true).open_world(false)),
        Effect::Writes => Some(ToolAnnotations::new().read_only(false).open_world(false)),
        Effect::Reaches => None,
    }
}

fn object(schema: &Value) -> JsonObject {
    schema.as_object().cloned().unwrap_or_else(|| Map::from_iter([("type".into(), "object".into())]))
}

/// A result as the wire has it. Data without a text is shown as text too, for clients that know only that.
pub(crate) fn result(result: ToolResult) -> CallToolResult {
    let mut content: Vec<ContentBlock> = result.content.into_iter().map(block).collect();
    if content.is_empty()
        && let Some(structured) = &result.structured
    {
        content.push(ContentBlock::text(structured.to_string()));
    }
    let mut out = if result.is_error { CallToolResult::error(content) } else { CallToolResult::success(content) };
    out.structured_content = result.structured;
    out
}

/// A piece of a result as the wire has it.
pub(crate) fn block(content: Content) -> ContentBlock {
    match content {
        Content::Text { text } => ContentBlock::Text(TextContent::new(text)),
        Content::Image { data, mime_type } => ContentBlock::Image(ImageContent::new(data, mime_type)),
        Content::Audio { data, mime_type } => ContentBlock::Audio(AudioContent::new(data, mime_type)),
        Content::Resource { uri, mime_type, text, blob } => {
            ContentBlock::Resource(EmbeddedResource::new(contents(uri, mime_type, text, blob)))
        }
        Content::Link { uri, name, mime_type } => {
            let mut link = Resource::new(uri, name);
            link.mime_type = mime_type;
            ContentBlock::ResourceLink(link)
        }
    }
}

/// What a resource holds, as the wire has it.
pub(crate) fn contents(
    uri: String,
    mime_type: Option<String>,
    text: Option<String>,
    blob: Option<String>,
) -> ResourceContents {
    match blob {
        Some(blob) => ResourceContents::BlobResourceContents { uri, mime_type, blob, meta: None },
        None => ResourceContents::TextResourceContents { uri, mime_type, text: text.unwrap_or_default(), meta: None },
    }
}

/// A piece of a result as we have it; kinds that the SDK knows and we do not are named.
pub(crate) fn content(block: ContentBlock) -> Content {
    match block {
        ContentBlock::Text(text) => Content::Text { text: text.text },
        ContentBlock::Image(image) => Content::Image { data: image.data, mime_type: image.mime_type },
        ContentBlock::Audio(audio) => Content::Audio { data: audio.data, mime_type: audio.mime_type },
        ContentBlock::Resource(embedded) => held(embedded.resource),
        ContentBlock::ResourceLink(link) => Content::Link { uri: link.uri, name: link.name, mime_type: link.mime_type },
        _ => Content::Text { text: "(a kind of content that is not known here)".into() },
    }
}

/// What a resource holds, as we have it.
pub(crate) fn held(contents: ResourceContents) -> Content {
    match contents {
        ResourceContents::TextResourceContents { uri, mime_type, text, .. } => {
            Content::Resource { uri, mime_type, text: Some(text), blob: None }
        }
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            Content::Resource { uri, mime_type, text: None, blob: Some(blob) }
        }
        _ => Content::Text { text: "(a kind of resource that is not known here)".into() },
    }
}
