//! Writing and editing below a folder. What is read for it is read through [`super::reading`].

use super::reading::Reading;
use crate::described::{Outcome, refused, string};
use narthex_agent::{ToolFailure, ToolResult};
use serde_json::{Map, Value, json};

/// The arguments of [`write()`].
pub fn write_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, such as `notes/today.md`; folders are made"},
            "content": {"type": "string", "description": "All that the file shall hold"}
        },
        "required": ["path", "content"],
        "additionalProperties": false
    })
}

/// Writes a whole file.
pub fn write(reading: &Reading, arguments: &Map<String, Value>) -> Outcome {
    let path = reading.path(arguments)?;
    let content = string(arguments, "content")?;
    check_size(reading, content)?;
    // What a thread left that panicked is whole, since files are put in place as wholes.
    let _held = reading.writes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    reading.beneath.write(&path, content.as_bytes()).map_err(unsure)?;
    Ok(ToolResult::text(format!("wrote {} bytes to `{path}`", content.len())))
}

/// What `old` means.
const OLD: &str = "The passage, exactly as it stands there, with as many lines around it as make it the only one";

/// The arguments of [`edit`].
pub fn edit_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file"},
            "old": {"type": "string", "minLength": 1, "description": OLD},
            "new": {"type": "string", "description": "What shall stand in its place"}
        },
        "required": ["path", "old", "new"],
        "additionalProperties": false
    })
}

/// Replaces the one passage that is like `old`.
pub fn edit(reading: &Reading, arguments: &Map<String, Value>) -> Outcome {
    let path = reading.path(arguments)?;
    let (old, new) = (string(arguments, "old")?, string(arguments, "new")?);
    if old.is_empty() {
        return Err(refused("`old` is empty: give the passage that is to be replaced"));
    }
    let _held = reading.writes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let text = reading.text(&path)?;
    let places: Vec<usize> = places(&text, old).take(2).collect();
    let at = match places[..] {
        [] => {
            return Err(refused(format!(
                "`old` is not in `{path}`: read the file, and copy the passage with its blanks and line breaks"
            )));
        }
        [at] => at,
        _ => {
            return Err(refused(format!(
                "`old` is in `{path}` more than once, first in lines {} and {}: give more of the lines around it",
                line_of(&text, places[0]),
                line_of(&text, places[1])
            )));
        }
    };
    let edited = format!("{}{new}{}", &text[..at], &text[at + old.len()..]);
    check_size(reading, &edited)?;
    reading.beneath.write(&path, edited.as_bytes()).map_err(unsure)?;
    Ok(ToolResult::text(format!("edited line {} of `{path}`", line_of(&text, at))))
}

/// Where a passage stands, overlapping ones too: of `aa` in `aaa`, nobody can say which is meant.
fn places<'a>(text: &'a str, passage: &'a str) -> impl Iterator<Item = usize> + 'a {
    let step = passage.chars().next().map_or(1, char::len_utf8);
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text.get(from..)?.find(passage)?;
        from = at + step;
        Some(at)
    })
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn check_size(reading: &Reading, content: &str) -> Result<(), ToolFailure> {
    if content.len() as u64 > reading.file_bytes_max {
        let message =
            format!("the file would have {} bytes, and {} is the most", content.len(), reading.file_bytes_max);
        return Err(refused(message));
    }
    if content.contains('\0') {
        return Err(refused("the text holds a character of code 0: this tool writes text only"));
    }
    Ok(())
}

/// Folders may have been made, or the disk may have failed behind the renaming.
fn unsure(message: String) -> ToolFailure {
    ToolFailure { message, harmless: false }
}
