//! A file as text: its blocks, and where in the file each stretch of the text stands. Knows no formats and no files.
//! It is plain data, so that the process that read a hostile file can hand it over as JSON; [`Document::check`] holds
//! it to its word then.

use crate::place::{Place, PlaceUnit};
use narthex_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// The deepest heading that is kept.
pub const HEADING_LEVEL_MAX: u8 = 9;

/// What a block of text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlockForm {
    /// A heading of this level, from 1.
    Heading(u8),
    /// Sentences; a line end in it is a space.
    Prose,
    /// Lines that each stand for themselves: code, tables.
    Lines,
}

/// A stretch of a document's text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    /// Bytes of the document's text.
    pub range: Range<usize>,
    /// What it is.
    pub form: BlockForm,
    /// What a heading says, without markup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heading: Option<String>,
}

impl Block {
    /// A block that is no heading.
    pub fn of(range: Range<usize>, form: BlockForm) -> Self {
        Self { range, form, heading: None }
    }
}

/// From this byte of the text on, the place has this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mark {
    /// A byte of the document's text.
    pub offset: usize,
    /// A line, page or paragraph, from 1.
    pub number: u32,
}

/// A file as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// All of it.
    pub text: String,
    /// Its blocks in order, none of them empty; what lies between two is separators or markup alone.
    pub blocks: Vec<Block>,
    /// What the marks count.
    pub unit: PlaceUnit,
    /// Where places begin, in order.
    pub marks: Vec<Mark>,
    /// What the file says that it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
}

impl Document {
    /// A text that stands in the file as it does here: a mark for each line.
    pub fn of_lines(text: String) -> Self {
        let begins =
            std::iter::once(0).chain(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(i, _)| i + 1));
        let marks = begins.zip(1..).map(|(offset, number)| Mark { offset, number }).collect();
        Self { text, blocks: vec![], unit: PlaceUnit::Line, marks, title: None }
    }

    /// A document to which blocks are pushed.
    pub fn empty(unit: PlaceUnit) -> Self {
        Self { text: String::new(), blocks: vec![], unit, marks: vec![], title: None }
    }

    /// Adds a block behind a blank line. `marks` hold offsets inside of `text`, the first of them 0.
    pub(crate) fn push(&mut self, text: &str, form: BlockForm, marks: &[Mark]) {
        let trimmed = text.trim_end();
        if trimmed.trim_start().is_empty() {
            return;
        }
        if !self.text.is_empty() {
            self.text.push_str("\n\n");
        }
        let start = self.text.len();
        self.text.push_str(trimmed);
        for mark in marks.iter().filter(|mark| mark.offset < trimmed.len()) {
            let known = self.marks.last().is_some_and(|last| last.number == mark.number);
            if !known {
                self.marks.push(Mark { offset: start + mark.offset, number: mark.number });
            }
        }
        let heading =
            matches!(form, BlockForm::Heading(_)).then(|| trimmed.split_whitespace().collect::<Vec<_>>().join(" "));
        self.blocks.push(Block { range: start..self.text.len(), form, heading });
    }

    /// The place of a stretch of the text, white space at its ends left out.
    pub fn place(&self, range: Range<usize>) -> Place {
        let text = &self.text[range.clone()];
        let from = range.start + (text.len() - text.trim_start().len());
        let last = (range.start + text.trim_end().len()).saturating_sub(1).max(from);
        Place { unit: self.unit, from: self.number_at(from), to: self.number_at(last) }
    }

    fn number_at(&self, offset: usize) -> u32 {
        let behind = self.marks.partition_point(|mark| mark.offset <= offset);
        behind.checked_sub(1).map_or(1, |index| self.marks[index].number)
    }

    /// Holds a document that came from elsewhere to what the fields promise.
    ///
    /// # Errors
    /// If blocks or marks are not in order, not inside of the text, or not between characters.
    pub fn check(&self) -> Result<()> {
        let mut at = 0;
        for Block { range, form, .. } in &self.blocks {
            let inside = range.start >= at && range.start < range.end && range.end <= self.text.len();
            let whole = inside && self.text.is_char_boundary(range.start) && self.text.is_char_boundary(range.end);
            let level = !matches!(form, BlockForm::Heading(level) if !(1..=HEADING_LEVEL_MAX).contains(level));
            if !whole || !level {
                return Err(Error::input(format!("block {range:?} is not one of the text")));
            }
            at = range.end;
        }
        let ordered = self
            .marks
            .windows(2)
            .all(|pair| pair[0].offset < pair[1].offset && pair[0].number <= pair[1].number && pair[0].number > 0);
        if !ordered || self.marks.last().is_some_and(|mark| mark.offset > self.text.len()) {
            return Err(Error::input("the marks of the text are not in order"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_those_of_the_words() {
        let document = Document::of_lines("one\n\n two\nthree\n".into());
        for (range, expected) in
            [(0..3, (1, 1)), (0..8, (1, 3)), (3..9, (3, 3)), (5..15, (3, 4)), (0..16, (1, 4)), (3..5, (3, 3))]
        {
            let place = document.place(range.clone());
            assert_eq!((place.from, place.to), expected, "{range:?}");
        }
    }

    #[test]
    fn pushed_blocks_keep_their_marks() {
        let mut document = Document::empty(PlaceUnit::Page);
        document.push("a b\nc", BlockForm::Prose, &[Mark { offset: 0, number: 2 }, Mark { offset: 4, number: 3 }]);
        document.push("  ", BlockForm::Prose, &[Mark { offset: 0, number: 9 }]);
        document.push("d", BlockForm::Lines, &[Mark { offset: 0, number: 3 }]);
        assert_eq!(document.text, "a b\nc\n\nd");
        assert_eq!(document.place(0..5), Place { unit: PlaceUnit::Page, from: 2, to: 3 });
        assert_eq!(document.place(7..8), Place { unit: PlaceUnit::Page, from: 3, to: 3 });
        document.check().unwrap();
    }

    #[test]
    fn lies_are_found() {
        let sound = || {
            let mut document = Document::of_lines("é x".into());
            document.blocks = vec![Block::of(0..2, BlockForm::Prose)];
            document
        };
        sound().check().unwrap();
        let lies: [fn(&mut Document); 7] = [
            |d| d.blocks[0].range = 1..2,
            |d| d.blocks[0].range = 0..9,
            |d| d.blocks[0].range = 2..2,
            |d| d.blocks.push(Block::of(0..2, BlockForm::Prose)),
            |d| d.blocks[0].form = BlockForm::Heading(0),
            |d| d.marks = vec![Mark { offset: 99, number: 1 }],
            |d| d.marks = vec![Mark { offset: 2, number: 2 }, Mark { offset: 1, number: 3 }],
        ];
        for (number, lie) in lies.iter().enumerate() {
            let mut document = sound();
            lie(&mut document);
            assert!(document.check().is_err(), "lie {number}");
        }
    }
}
