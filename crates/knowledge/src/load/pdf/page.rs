//! The text that a page's drawing commands show (PDF 32000-1, section 9.4). lopdf's own reader knows no spacing by
//! fractions, as Ghostscript writes it, and runs the words of such files together. Knows no fonts' widths: whether two
//! stretches of one line belong to one word is told by the commands between them.

use crate::limits::Budget;
use lopdf::{
    Document, Encoding, Object, ObjectId,
    content::{Content, Operation},
};
use narthex_base::{Error, Result};
use std::collections::BTreeMap;

/// Drawing commands between two looks at the clock.
const COMMANDS_PER_LOOK: usize = 4096;

/// Stands where the file moved along the line: whether that is a space is told when the page is read.
const GAP: char = '\u{1}';

/// Thousandths of the font's size: a gap wider than this is a space. Words stand some 250 to 350 apart, letters that
/// are moved towards or from each other less than 100.
const SPACE_MIN: f32 = 170.0;

/// The text of a page. Fonts and drawing commands count for what comes out of them.
pub(crate) fn text(file: &Document, page: ObjectId, budget: &mut Budget) -> Result<String> {
    let wrong = |error: lopdf::Error| Error::input("the page is broken").cause(error);
    let bytes_max = |budget: &Budget| usize::try_from(budget.expanded_bytes()).unwrap_or(usize::MAX);
    let mut encodings = BTreeMap::new();
    for (name, font) in file.get_page_fonts(page).map_err(wrong)? {
        // What is written in a font that cannot be read is left out.
        if let Ok(encoding) = font.get_font_encoding_with_limit(file, bytes_max(budget)) {
            encodings.insert(name, encoding);
        }
    }
    let content = file.get_page_content_with_limit(page, bytes_max(budget)).map_err(wrong)?;
    budget.expand(content.len())?;
    let mut text = Text { encodings, font: None, shown: String::new(), line: 0.0 };
    for (count, operation) in Content::decode_iter(&content).enumerate() {
        if count % COMMANDS_PER_LOOK == 0 {
            budget.time()?;
            if text.shown.len() > bytes_max(budget) {
                return Err(budget.too_large());
            }
        }
        // What is broken ends a page's commands: what came before it counts.
        let Ok(operation) = operation else { break };
        text.take(&operation);
    }
    budget.expand(text.shown.len())?;
    Ok(unhyphenated(&settled(&text.shown)))
}

/// Gaps become spaces, unless nearly all of them stand behind a single letter: such a page is drawn letter by letter,
/// as browsers do, and has letters for its spaces. A page of formulas has many single letters too, but words between
/// them.
fn settled(text: &str) -> String {
    let behind: Vec<&str> = text.split(GAP).collect();
    let stretches = &behind[..behind.len() - 1];
    // A space that was drawn, or the end of a line, may come before the letter.
    let single = stretches.iter().filter(|stretch| stretch.trim().chars().take(2).count() <= 1 || ends_alone(stretch));
    let letters = single.count() * 10 > stretches.len() * 9;
    text.replace(GAP, if letters { "" } else { " " })
}

/// Whether a stretch is the end of a word or line, a space, and one letter: `g\nX`, `. X`.
fn ends_alone(stretch: &str) -> bool {
    let last = stretch.rsplit(char::is_whitespace).next().unwrap_or_default();
    stretch.chars().take(5).count() < 5 && last.chars().nth(1).is_none()
}

/// Words that were cut at the ends of lines, in one piece. A few that have a hyphen of their own lose it; of those
/// that were cut there are far more, and nobody finds them by their halves.
fn unhyphenated(text: &str) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['-', '\u{ad}', '\u{2010}']) {
        let hyphen = rest[at..].chars().next().map_or(1, char::len_utf8);
        let (before, behind) = (&rest[..at], &rest[at + hyphen..]);
        let next = behind.strip_prefix('\n').filter(|next| next.starts_with(char::is_lowercase));
        match next {
            Some(next) if before.ends_with(char::is_lowercase) => {
                whole.push_str(before);
                rest = next;
            }
            _ => {
                whole.push_str(&rest[..at + hyphen]);
                rest = behind;
            }
        }
    }
    whole + rest
}

struct Text<'a> {
    encodings: BTreeMap<Vec<u8>, Encoding<'a>>,
    font: Option<Vec<u8>>,
    shown: String,
    /// The height of the line that is written, where the file has said it outright.
    line: f32,
}

impl Text<'_> {
    fn take(&mut self, operation: &Operation) {
        let operands = &operation.operands;
        let number = |index: usize| operands.get(index).and_then(|operand| operand.as_float().ok()).unwrap_or(0.0);
        match operation.operator.as_str() {
            "Tf" => self.font = operands.first().and_then(|name| name.as_name().ok()).map(<[u8]>::to_vec),
            "Tj" => self.show(operands),
            "'" => {
                self.end_line();
                self.show(operands);
            }
            "\"" => {
                self.end_line();
                self.show(operands.get(2..).unwrap_or_default());
            }
            "TJ" => {
                if let Some(Object::Array(pieces)) = operands.first() {
                    self.show(pieces);
                }
            }
            "T*" | "ET" => self.end_line(),
            "Td" | "TD" if number(1) != 0.0 => self.end_line(),
            // Along the line, by whatever: the next word, or the next column.
            "Td" | "TD" if number(0) > 0.0 => self.gap(),
            "Tm" if number(5) == self.line => self.gap(),
            "Tm" => {
                self.line = number(5);
                self.end_line();
            }
            _ => (),
        }
    }

    fn show(&mut self, pieces: &[Object]) {
        let Some(encoding) = self.font.as_ref().and_then(|font| self.encodings.get(font)) else { return };
        for piece in pieces {
            match piece {
                Object::String(bytes, _) => {
                    let piece = Document::decode_text(encoding, bytes).unwrap_or_default();
                    self.shown.extend(piece.chars().filter(|character| !matches!(*character, '\0' | GAP)));
                }
                // Numbers move what follows: negative ones away.
                _ => {
                    let gap = -piece.as_float().unwrap_or(0.0);
                    if gap > SPACE_MIN && !self.shown.ends_with(char::is_whitespace) {
                        self.shown.push(' ');
                    }
                }
            }
        }
    }

    fn gap(&mut self) {
        if !self.shown.is_empty() && !self.shown.ends_with(|last: char| last.is_whitespace() || last == GAP) {
            self.shown.push(GAP);
        }
    }

    fn end_line(&mut self) {
        let written = self.shown.trim_end_matches([' ', '\n', GAP]).len();
        self.shown.truncate(written);
        if !self.shown.is_empty() {
            self.shown.push('\n');
        }
    }
}
