//! Where in a file a text stands: lines, pages or paragraphs, counted from 1. Knows no formats and no files.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What places of a file are counted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PlaceUnit {
    /// Lines of the source: text, Markdown, HTML.
    Line,
    /// Pages: PDF.
    Page,
    /// Paragraphs of the body, empty ones and those in tables included: DOCX.
    Paragraph,
}

/// A stretch of a file, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// What is counted.
    pub unit: PlaceUnit,
    /// The first, counted from 1.
    pub from: u32,
    /// The last.
    pub to: u32,
}

impl Place {
    /// The file with the place behind it, as people and editors write it: `docs/a.md:10-24`,
    /// `report.pdf, pages 3-4`, `letter.docx, paragraph 7`.
    pub fn in_file(&self, file: &str) -> String {
        let numbers = if self.from == self.to { self.from.to_string() } else { format!("{}-{}", self.from, self.to) };
        let plural = if self.from == self.to { "" } else { "s" };
        match self.unit {
            PlaceUnit::Line => format!("{file}:{numbers}"),
            PlaceUnit::Page => format!("{file}, page{plural} {numbers}"),
            PlaceUnit::Paragraph => format!("{file}, paragraph{plural} {numbers}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_as_people_cite() {
        for (unit, from, to, expected) in [
            (PlaceUnit::Line, 10, 24, "docs/a.md:10-24"),
            (PlaceUnit::Line, 3, 3, "docs/a.md:3"),
            (PlaceUnit::Page, 3, 4, "docs/a.md, pages 3-4"),
            (PlaceUnit::Page, 1, 1, "docs/a.md, page 1"),
            (PlaceUnit::Paragraph, 7, 7, "docs/a.md, paragraph 7"),
            (PlaceUnit::Paragraph, 7, 9, "docs/a.md, paragraphs 7-9"),
        ] {
            assert_eq!(Place { unit, from, to }.in_file("docs/a.md"), expected);
        }
    }
}
