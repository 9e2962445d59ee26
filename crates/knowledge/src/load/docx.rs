//! DOCX (ECMA-376, part 1): the paragraphs of the body, with those in tables and text boxes; what was deleted under
//! review is left out. Knows no headers, footers, notes and comments.

use crate::{
    document::{BlockForm, Document, HEADING_LEVEL_MAX, Mark},
    encoding::decode,
    limits::Budget,
    place::PlaceUnit,
};
use narthex_base::{Error, Result};
use quick_xml::{
    Reader, XmlVersion,
    escape::resolve_predefined_entity,
    events::{BytesStart, Event},
};
use std::{
    collections::BTreeMap,
    io::{Cursor, Read},
};
use zip::{ZipArchive, result::ZipError};

/// Events between two looks at the clock.
const EVENTS_PER_LOOK: usize = 4096;

/// Names of styles that are kept.
const STYLES_MAX: usize = 10_000;

pub(crate) fn load(bytes: &[u8], budget: &mut Budget) -> Result<Document> {
    let mut archive = ZipArchive::new(Cursor::new(bytes))
        .map_err(|error| Error::input("the file is not a DOCX: no ZIP archive").cause(error))?;
    let styles = match part(&mut archive, "word/styles.xml", budget)? {
        Some(styles) => heading_styles(&styles, budget)?,
        None => BTreeMap::new(),
    };
    let body = part(&mut archive, "word/document.xml", budget)?.ok_or_else(|| {
        Error::input("the file is not a DOCX: it holds no word/document.xml").help("save it as .docx once more")
    })?;
    let mut paragraphs = Paragraphs { styles, ..Paragraphs::default() };
    read(&body, "word/document.xml", budget, |event, depth| paragraphs.take(event, depth))?;
    Ok(paragraphs.document())
}

/// A part of the archive as text.
fn part(archive: &mut ZipArchive<Cursor<&[u8]>>, name: &str, budget: &mut Budget) -> Result<Option<String>> {
    let wrong = |error: &dyn std::fmt::Display| Error::input(format!("cannot read {name} in the DOCX")).cause(error);
    let file = match archive.by_name(name) {
        Ok(file) => file,
        Err(ZipError::FileNotFound) => return Ok(None),
        Err(error) => return Err(wrong(&error)),
    };
    // What the archive says of its sizes can be a lie: what comes out is counted.
    let mut bytes = Vec::new();
    file.take(budget.expanded_bytes() + 1).read_to_end(&mut bytes).map_err(|error| wrong(&error))?;
    budget.expand(bytes.len())?;
    decode(&bytes).map(Some).map_err(|error| error.context(format!("cannot read {name}")))
}

/// Reads a part event by event; the depth is that of the element itself.
fn read(xml: &str, name: &str, budget: &Budget, mut take: impl FnMut(Event, usize) -> Result<()>) -> Result<()> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().expand_empty_elements = true;
    let mut depth = 0;
    for count in 0_usize.. {
        if count % EVENTS_PER_LOOK == 0 {
            budget.time()?;
        }
        let event = reader.read_event().map_err(|error| {
            let at = usize::try_from(reader.error_position()).unwrap_or(usize::MAX).min(xml.len());
            let line = 1 + xml.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count();
            Error::input(format!("line {line} of {name} in the DOCX is no XML")).cause(error)
        })?;
        match event {
            Event::Eof => break,
            Event::Start(_) => {
                depth += 1;
                budget.depth(depth)?;
                take(event, depth)?;
            }
            Event::End(_) => {
                take(event, depth)?;
                depth = depth.saturating_sub(1);
            }
            event => take(event, depth)?,
        }
    }
    Ok(())
}

/// The styles that are headings, by identifier. Their names are the same in all languages of Word, identifiers are not.
fn heading_styles(xml: &str, budget: &Budget) -> Result<BTreeMap<String, u8>> {
    let mut styles = BTreeMap::new();
    let mut style = String::new();
    read(xml, "word/styles.xml", budget, |event, _| {
        if let Event::Start(start) = &event {
            match start.local_name().as_ref() {
                "style" => style = attribute(start, "styleId").unwrap_or_default(),
                "name" => {
                    let name = attribute(start, "val").unwrap_or_default().to_ascii_lowercase();
                    let level = match name.strip_prefix("heading ") {
                        Some(level) => level.parse().ok(),
                        None => (name == "title").then_some(1),
                    };
                    let level = level.filter(|level| (1..=HEADING_LEVEL_MAX).contains(level));
                    if let (Some(level), true) = (level, styles.len() < STYLES_MAX) {
                        styles.insert(style.clone(), level);
                    }
                }
                _ => (),
            }
        }
        Ok(())
    })?;
    Ok(styles)
}

/// The attribute of this name, whatever its prefix.
fn attribute(start: &BytesStart, name: &str) -> Option<String> {
    let found = start.attributes().with_checks(false).flatten().find(|a| a.key.local_name().as_ref() == name)?;
    Some(found.normalized_value(XmlVersion::Implicit1_0).ok()?.into_owned())
}

/// A paragraph that is being read.
#[derive(Default)]
struct Paragraph {
    number: u32,
    text: String,
    level: Option<u8>,
}

#[derive(Default)]
struct Paragraphs {
    styles: BTreeMap<String, u8>,
    done: Vec<Paragraph>,
    /// The open paragraphs: a text box stands inside of another one.
    open: Vec<Paragraph>,
    count: u32,
    /// Inside of a run: tab stops of a paragraph's style have the name of tabs.
    in_run: bool,
    in_text: bool,
    /// The depth of the element around here that repeats what was said for older readers.
    fallback: Option<usize>,
}

impl Paragraphs {
    fn take(&mut self, event: Event, depth: usize) -> Result<()> {
        match &event {
            Event::End(_) if self.fallback == Some(depth) => self.fallback = None,
            _ if self.fallback.is_some() => (),
            Event::Start(start) => match start.local_name().as_ref() {
                "Fallback" => self.fallback = Some(depth),
                "p" => {
                    self.count += 1;
                    self.open.push(Paragraph { number: self.count, ..Paragraph::default() });
                }
                "t" => self.in_text = true,
                "r" => self.in_run = true,
                "tab" if self.in_run => self.push("\t"),
                "br" | "cr" if self.in_run => self.push("\n"),
                "noBreakHyphen" => self.push("-"),
                "pStyle" => {
                    let level = attribute(start, "val").and_then(|style| self.styles.get(&style).copied());
                    if let (Some(level), Some(paragraph)) = (level, self.open.last_mut()) {
                        paragraph.level = Some(level);
                    }
                }
                _ => (),
            },
            Event::End(end) => match end.local_name().as_ref() {
                "t" => self.in_text = false,
                "r" => self.in_run = false,
                "p" => self.done.extend(self.open.pop()),
                _ => (),
            },
            Event::Text(text) if self.in_text => self.push(&text.xml10_content()),
            Event::CData(text) if self.in_text => self.push(&text.xml10_content()),
            Event::GeneralRef(reference) if self.in_text => {
                let character = reference.resolve_char_ref().ok().flatten();
                match (character, resolve_predefined_entity(reference)) {
                    (Some(character), _) => self.push(character.encode_utf8(&mut [0; 4])),
                    (None, Some(text)) => self.push(text),
                    // An entity of the file's own: they are how small files become large ones.
                    (None, None) => return Err(Error::input("the DOCX defines entities of its own")),
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        if let Some(paragraph) = self.open.last_mut() {
            paragraph.text.push_str(text);
        }
    }

    /// What was read, in the order in which paragraphs begin: one in a text box ends before the one around it.
    fn document(mut self) -> Document {
        self.done.sort_by_key(|paragraph| paragraph.number);
        let mut document = Document::empty(PlaceUnit::Paragraph);
        for Paragraph { number, text, level } in self.done {
            let form = level.map_or(BlockForm::Prose, BlockForm::Heading);
            document.push(text.trim_start(), form, &[Mark { offset: 0, number }]);
        }
        document
    }
}
