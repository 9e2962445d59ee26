//! What kinds of files are read, told by their names. Knows no contents.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A kind of file that can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    /// Plain text: paragraphs between blank lines.
    Text,
    /// Markdown (CommonMark with tables).
    Markdown,
    /// HTML.
    Html,
    /// PDF; needs the feature `documents`.
    Pdf,
    /// Word's .docx; needs the feature `documents`.
    Docx,
}

impl FileKind {
    /// The kind of a file with this name; none for what is not read.
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit_once('.')?;
        match ending.to_ascii_lowercase().as_str() {
            "txt" | "text" => Some(Self::Text),
            "md" | "markdown" => Some(Self::Markdown),
            "html" | "htm" | "xhtml" => Some(Self::Html),
            "pdf" => Some(Self::Pdf),
            "docx" => Some(Self::Docx),
            _ => None,
        }
    }

    /// Whether its parser is large and reads what strangers made in binary: such a file belongs in a process of its
    /// own, with limits.
    pub fn is_risky(self) -> bool {
        matches!(self, Self::Pdf | Self::Docx)
    }
}

impl fmt::Display for FileKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FileKind::Text => "text",
            FileKind::Markdown => "Markdown",
            FileKind::Html => "HTML",
            FileKind::Pdf => "PDF",
            FileKind::Docx => "DOCX",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn told_by_the_ending() {
        for (name, expected) in [
            ("a.txt", Some(FileKind::Text)),
            ("a.b/README.MD", Some(FileKind::Markdown)),
            ("x.tar.htm", Some(FileKind::Html)),
            ("x.PDF", Some(FileKind::Pdf)),
            ("x.docx", Some(FileKind::Docx)),
            ("x.doc", None),
            ("README", None),
            ("md", None),
        ] {
            assert_eq!(FileKind::of_name(name), expected, "{name}");
        }
    }
}
