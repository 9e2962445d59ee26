//! The items of a response, as OpenAI names them. Knows no run.

use serde_json::{Value, json};

/// Whose the tools are, as items of other servers' tools name it.
const LABEL: &str = "narthex";

/// What is said.
pub(super) fn message(id: &str, part: Option<Value>, status: &str) -> Value {
    let content: Vec<Value> = part.into_iter().collect();
    json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
}

/// The part of a message.
pub(super) fn said(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

/// What is thought.
pub(super) fn reasoning(id: &str, part: Option<Value>, status: &str) -> Value {
    let content: Vec<Value> = part.into_iter().collect();
    json!({"id": id, "type": "reasoning", "summary": [], "content": content, "status": status})
}

/// The part of what is thought.
pub(super) fn thought(text: &str) -> Value {
    json!({"type": "reasoning_text", "text": text})
}

/// A call that the agent made.
pub(super) fn call(id: &str, tool: &str, arguments: &Value) -> Value {
    json!({
        "id": id, "type": "mcp_call", "status": "in_progress", "server_label": LABEL, "name": tool,
        "arguments": arguments.to_string(), "approval_request_id": null, "output": null, "error": null,
    })
}

/// A call that waits for approval.
pub(super) fn approval(id: &str, tool: &str, arguments: &Value) -> Value {
    json!({
        "id": id, "type": "mcp_approval_request", "server_label": LABEL, "name": tool,
        "arguments": arguments.to_string(),
    })
}
