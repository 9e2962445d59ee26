//! Listing, reading and searching below a folder. Writes nothing.

use super::beneath::{Below, Beneath, Entry, EntryKind};
use crate::{
    bounds::cut,
    described::{Outcome, optional_number, optional_string, refused, string},
};
use globset::{GlobBuilder, GlobMatcher};
use narthex_agent::{ToolFailure, ToolResult};
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use std::sync::Mutex;

/// Entries of one listing.
const LISTED_MAX: usize = 1_000;
/// Folders that a listing may go down.
const LIST_DEPTH_MAX: usize = 8;
/// Files that a search looks into.
const SEARCHED_FILES_MAX: usize = 20_000;
/// Bytes that a search looks through.
const SEARCHED_BYTES_MAX: u64 = 256 << 20;
/// Lines that a search finds.
const MATCHES_MAX: usize = 200;
/// Bytes of a line that a search shows.
const LINE_BYTES_MAX: usize = 300;
/// Characters of a pattern.
const PATTERN_CHARS_MAX: usize = 1_000;
/// Bytes that a compiled pattern may have.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Lines of a file that can be named.
const LINES_MAX: usize = 1 << 30;

/// A folder, and how much of it a call may read.
pub struct Reading {
    pub beneath: Beneath,
    /// Bytes of a file.
    pub file_bytes_max: u64,
    /// Bytes of a result's text.
    pub result_bytes_max: usize,
    /// Held while a file is read to be written again.
    pub writes: Mutex<()>,
}

impl Reading {
    /// The text of a file.
    ///
    /// # Errors
    /// If it is no text, is too large, or is not below the folder.
    pub fn text(&self, path: &Below) -> Result<String, ToolFailure> {
        let bytes = self.beneath.read(path, self.file_bytes_max).map_err(refused)?;
        let is_binary = bytes.contains(&0);
        let text = String::from_utf8(bytes).ok().filter(|_| !is_binary);
        text.ok_or_else(|| refused(format!("`{path}` is no UTF-8 text: this tool reads text only")))
    }

    /// The path among the arguments.
    ///
    /// # Errors
    /// If it is missing or leads out of the folder.
    pub fn path(&self, arguments: &Map<String, Value>) -> Result<Below, ToolFailure> {
        self.beneath.path(string(arguments, "path")?).map_err(refused)
    }

    fn path_or_root(&self, arguments: &Map<String, Value>) -> Result<Below, ToolFailure> {
        self.beneath.path(optional_string(arguments, "path")?.unwrap_or(".")).map_err(refused)
    }
}

/// The arguments of [`list`].
pub fn list_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The folder, such as `src`; without it, the whole folder"},
            "depth": {
                "type": "integer", "minimum": 1, "maximum": LIST_DEPTH_MAX,
                "description": "How many folders to go down; 1 without it"
            }
        },
        "additionalProperties": false
    })
}

/// What stands in a folder.
pub fn list(reading: &Reading, arguments: &Map<String, Value>) -> Outcome {
    let path = reading.path_or_root(arguments)?;
    let depth = optional_number(arguments, "depth", 1..=LIST_DEPTH_MAX)?.unwrap_or(1);
    let (mut lines, mut listed) = (vec![], vec![]);
    let is_whole = walk(&reading.beneath, &path, depth, &mut |path, entry| {
        let kind = match entry.kind {
            EntryKind::Folder => "folder",
            EntryKind::File => "file",
            EntryKind::Other => "other",
        };
        lines.push(match entry.kind {
            EntryKind::Folder => format!("{path}/"),
            EntryKind::File => format!("{path} ({} bytes)", entry.bytes),
            EntryKind::Other => format!("{path} (a link or device, which is not opened)"),
        });
        listed.push(json!({"path": path.to_string(), "kind": kind, "bytes": entry.bytes}));
        lines.len() < LISTED_MAX
    })
    .map_err(refused)?;
    if lines.is_empty() {
        lines.push(format!("`{path}` is empty"));
    }
    if !is_whole {
        lines.push("[there is more: list a folder in it, or a smaller depth]".into());
    }
    let text = cut(lines.join("\n"), reading.result_bytes_max, "list a folder in it, or a smaller depth");
    let structured = json!({"entries": listed, "is_whole": is_whole});
    let fits = text.len() <= reading.result_bytes_max;
    Ok(ToolResult { structured: fits.then_some(structured), ..ToolResult::text(text) })
}

/// Visits what is below a folder, by name, folders before what they hold, until `visit` says no. Whether all was seen.
fn walk(
    beneath: &Beneath,
    path: &Below,
    depth: usize,
    visit: &mut dyn FnMut(&Below, &Entry) -> bool,
) -> Result<bool, String> {
    let (entries, more) = beneath.entries(path)?;
    let mut is_whole = !more;
    // The next one last. What is being removed meanwhile is passed over.
    let mut open: Vec<(Below, Entry, usize)> =
        entries.into_iter().rev().map(|entry| (path.join(&entry.name), entry, 1)).collect();
    while let Some((path, entry, level)) = open.pop() {
        if !visit(&path, &entry) {
            return Ok(false);
        }
        if entry.kind != EntryKind::Folder || level >= depth {
            continue;
        }
        let Ok((entries, more)) = beneath.entries(&path) else { continue };
        is_whole &= !more;
        open.extend(entries.into_iter().rev().map(|entry| (path.join(&entry.name), entry, level + 1)));
    }
    Ok(is_whole)
}

/// The arguments of [`read`].
pub fn read_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "The file, such as `src/main.rs`"},
            "from_line": {"type": "integer", "minimum": 1, "description": "The first line; 1 without it"},
            "lines": {"type": "integer", "minimum": 1, "description": "How many lines; all that fit without it"}
        },
        "required": ["path"],
        "additionalProperties": false
    })
}

/// Lines of a file, as they stand there; behind them what was left out.
pub fn read(reading: &Reading, arguments: &Map<String, Value>) -> Outcome {
    let path = reading.path(arguments)?;
    let from = optional_number(arguments, "from_line", 1..=LINES_MAX)?.unwrap_or(1);
    let wanted = optional_number(arguments, "lines", 1..=LINES_MAX)?.unwrap_or(LINES_MAX);
    let text = reading.text(&path)?;
    let all = text.split_inclusive('\n').count();
    if from > all.max(1) {
        return Err(refused(format!("`{path}` has {all} lines, so that there is no line {from}")));
    }
    let (mut shown, mut next) = (String::new(), from);
    for line in text.split_inclusive('\n').skip(from - 1).take(wanted) {
        if shown.len() + line.len() > reading.result_bytes_max {
            break;
        }
        shown += line;
        next += 1;
    }
    if next == from && all > 0 {
        // One line that is longer than a result.
        let line: String = text.split_inclusive('\n').nth(from - 1).unwrap_or_default().into();
        shown = cut(line, reading.result_bytes_max, "of this line; find what you need with a search");
        next += 1;
    }
    if next <= all {
        shown +=
            &format!("{}[lines {from} to {} of {all}; read on with `from_line` = {next}]", ended(&shown), next - 1);
    }
    Ok(ToolResult::text(shown))
}

fn ended(text: &str) -> &'static str {
    if text.is_empty() || text.ends_with('\n') { "" } else { "\n" }
}

/// The arguments of [`search`].
pub fn search_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "pattern": {
                "type": "string",
                "description": "A regular expression without look-around, matched in each line; `(?i)` in front ignores case"
            },
            "path": {"type": "string", "description": "A file, or the folder to search; without it, the whole folder"},
            "files": {"type": "string", "description": "Only files of such names, such as `*.rs` or `docs/**/*.md`"}
        },
        "required": ["pattern"],
        "additionalProperties": false
    })
}

/// Lines that match, as `path:line: text`.
pub fn search(reading: &Reading, arguments: &Map<String, Value>) -> Outcome {
    let path = reading.path_or_root(arguments)?;
    let pattern = compiled(string(arguments, "pattern")?)?;
    let wanted = optional_string(arguments, "files")?.map(glob).transpose()?;
    let mut found = Found { lines: vec![], files: 0, bytes: 0, skipped: 0 };
    let is_folder = reading.beneath.entries(&path).is_ok();
    let is_whole = if is_folder {
        walk(&reading.beneath, &path, super::beneath::DEPTH_MAX, &mut |path, entry| {
            let is_wanted = entry.kind == EntryKind::File && wanted.as_ref().is_none_or(|glob| holds(glob, path));
            !is_wanted || found.look(reading, path, &pattern)
        })
        .map_err(refused)?
    } else {
        found.look_into(&path, &reading.text(&path)?, &pattern)
    };
    Ok(ToolResult::text(found.told(is_whole, reading.result_bytes_max)))
}

struct Found {
    lines: Vec<String>,
    files: usize,
    bytes: u64,
    /// Files that are no text, or too large.
    skipped: usize,
}

impl Found {
    /// Looks into a file; whether the search may go on.
    fn look(&mut self, reading: &Reading, path: &Below, pattern: &Regex) -> bool {
        match reading.text(path) {
            Ok(text) => self.look_into(path, &text, pattern),
            Err(_) => {
                self.skipped += 1;
                true
            }
        }
    }

    fn look_into(&mut self, path: &Below, text: &str, pattern: &Regex) -> bool {
        (self.files, self.bytes) = (self.files + 1, self.bytes + text.len() as u64);
        for (number, line) in text.lines().enumerate().filter(|(_, line)| pattern.is_match(line)) {
            let shown = &line[..line.floor_char_boundary(LINE_BYTES_MAX)];
            let more = if shown.len() < line.len() { "…" } else { "" };
            self.lines.push(format!("{path}:{}: {shown}{more}", number + 1));
            if self.lines.len() >= MATCHES_MAX {
                return false;
            }
        }
        self.files < SEARCHED_FILES_MAX && self.bytes < SEARCHED_BYTES_MAX
    }

    fn told(mut self, is_whole: bool, bytes_max: usize) -> String {
        if self.lines.is_empty() {
            self.lines.push(format!("nothing found in {} files", self.files));
        }
        let mut text = cut(self.lines.join("\n"), bytes_max, "search a smaller folder, or for more");
        if !is_whole {
            text += "\n[not everything was searched: search a smaller folder, or for more]";
        }
        if self.skipped > 0 {
            text += &format!("\n[{} files are no text or too large]", self.skipped);
        }
        text
    }
}

fn compiled(pattern: &str) -> Result<Regex, ToolFailure> {
    if pattern.chars().count() > PATTERN_CHARS_MAX {
        return Err(refused(format!("`pattern` has more than {PATTERN_CHARS_MAX} characters")));
    }
    let built = RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
    built.map_err(|error| refused(format!("`pattern` is not a regular expression: {error}")))
}

fn glob(text: &str) -> Result<GlobMatcher, ToolFailure> {
    if text.chars().count() > PATTERN_CHARS_MAX {
        return Err(refused(format!("`files` has more than {PATTERN_CHARS_MAX} characters")));
    }
    let built = GlobBuilder::new(text).literal_separator(true).build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| refused(format!("`files` is not a pattern of names: {error}")))
}

/// Whether a pattern holds for the path, or for its last name.
fn holds(glob: &GlobMatcher, path: &Below) -> bool {
    glob.is_match(path.to_string()) || path.names().last().is_some_and(|name| glob.is_match(name))
}
