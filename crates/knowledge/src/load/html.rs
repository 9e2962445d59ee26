//! HTML: what a reader sees of it, block by block, with the line of the source that each stands in. The tokenizer
//! follows the HTML standard; of the tree no more is needed than which elements begin blocks and which are not shown.
//! Knows no CSS: what a style sheet hides is text here.

use crate::{
    document::{BlockForm, Document, Mark},
    limits::Budget,
    place::PlaceUnit,
};
use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use narthex_base::{Error, Result};

/// Tokens between two looks at the clock.
const TOKENS_PER_LOOK: usize = 4096;

/// Elements whose content is not shown, or is the same on all pages of a site.
const HIDDEN: [&str; 11] =
    ["script", "style", "template", "noscript", "svg", "math", "iframe", "object", "nav", "canvas", "select"];

/// Elements that begin and end a block.
const BLOCKS: [&str; 32] = [
    "address",
    "article",
    "aside",
    "blockquote",
    "body",
    "caption",
    "dd",
    "details",
    "div",
    "dl",
    "dt",
    "fieldset",
    "figcaption",
    "figure",
    "footer",
    "form",
    "header",
    "hr",
    "html",
    "li",
    "main",
    "ol",
    "p",
    "section",
    "summary",
    "table",
    "tbody",
    "tfoot",
    "thead",
    "title",
    "tr",
    "ul",
];

pub(crate) fn load(text: &str, budget: &mut Budget) -> Result<Document> {
    let mut page = Page::new(text);
    let mut emitter = DefaultEmitter::<usize>::new_with_span();
    // Scripts and the like are not HTML inside.
    emitter.naively_switch_states(true);
    for (count, token) in Tokenizer::new_with_emitter(text, emitter).enumerate() {
        if count % TOKENS_PER_LOOK == 0 {
            budget.time()?;
        }
        match token {
            Ok(Token::StartTag(tag)) => page.start(&tag, budget)?,
            Ok(Token::EndTag(tag)) => page.end(&name(&tag.name)),
            Ok(Token::String(string)) => page.text(&String::from_utf8_lossy(&string.value), string.span.start),
            Ok(_) => (),
            Err(error) => return Err(Error::input("cannot read the HTML").cause(error)),
        }
    }
    page.flush();
    Ok(page.document)
}

fn name(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

struct Page {
    document: Document,
    /// Where the lines of the source begin.
    lines: Vec<usize>,
    /// The elements that are not shown around here.
    hidden: Vec<String>,
    preformatted: usize,
    in_title: bool,
    form: BlockForm,
    block: String,
    marks: Vec<Mark>,
}

impl Page {
    fn new(source: &str) -> Self {
        let begins = source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self {
            document: Document::empty(PlaceUnit::Line),
            lines: std::iter::once(0).chain(begins).collect(),
            hidden: vec![],
            preformatted: 0,
            in_title: false,
            form: BlockForm::Prose,
            block: String::new(),
            marks: vec![],
        }
    }

    fn start(&mut self, tag: &StartTag<usize>, budget: &Budget) -> Result<()> {
        let name = name(&tag.name);
        if HIDDEN.contains(&name.as_str()) && !tag.self_closing {
            budget.depth(self.hidden.len() + 1)?;
            self.hidden.push(name);
            return Ok(());
        }
        if !self.hidden.is_empty() {
            return Ok(());
        }
        match name.as_str() {
            "br" => self.block.push('\n'),
            "td" | "th" if !self.block.trim().is_empty() => self.block.push_str(" | "),
            "img" => {
                let alt = tag.attributes.get(&b"alt"[..]).map(|alt| String::from_utf8_lossy(&alt.value).into_owned());
                self.text(&alt.unwrap_or_default(), tag.span.start);
            }
            "pre" | "textarea" => {
                self.flush();
                self.preformatted += 1;
                self.form = BlockForm::Lines;
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => {
                self.flush();
                self.form = BlockForm::Heading(name.as_bytes()[1] - b'0');
            }
            block if BLOCKS.contains(&block) => {
                self.flush();
                self.in_title = block == "title";
                if block == "li" {
                    self.text("- ", tag.span.start);
                }
            }
            _ => (),
        }
        Ok(())
    }

    fn end(&mut self, name: &str) {
        if let Some(at) = self.hidden.iter().rposition(|hidden| hidden == name) {
            self.hidden.truncate(at);
            return;
        }
        if !self.hidden.is_empty() {
            return;
        }
        match name {
            "pre" | "textarea" => {
                self.flush();
                self.preformatted = self.preformatted.saturating_sub(1);
            }
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.flush(),
            block if BLOCKS.contains(&block) => self.flush(),
            _ => (),
        }
    }

    /// Adds what is shown. White space is one space, but for preformatted text.
    fn text(&mut self, text: &str, source_offset: usize) {
        if !self.hidden.is_empty() {
            return;
        }
        // A line end stands in the text wherever it stands in the source: counted on from where the text begins.
        let mut number = self.lines.partition_point(|begin| *begin <= source_offset).max(1) as u32;
        for character in text.chars() {
            let space = character.is_whitespace() && character != '\u{a0}';
            if self.preformatted > 0 || !space {
                if !space && self.marks.last().is_none_or(|mark| mark.number < number) {
                    let offset = if self.marks.is_empty() { 0 } else { self.block.len() };
                    self.marks.push(Mark { offset, number });
                }
                self.block.push(character);
            } else if !self.block.is_empty() && !self.block.ends_with([' ', '\n']) {
                self.block.push(' ');
            }
            number += u32::from(character == '\n');
        }
    }

    /// Ends the block.
    fn flush(&mut self) {
        let block = std::mem::take(&mut self.block);
        let marks = std::mem::take(&mut self.marks);
        let form = if self.preformatted > 0 { BlockForm::Lines } else { self.form };
        if self.in_title {
            let said = block.split_whitespace().collect::<Vec<_>>().join(" ");
            self.document.title = self.document.title.take().or((!said.is_empty()).then_some(said));
        } else if block.trim() != "-" {
            self.document.push(&block, form, &marks);
        }
        self.in_title = false;
        self.form = BlockForm::Prose;
    }
}
