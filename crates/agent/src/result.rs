//! Results of tools as messages: what a model reads of them, and how much of it. A result is data: whatever it says, it
//! stands in a message of the role `tool`. Knows no run.

use crate::{
    canonical::{DEPTH_MAX, is_deeper},
    tool::{Content, ToolResult},
};
use narthex_base::chat::{ImageUrl, InputAudio, Message, MessageContent, Part, Role};
use serde_json::Value;

/// Bytes of one result that are kept; what a model reads is cut further.
pub const RESULT_BYTES_MAX: usize = 16 << 20;

/// Pieces of one result that are kept: each costs more than its bytes.
const PIECES_MAX: usize = 1_000;

/// The message of a call's result, cut to so many bytes.
pub(crate) fn message(call: &str, tool: &str, result: &ToolResult, bytes_max: usize) -> Message {
    let (mut parts, mut left, mut out) = (Vec::new(), bytes_max, LeftOut::default());
    for content in &result.content {
        let piece = part(content);
        let bytes = part_bytes(&piece);
        match piece {
            Part::Text { text } if left > 0 && parts.len() < PIECES_MAX => {
                let (kept, cut) = cut(&text, left);
                // Pieces of text are joined by line ends.
                left = left.saturating_sub(kept.len() + 1);
                out.add(cut, text.len());
                parts.push(Part::Text { text: kept.to_string() });
            }
            Part::Text { .. } => out.add(bytes, bytes),
            whole if bytes <= left && parts.len() < PIECES_MAX => {
                left -= bytes;
                parts.push(whole);
            }
            _ => out.add(bytes, bytes),
        }
    }
    if let Some(note) = out.note("limits.result_bytes") {
        match parts.last_mut() {
            Some(Part::Text { text }) => text.push_str(&note),
            _ => parts.push(Part::Text { text: note.trim_start().into() }),
        }
    }
    if let (true, Some(structured)) = (parts.is_empty(), &result.structured) {
        let whole = ToolResult { content: vec![Content::Text { text: structured.to_string() }], ..result.clone() };
        return message(call, tool, &whole, bytes_max);
    }
    if result.is_error {
        parts.insert(0, Part::Text { text: "error:".into() });
    }
    let mut message = Message::new(Role::Tool, "");
    message.content = joined(parts);
    message.tool_call_id = Some(call.to_string());
    message.name = Some(tool.to_string());
    message
}

/// Texts become one text; where there are images or sounds, all stay parts.
fn joined(parts: Vec<Part>) -> MessageContent {
    let texts: Option<Vec<&str>> =
        parts.iter().map(|part| if let Part::Text { text } = part { Some(text.as_str()) } else { None }).collect();
    match texts {
        Some(texts) => MessageContent::Text(texts.join("\n")),
        None => MessageContent::Parts(parts),
    }
}

fn part(content: &Content) -> Part {
    let text = |text: String| Part::Text { text };
    match content {
        Content::Text { text: said } => text(said.clone()),
        Content::Image { data, mime_type } => {
            Part::ImageUrl { image_url: ImageUrl { url: format!("data:{mime_type};base64,{data}"), detail: None } }
        }
        Content::Audio { data, mime_type } => {
            let format = mime_type.rsplit('/').next().unwrap_or_default().to_string();
            Part::InputAudio { input_audio: InputAudio { data: data.clone(), format } }
        }
        Content::Resource { uri, text: Some(said), .. } => text(format!("{uri}:\n{said}")),
        Content::Resource { uri, mime_type, blob, .. } => {
            let bytes = blob.as_ref().map_or(0, |blob| blob.len() / 4 * 3);
            text(format!("{uri}: about {bytes} bytes of {}", mime_type.as_deref().unwrap_or("unknown type")))
        }
        Content::Link { uri, name, .. } => text(format!("{name}: {uri}")),
    }
}

fn part_bytes(part: &Part) -> usize {
    match part {
        Part::Text { text } => text.len(),
        Part::ImageUrl { image_url } => image_url.url.len(),
        Part::InputAudio { input_audio } => input_audio.data.len(),
    }
}

/// The first bytes of a text that make whole characters, and how many bytes are left out.
fn cut(text: &str, bytes_max: usize) -> (&str, usize) {
    let kept = &text[..text.floor_char_boundary(bytes_max)];
    (kept, text.len() - kept.len())
}

/// What is left out of a result: told once, however many pieces it was in.
#[derive(Default)]
struct LeftOut {
    cut: usize,
    of: usize,
}

impl LeftOut {
    /// Notes that so many bytes of a piece are left out; pieces that are whole are not spoken of.
    fn add(&mut self, cut: usize, of: usize) {
        if cut > 0 {
            self.cut += cut;
            self.of += of;
        }
    }

    fn note(&self, limit: &str) -> Option<String> {
        let Self { cut, of } = self;
        (*cut > 0).then(|| format!("\n[{cut} of {of} bytes left out: `{limit}`; ask for less, or for another part]"))
    }
}

/// The result with each of its texts and data cut to what is kept, and without data that could not be read again.
pub(crate) fn bounded(mut result: ToolResult, bytes_max: usize) -> ToolResult {
    let (mut left, mut out) = (bytes_max, LeftOut::default());
    let mut kept_pieces = 0;
    result.content.retain_mut(|content| {
        let has_room = kept_pieces < PIECES_MAX;
        let is_kept = match content {
            Content::Text { text } | Content::Resource { text: Some(text), .. } => {
                let (kept, lost) = cut(text, if has_room { left } else { 0 });
                let kept = kept.len();
                left -= kept;
                out.add(lost, text.len());
                text.truncate(kept);
                has_room && (kept > 0 || lost == 0)
            }
            Content::Image { data, .. } | Content::Audio { data, .. } | Content::Resource { blob: Some(data), .. } => {
                let fits = has_room && data.len() <= left;
                if fits {
                    left -= data.len();
                } else {
                    out.add(data.len(), data.len());
                }
                fits
            }
            Content::Resource { .. } | Content::Link { .. } => has_room,
        };
        kept_pieces += usize::from(is_kept);
        is_kept
    });
    if let Some(note) = out.note("RESULT_BYTES_MAX") {
        match result.content.last_mut() {
            Some(Content::Text { text }) => text.push_str(&note),
            _ => result.content.push(Content::Text { text: note.trim_start().into() }),
        }
    }
    let unfit = |data: &Value| is_deeper(data, DEPTH_MAX) || data.to_string().len() > bytes_max;
    if result.structured.as_ref().is_some_and(unfit) {
        result.structured = None;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(result: ToolResult, bytes_max: usize, expected: &str) {
        let message = message("c", "t", &result, bytes_max);
        assert_eq!(message.text(), expected);
        assert_eq!((message.role, message.tool_call_id.as_deref()), (Role::Tool, Some("c")));
    }

    #[test]
    fn results_as_a_model_reads_them() {
        check(ToolResult::text("abc"), 10, "abc");
        check(ToolResult::error("no"), 10, "error:\nno");
        let note = |cut, of| {
            format!("\n[{cut} of {of} bytes left out: `limits.result_bytes`; ask for less, or for another part]")
        };
        check(ToolResult::text("abcdef"), 4, &format!("abcd{}", note(2, 6)));
        check(ToolResult::text("aéb"), 2, &format!("a{}", note(3, 4)));
        check(ToolResult { structured: Some(json!({"a": 1})), ..ToolResult::default() }, 10, "{\"a\":1}");
        let link = Content::Link { uri: "https://x".into(), name: "n".into(), mime_type: None };
        let resource = |text: Option<&str>, blob: Option<&str>| Content::Resource {
            uri: "f:1".into(),
            mime_type: None,
            text: text.map(Into::into),
            blob: blob.map(Into::into),
        };
        let content = vec![link, resource(Some("t"), None), resource(None, Some("AAAA"))];
        let all = "n: https://x\nf:1:\nt\nf:1: about 3 bytes of unknown type";
        check(ToolResult { content, ..ToolResult::default() }, 100, all);
    }

    #[test]
    fn many_pieces_are_no_way_around_the_limit() {
        let content: Vec<Content> = (0..300_000).map(|_| Content::Text { text: "x".into() }).collect();
        let result = ToolResult { content, ..ToolResult::default() };
        let read = message("c", "t", &result, 1000).text().len();
        assert!(read < 1200, "{read}");
        let kept = bounded(result, 1 << 20);
        assert!(
            kept.content.len() <= PIECES_MAX && kept.content.iter().all(|piece| matches!(piece, Content::Text { .. }))
        );
        let empty = ToolResult { content: vec![Content::Text { text: String::new() }; 5000], ..ToolResult::default() };
        assert!(message("c", "t", &empty, 100).text().len() < 1200);
        assert!(bounded(empty, 100).content.len() <= PIECES_MAX);
    }

    #[test]
    fn images_stay_parts_unless_they_are_too_large() {
        let image = Content::Image { data: "AAAA".repeat(10), mime_type: "image/png".into() };
        let result = ToolResult { content: vec![image], ..ToolResult::default() };
        assert!(matches!(message("c", "t", &result, 100).content, MessageContent::Parts(parts) if parts.len() == 1));
        assert!(message("c", "t", &result, 50).text().starts_with("[62 of 62 bytes left out"));
        assert!(matches!(&bounded(result.clone(), 39).content[0], Content::Text { .. }));
        assert_eq!(bounded(result.clone(), 40), result);
        let long = bounded(ToolResult::text("x".repeat(100)), 10);
        assert!(matches!(&long.content[0], Content::Text { text } if text.starts_with("xxxxxxxxxx\n[90 of 100")));
    }
}
