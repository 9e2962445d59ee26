//! A passage: what is found and cited. Knows no index.

use crate::place::Place;
use narthex_base::{Digest, License};
use serde::{Deserialize, Serialize};

/// A stretch of a file that is found and cited as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passage {
    /// Its number in the knowledge, from 0, in the order of files and places.
    pub id: u32,
    /// The file, as the source's folder was named, with `/`: `docs/guide/install.md`.
    pub file: String,
    /// BLAKE3 of the file.
    pub digest: Digest,
    /// Where in the file it stands.
    pub place: Place,
    /// The headings above it, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headings: Vec<String>,
    /// The licence of its source, if one is declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub license: Option<License>,
    /// The text.
    pub text: String,
}

impl Passage {
    /// What is indexed and embedded: the headings above the text, and the text. A passage deep in a manual often does
    /// not name what it is about; its headings do.
    pub fn indexed_text(&self) -> String {
        indexed_text(&self.headings, &self.text)
    }

    /// File and place: `docs/a.md:10-24`.
    pub fn citation(&self) -> String {
        self.place.in_file(&self.file)
    }
}

/// As [`Passage::indexed_text`], from its parts.
pub(crate) fn indexed_text(headings: &[String], text: &str) -> String {
    match headings.is_empty() {
        true => text.to_string(),
        false => format!("{}\n\n{text}", headings.join(" > ")),
    }
}
