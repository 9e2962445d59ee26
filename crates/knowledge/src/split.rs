//! A document to pieces that fit: along its headings, then its blocks, then sentences, words and characters. The same
//! document gives the same pieces. Knows neither files nor tokenizers: whoever asks says how long a text is.

use crate::{
    document::{Block, BlockForm, Document},
    place::Place,
};
use narthex_base::{Result, config::SplitSettings};
use std::ops::Range;
use unicode_segmentation::UnicodeSegmentation;

/// Rises when the same document becomes other pieces.
pub const SPLIT_VERSION: u32 = 1;

/// Bytes of one heading in a path: longer ones are cut.
const HEADING_BYTES_MAX: usize = 300;

/// How long a text is, in tokens of the encoder or in what else passages are measured in.
pub trait Measure {
    /// What this measures with; another identity means that passages are cut anew.
    fn identity(&self) -> String;

    /// The length of a text.
    ///
    /// # Errors
    /// If the text cannot be measured.
    fn measure(&self, text: &str) -> Result<usize>;
}

/// Measures in characters (Unicode scalar values).
#[derive(Clone, Copy, Debug, Default)]
pub struct Characters;

impl Measure for Characters {
    fn identity(&self) -> String {
        "characters".into()
    }

    fn measure(&self, text: &str) -> Result<usize> {
        Ok(text.chars().count())
    }
}

/// Measures in quarters of characters, rounded up: about what the tokenizers of Latin scripts make of a text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Estimated;

impl Measure for Estimated {
    fn identity(&self) -> String {
        "characters / 4".into()
    }

    fn measure(&self, text: &str) -> Result<usize> {
        Ok(text.chars().count().div_ceil(4))
    }
}

/// A stretch of a document that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The text, without white space at its ends.
    pub text: String,
    /// Where it stands.
    pub place: Place,
    /// The headings above it, the outermost first.
    pub headings: Vec<String>,
}

/// Cuts a document. No piece is longer than `size`, unless one character is.
///
/// # Errors
/// If a text cannot be measured.
pub fn split(document: &Document, settings: &SplitSettings, measure: &dyn Measure) -> Result<Vec<Piece>> {
    let splitter = Splitter { document, size: settings.size as usize, overlap: settings.overlap as usize, measure };
    let mut pieces = Vec::new();
    let mut path = Path { title: document.title.as_deref(), headings: vec![] };
    let mut section: Vec<&Block> = Vec::new();
    // The heading that nothing has followed yet.
    let mut bare: Option<(&Block, u8)> = None;
    for block in &document.blocks {
        let BlockForm::Heading(level) = block.form else {
            section.push(block);
            bare = None;
            continue;
        };
        splitter.section(&section, &path, &mut pieces)?;
        section.clear();
        // One with others below it is in their paths; one with nothing below it must not be lost.
        if let Some((heading, _)) = bare.filter(|(_, above)| level <= *above) {
            path.leave();
            splitter.section(&[heading], &path, &mut pieces)?;
        }
        path.enter(level, block.heading.as_deref().unwrap_or(&document.text[block.range.clone()]));
        bare = Some((block, level));
    }
    splitter.section(&section, &path, &mut pieces)?;
    if let Some((heading, _)) = bare {
        path.leave();
        splitter.section(&[heading], &path, &mut pieces)?;
    }
    Ok(pieces)
}

/// The headings above a place.
struct Path<'a> {
    title: Option<&'a str>,
    headings: Vec<(u8, String)>,
}

impl Path<'_> {
    fn enter(&mut self, level: u8, said: &str) {
        self.headings.retain(|(above, _)| *above < level);
        self.headings.push((level, cut(said).to_string()));
    }

    fn leave(&mut self) {
        self.headings.pop();
    }

    /// A title that no heading repeats stands above all.
    fn names(&self) -> Vec<String> {
        let title = self.title.map(cut).filter(|title| self.headings.first().is_none_or(|(_, first)| first != title));
        let names = title.into_iter().chain(self.headings.iter().map(|(_, name)| name.as_str()));
        names.filter(|name| !name.is_empty()).map(str::to_string).collect()
    }
}

/// Each passage below a heading repeats it.
fn cut(heading: &str) -> &str {
    &heading[..heading.floor_char_boundary(HEADING_BYTES_MAX)]
}

/// The least that is moved as a whole.
struct Atom {
    range: Range<usize>,
    size: usize,
    ends_block: bool,
}

struct Splitter<'a> {
    document: &'a Document,
    size: usize,
    overlap: usize,
    measure: &'a dyn Measure,
}

impl Splitter<'_> {
    fn measure(&self, range: &Range<usize>) -> Result<usize> {
        self.measure.measure(&self.document.text[range.clone()])
    }

    /// Cuts what stands under one heading.
    fn section(&self, blocks: &[&Block], path: &Path, pieces: &mut Vec<Piece>) -> Result<()> {
        let mut atoms = Vec::new();
        for block in blocks {
            self.atoms(block, &mut atoms)?;
        }
        let headings = path.names();
        let mut begin = 0;
        // The first that is in no piece yet.
        let mut fresh = 0;
        while fresh < atoms.len() {
            let (first, end) = self.fill(&atoms, begin, fresh)?;
            let range = atoms[first].range.start..atoms[end - 1].range.end;
            let text = self.document.text[range.clone()].trim().to_string();
            if !text.is_empty() {
                pieces.push(Piece { text, place: self.document.place(range), headings: headings.clone() });
            }
            (begin, fresh) = (self.overlap_from(&atoms, first, end), end);
        }
        Ok(())
    }

    /// The atoms of the next piece: as many as fit, to the end of a block where that is not much less.
    fn fill(&self, atoms: &[Atom], mut begin: usize, fresh: usize) -> Result<(usize, usize)> {
        let mut end = begin;
        let mut total = 0;
        while end < atoms.len() && (end <= fresh || total + atoms[end].size <= self.size) {
            total += atoms[end].size;
            end += 1;
        }
        // Together they can be longer than one by one: what lies between them counts.
        while self.measure(&(atoms[begin].range.start..atoms[end - 1].range.end))? > self.size {
            if end > fresh + 1 {
                end -= 1;
            } else if begin < fresh {
                begin += 1;
            } else {
                break;
            }
        }
        if end < atoms.len() {
            let mut before = atoms[begin..end].iter().map(|atom| atom.size).sum::<usize>();
            for index in (fresh..end).rev() {
                if before * 2 < self.size {
                    break;
                }
                if atoms[index].ends_block {
                    return Ok((begin, index + 1));
                }
                before -= atoms[index].size;
            }
        }
        Ok((begin, end))
    }

    /// Where the piece behind `begin..end` begins, so that it repeats no more than it may and has room for what is new.
    fn overlap_from(&self, atoms: &[Atom], begin: usize, end: usize) -> usize {
        let Some(next) = atoms.get(end) else { return end };
        let room = self.overlap.min(self.size.saturating_sub(next.size));
        let mut from = end;
        let mut kept = 0;
        while from > begin + 1 && kept + atoms[from - 1].size <= room {
            from -= 1;
            kept += atoms[from].size;
        }
        from
    }

    /// The sentences or lines of a block; those that do not fit are cut into words.
    fn atoms(&self, block: &Block, atoms: &mut Vec<Atom>) -> Result<()> {
        let text = &self.document.text[block.range.clone()];
        let known = atoms.len();
        let mut add = |range: Range<usize>| -> Result<()> {
            let range = block.range.start + range.start..block.range.start + range.end;
            let range = range.start..range.start + self.document.text[range].trim_end().len();
            if range.is_empty() {
                return Ok(());
            }
            match self.measure(&range)? {
                size if size <= self.size => atoms.push(Atom { range, size, ends_block: false }),
                _ => self.words(range, atoms)?,
            }
            Ok(())
        };
        let mut at = 0;
        if block.form == BlockForm::Lines {
            for line in text.split_inclusive('\n') {
                add(at..at + line.len())?;
                at += line.len();
            }
        } else {
            // The end of a line is no end of a sentence. One byte takes the place of one.
            let flowing = text.replace(['\n', '\r'], " ");
            for sentence in flowing.split_sentence_bounds() {
                add(at..at + sentence.len())?;
                at += sentence.len();
            }
        }
        if let Some(last) = atoms[known..].last_mut() {
            last.ends_block = true;
        }
        Ok(())
    }

    /// Cuts what is too long between words.
    fn words(&self, range: Range<usize>, atoms: &mut Vec<Atom>) -> Result<()> {
        let mut open: Option<Atom> = None;
        let mut at = range.start;
        for word in self.document.text[range].split_word_bounds() {
            let word = at..at + word.len();
            at = word.end;
            let size = self.measure(&word)?;
            if open.is_none() && self.document.text[word.clone()].trim().is_empty() {
                continue;
            }
            if let Some(atom) = &mut open
                && atom.size + size <= self.size
            {
                (atom.range.end, atom.size) = (word.end, atom.size + size);
                continue;
            }
            atoms.extend(open.take());
            if self.document.text[word.clone()].trim().is_empty() {
                continue;
            }
            match size <= self.size {
                true => open = Some(Atom { range: word, size, ends_block: false }),
                false => self.characters(word, atoms)?,
            }
        }
        atoms.extend(open);
        Ok(())
    }

    /// Cuts a word that does not fit: into halves of halves, so that few long texts are measured.
    fn characters(&self, range: Range<usize>, atoms: &mut Vec<Atom>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let rest = &self.document.text[at..range.end];
            let mut length = rest.floor_char_boundary(self.size.saturating_mul(4));
            let mut size = self.measure(&(at..at + length))?;
            while size > self.size && rest[..length].chars().nth(1).is_some() {
                length = rest.floor_char_boundary(length / 2).max(rest.chars().next().map_or(1, char::len_utf8));
                size = self.measure(&(at..at + length))?;
            }
            atoms.push(Atom { range: at..at + length, size, ends_block: false });
            at += length;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
