//! The main text of a page, without what all pages of a site repeat: menus, footers, notes on cookies, comments, lists
//! of related pages, buttons. What counts as main text is judged as trafilatura judges it where it prefers precision:
//! the element that names itself the text is taken, what names itself something else goes, then what is mostly links;
//! where that leaves little, the element with the most prose is taken (readability's way). The rules were learnt from
//! trafilatura 1.11 and readability, both Apache-2.0. Bytes go in, a text or a reason comes out; nothing recurses, and
//! the limits are sizes, so the same page always gives the same text.

mod blocks;
mod encoding;
mod main_text;
mod metadata;
mod patterns;
mod tags;
mod tree;
mod weigh;

use std::fmt;

/// How large a page may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the source; 1 GiB at most, whatever is asked.
    pub bytes: usize,
    /// Elements and pieces of text.
    pub nodes: usize,
    /// Elements inside each other.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 32 << 20, nodes: 500_000, depth: 1024 }
    }
}

/// What to extract.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The encoding that the HTTP header names.
    pub charset: Option<String>,
    /// Whether the text of tables is kept.
    pub tables: bool,
    /// How large a page may be.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self { charset: None, tables: true, limits: Limits::default() }
    }
}

/// The main text of a page and what the page says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extracted {
    /// A line for each paragraph, heading, item or row.
    pub text: String,
    /// As the head says it, else the first `h1`.
    pub title: Option<String>,
    /// `lang` of the root element, as it stands there.
    pub language: Option<String>,
    /// What the links inside the main text lead to, as it stands there, in their order.
    pub links: Vec<String>,
    /// As the head says it.
    pub description: Option<String>,
    /// The name of the site, as the head says it.
    pub site: Option<String>,
    /// When the page was published, as the head says it.
    pub date: Option<String>,
    /// As the head says it.
    pub author: Option<String>,
    /// The WHATWG's name of the encoding that the page was read in.
    pub encoding: &'static str,
}

/// Why a page gives no text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// More bytes than the limit.
    TooLarge {
        /// The limit.
        limit: usize,
    },
    /// More nodes than the limit.
    TooManyNodes {
        /// The limit.
        limit: usize,
    },
    /// Elements nest deeper than the limit.
    TooDeep {
        /// The limit.
        limit: usize,
    },
    /// Nothing on the page is main text.
    NoText,
}

impl Refusal {
    /// A name to count refusals by.
    pub fn name(self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too_large",
            Self::TooManyNodes { .. } => "too_many_nodes",
            Self::TooDeep { .. } => "too_deep",
            Self::NoText => "no_text",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { limit } => write!(f, "the page has more than {limit} bytes"),
            Self::TooManyNodes { limit } => write!(f, "the page has more than {limit} elements and texts"),
            Self::TooDeep { limit } => write!(f, "the page nests elements more than {limit} deep"),
            Self::NoText => f.write_str("the page has no main text"),
        }
    }
}

impl std::error::Error for Refusal {}

/// The main text of a page.
///
/// # Errors
///
/// If the page is over a limit or has no main text.
pub fn extract(bytes: &[u8], options: &Options) -> Result<Extracted, Refusal> {
    let limit = options.limits.bytes.min(1 << 30);
    if bytes.len() > limit {
        return Err(Refusal::TooLarge { limit });
    }
    let (source, encoding) = encoding::decode(bytes, options.charset.as_deref());
    let tree = tree::Tree::read(&source, &options.limits)?;
    let found = metadata::read(&tree);
    let (text, links) = main_text::find(&tree, options.tables, found.article.as_deref()).ok_or(Refusal::NoText)?;
    Ok(Extracted { text, links, encoding, ..found.page })
}

#[cfg(test)]
mod tests;
