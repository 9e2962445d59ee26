//! FineWeb's own rules (Penedo et al., 2024), in datatrove's reading.

use super::{Verdict, gopher_repetition::duplicates};
use crate::{
    document::Document,
    python::{length, strip},
    tokens::tables::{ENGLISH, TERMINAL},
};
use narthex_base::config::FinewebQuality;

/// `marks`: those of the settings, as characters; none are the 159 of all scripts.
pub(super) fn judge(document: &Document, bounds: &FinewebQuality, marks: &[char]) -> Verdict {
    let text = document.text;
    let lines: Vec<&str> = text.split('\n').filter(|line| !strip(line).is_empty()).collect();
    if lines.is_empty() {
        return Verdict::dropped("empty", 0.0);
    }
    let tables = &*ENGLISH;
    let ends_well = |line: &str| match bounds.terminal_marks.is_empty() {
        true => line.chars().next_back().is_some_and(|c| tables.is(c, TERMINAL)),
        false if marks.len() == bounds.terminal_marks.len() => line.ends_with(marks),
        false => bounds.terminal_marks.iter().any(|mark| line.ends_with(mark.as_str())),
    };
    let all = lines.len() as f64;
    let share = lines.iter().filter(|line| ends_well(line)).count() as f64 / all;
    if share < bounds.min_terminal_lines && !(share == 0.0 && bounds.allow_no_terminal_line) {
        return Verdict::dropped("line_punct_ratio", share);
    }
    let short = |line: &&&str| length(line) as u64 <= bounds.short_line_length;
    let share = lines.iter().filter(short).count() as f64 / all;
    if share > bounds.max_short_lines {
        return Verdict::dropped("short_line_ratio", share);
    }
    let ends = text.bytes().filter(|byte| *byte == b'\n').count();
    let (_, repeated) = duplicates(lines.into_iter());
    let share = repeated as f64 / (document.length() - ends) as f64;
    if share > bounds.max_duplicate_chars {
        return Verdict::dropped("char_dup_ratio", share);
    }
    let share = ends as f64 / document.words().len() as f64;
    if share > bounds.max_line_ends_per_word {
        return Verdict::dropped("list_ratio", share);
    }
    Verdict::Kept
}
