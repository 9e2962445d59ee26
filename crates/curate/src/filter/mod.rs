//! The rules of `filters`, a file each: a text stays, stays with another text, or goes for a named reason. This is the
//! one list that a new rule is added to. A rule sees one document and nothing else.

mod c4;
mod c4_paragraphs;
mod fineweb_quality;
mod gopher_quality;
mod gopher_repetition;
mod pii;
mod symbol_lines;
pub mod url;

use crate::{document::Document, tokens::MAX_TEXT_BYTES};
use narthex_base::config::{FilterName, FilterSettings};

/// What a rule says of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It stays as it is.
    Kept,
    /// It stays, and says this now.
    Changed(String),
    /// It goes.
    Dropped(Reason),
}

/// Why a document goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reason {
    /// What it failed; the field's own names where it has them.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
}

impl Verdict {
    fn dropped(name: &'static str, value: f64) -> Self {
        Verdict::Dropped(Reason { name, value })
    }
}

/// The reason of what no rule can be asked about.
const TOO_LONG: &str = "too_long";

/// Rules in the order in which they are asked.
#[derive(Clone, Debug)]
pub struct Filters {
    rules: Vec<FilterName>,
    settings: FilterSettings,
    marks: Vec<char>,
}

impl Filters {
    /// Makes ready to judge.
    pub fn new(rules: Vec<FilterName>, settings: FilterSettings) -> Self {
        let marks = settings.fineweb_quality.terminal_marks.iter().flat_map(|mark| mark.chars()).collect();
        Self { rules, settings, marks }
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Asks one rule.
    pub fn ask(&self, rule: FilterName, document: &Document) -> Verdict {
        let settings = &self.settings;
        if document.text.len() > MAX_TEXT_BYTES {
            return Verdict::dropped(TOO_LONG, document.text.len() as f64);
        }
        match rule {
            FilterName::GopherRepetition => gopher_repetition::judge(document, &settings.gopher_repetition),
            FilterName::GopherQuality => gopher_quality::judge(document, &settings.gopher_quality),
            FilterName::C4 => c4::judge(document, &settings.c4),
            FilterName::C4Paragraphs => c4_paragraphs::judge(document, &settings.c4_paragraphs),
            FilterName::FinewebQuality => fineweb_quality::judge(document, &settings.fineweb_quality, &self.marks),
            FilterName::SymbolLines => symbol_lines::judge(document, &settings.symbol_lines),
            FilterName::Pii => pii::judge(document, &settings.pii),
        }
    }

    /// Asks all rules in turn: the text that is left, or the rule that dropped it and why.
    ///
    /// # Errors
    /// The first rule that drops it.
    pub fn judge(&self, text: String) -> Result<String, (FilterName, Reason, String)> {
        let mut text = text;
        let mut next = 0;
        while next < self.rules.len() {
            let document = Document::new(&text);
            let mut changed = None;
            while let Some(rule) = self.rules.get(next) {
                next += 1;
                match self.ask(*rule, &document) {
                    Verdict::Kept => {}
                    Verdict::Dropped(reason) => return Err((*rule, reason, text)),
                    Verdict::Changed(other) => {
                        changed = Some(other);
                        break;
                    }
                }
            }
            if let Some(changed) = changed {
                text = changed;
            }
        }
        Ok(text)
    }
}
