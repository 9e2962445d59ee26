//! Results cut to a size: whoever reads one is told what is missing, and never reads half a character or half of a
//! picture.

use crate::schema::beginning;
use narthex_agent::{Content, ToolResult};

/// Cuts a result to so many bytes of texts and data, and says so at its end.
pub(crate) fn cut(mut result: ToolResult, bytes_max: usize) -> ToolResult {
    let bytes: usize = result.content.iter().map(size).sum();
    let structured_bytes = result.structured.as_ref().map_or(0, |value| value.to_string().len());
    if bytes + structured_bytes <= bytes_max {
        return result;
    }
    let mut left = bytes_max;
    // Half a JSON is none, so data that does not fit goes as a whole; its text usually says the same.
    if structured_bytes > left {
        result.structured = None;
    } else {
        left -= structured_bytes;
    }
    let mut kept = vec![];
    for content in result.content {
        let size = size(&content);
        if size <= left {
            left -= size;
            kept.push(content);
        } else if let Content::Text { text } = content {
            let text = beginning(&text, left);
            if !text.is_empty() {
                kept.push(Content::Text { text: text.into() });
            }
            left = 0;
        } else {
            left = 0;
        }
        if left == 0 {
            break;
        }
    }
    let total = bytes + structured_bytes;
    let text = format!("[cut: the result has {total} bytes, and {bytes_max} are kept; ask for less at once]");
    kept.push(Content::Text { text });
    result.content = kept;
    result
}

fn size(content: &Content) -> usize {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    match content {
        Content::Text { text } => text.len(),
        Content::Image { data, mime_type } | Content::Audio { data, mime_type } => data.len() + mime_type.len(),
        Content::Resource { uri, mime_type, text, blob } => uri.len() + length(mime_type) + length(text) + length(blob),
        Content::Link { uri, name, mime_type } => uri.len() + name.len() + length(mime_type),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn results_are_cut() {
        let text = |text: &str| Content::Text { text: text.into() };
        let image = |bytes: usize| Content::Image { data: "A".repeat(bytes), mime_type: "image/png".into() };
        let check = |content: Vec<Content>, structured: Option<serde_json::Value>, kept: &[&str], told: bool| {
            let before = ToolResult { content, structured, is_error: false };
            let after = cut(before.clone(), 20);
            let texts: Vec<&str> = after
                .content
                .iter()
                .map(|content| match content {
                    Content::Text { text } if text.starts_with("[cut") => "cut",
                    Content::Text { text } => text,
                    _ => "other",
                })
                .collect();
            assert_eq!(texts, kept, "{before:?}");
            assert_eq!(after != before, told);
        };
        check(vec![text("short")], None, &["short"], false);
        check(vec![text(&"x".repeat(20))], None, &["xxxxxxxxxxxxxxxxxxxx"], false);
        check(vec![text(&"x".repeat(21))], None, &["xxxxxxxxxxxxxxxxxxxx", "cut"], true);
        // Two bytes a character: 20 bytes hold 10, and 19 would hold 9.
        check(vec![text("a"), text(&"é".repeat(20))], None, &["a", "ééééééééé", "cut"], true);
        check(vec![image(8), text(&"y".repeat(40))], None, &["other", "yyy", "cut"], true);
        check(vec![image(40), text("after")], None, &["cut"], true);
        check(vec![text("short")], Some(json!({"a": 1})), &["short"], false);
        check(vec![text("short")], Some(json!({"a": "x".repeat(40)})), &["short", "cut"], true);
    }
}
