//! `filters` of a data step: which rules there are, what each is measured by and its published defaults. Judging texts is
//! `curate`'s work.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A rule that keeps, changes or drops a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilterName {
    /// Repeated lines, paragraphs and runs of words (Rae et al., "Gopher", 2021, table A1).
    GopherRepetition,
    /// Length, length of words, symbols, bullets, ellipses, letters, stop words (Rae et al., "Gopher", 2021, section A1.1).
    GopherQuality,
    /// Drops lines that end badly, are short or speak of cookies, and pages with few sentences (Raffel et al., "T5", 2020).
    C4,
    /// Enough long paragraphs (Xue et al., "mT5", 2021).
    C4Paragraphs,
    /// Ends of lines, short lines, repeated lines, lists (Penedo et al., "FineWeb", 2024).
    FinewebQuality,
    /// Removes lines that are made of marks only.
    SymbolLines,
    /// Masks e-mail addresses, IPv4 addresses, phone numbers and numbers of cards.
    Pii,
}

impl FilterName {
    /// All rules, in the order in which they are listed to people.
    pub const ALL: [FilterName; 7] = [
        FilterName::GopherRepetition,
        FilterName::GopherQuality,
        FilterName::C4,
        FilterName::C4Paragraphs,
        FilterName::FinewebQuality,
        FilterName::SymbolLines,
        FilterName::Pii,
    ];

    /// What it is called in a project file.
    pub fn name(self) -> &'static str {
        match self {
            FilterName::GopherRepetition => "gopher_repetition",
            FilterName::GopherQuality => "gopher_quality",
            FilterName::C4 => "c4",
            FilterName::C4Paragraphs => "c4_paragraphs",
            FilterName::FinewebQuality => "fineweb_quality",
            FilterName::SymbolLines => "symbol_lines",
            FilterName::Pii => "pii",
        }
    }
}

/// What the rules of `filters` are measured by. 0 turns a bound off, but for `fineweb_quality`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FilterSettings {
    /// Bounds of `gopher_repetition`.
    pub gopher_repetition: GopherRepetition,
    /// Bounds of `gopher_quality`.
    pub gopher_quality: GopherQuality,
    /// Rules of `c4`.
    pub c4: C4,
    /// Bounds of `c4_paragraphs`.
    pub c4_paragraphs: C4Paragraphs,
    /// Bounds of `fineweb_quality`.
    pub fineweb_quality: FinewebQuality,
    /// How `symbol_lines` works.
    pub symbol_lines: SymbolLines,
    /// What `pii` masks.
    pub pii: Pii,
}

impl FilterSettings {
    /// The settings of one rule as text, to compare them.
    pub(crate) fn of(&self, name: FilterName) -> String {
        match name {
            FilterName::GopherRepetition => format!("{:?}", self.gopher_repetition),
            FilterName::GopherQuality => format!("{:?}", self.gopher_quality),
            FilterName::C4 => format!("{:?}", self.c4),
            FilterName::C4Paragraphs => format!("{:?}", self.c4_paragraphs),
            FilterName::FinewebQuality => format!("{:?}", self.fineweb_quality),
            FilterName::SymbolLines => format!("{:?}", self.symbol_lines),
            FilterName::Pii => format!("{:?}", self.pii),
        }
    }
}

/// Bounds of the rule `gopher_repetition`: parts of the text's characters, unless it says otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GopherRepetition {
    /// Of the paragraphs, those that stood before.
    pub max_duplicate_paragraphs: f64,
    /// Characters in paragraphs that stood before.
    pub max_duplicate_paragraph_chars: f64,
    /// Of the lines, those that stood before.
    pub max_duplicate_lines: f64,
    /// Characters in lines that stood before.
    pub max_duplicate_line_chars: f64,
    /// Characters in the most frequent run of 2, 3 and 4 words.
    pub max_top_ngram_chars: [f64; 3],
    /// Characters in runs of 5, 6, 7, 8, 9 and 10 words that stood before.
    pub max_duplicate_ngram_chars: [f64; 6],
}

impl Default for GopherRepetition {
    fn default() -> Self {
        Self {
            max_duplicate_paragraphs: 0.3,
            max_duplicate_paragraph_chars: 0.2,
            max_duplicate_lines: 0.3,
            max_duplicate_line_chars: 0.2,
            max_top_ngram_chars: [0.2, 0.18, 0.16],
            max_duplicate_ngram_chars: [0.15, 0.14, 0.13, 0.12, 0.11, 0.10],
        }
    }
}

/// Bounds of the rule `gopher_quality`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GopherQuality {
    /// Words that are not symbols, at least.
    pub min_words: u64,
    /// Words that are not symbols, at most.
    pub max_words: u64,
    /// Mean characters of a word, at least.
    pub min_mean_word_length: f64,
    /// Mean characters of a word, at most.
    pub max_mean_word_length: f64,
    /// `#` for each word, and ellipses for each word.
    pub max_symbols_per_word: f64,
    /// Of the lines, those that begin with a bullet.
    pub max_bullet_lines: f64,
    /// Of the lines, those that end with an ellipsis.
    pub max_ellipsis_lines: f64,
    /// Of the words, those with a letter, at least.
    pub min_alphabetic_words: f64,
    /// Different stop words, at least.
    pub min_stop_words: u64,
    /// The stop words.
    pub stop_words: Vec<String>,
}

impl Default for GopherQuality {
    fn default() -> Self {
        Self {
            min_words: 50,
            max_words: 100_000,
            min_mean_word_length: 3.0,
            max_mean_word_length: 10.0,
            max_symbols_per_word: 0.1,
            max_bullet_lines: 0.9,
            max_ellipsis_lines: 0.3,
            min_alphabetic_words: 0.8,
            min_stop_words: 2,
            stop_words: ["the", "be", "to", "of", "and", "that", "have", "with"].map(String::from).to_vec(),
        }
    }
}

/// Rules of `c4`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct C4 {
    /// Judges lines (`true`) or sentences.
    pub by_line: bool,
    /// Removes `[1]`, `[edit]` and `[citation needed]`.
    pub remove_citations: bool,
    /// Drops lines that do not end with `.`, `?`, `!` or a quote. FineWeb leaves this out.
    pub terminal_punctuation: bool,
    /// Sentences that must be left.
    pub min_sentences: u64,
    /// Drops lines with fewer words.
    pub min_words_per_line: u64,
    /// Drops lines with a longer word, in characters.
    pub max_word_length: u64,
    /// Drops documents that say `lorem ipsum`.
    pub drop_lorem_ipsum: bool,
    /// Drops lines that say `javascript`.
    pub drop_javascript: bool,
    /// Drops documents with `{`.
    pub drop_curly_brackets: bool,
    /// Drops lines about cookies and terms of use.
    pub drop_policies: bool,
}

impl Default for C4 {
    fn default() -> Self {
        Self {
            by_line: true,
            remove_citations: true,
            terminal_punctuation: true,
            min_sentences: 5,
            min_words_per_line: 3,
            max_word_length: 1000,
            drop_lorem_ipsum: true,
            drop_javascript: true,
            drop_curly_brackets: true,
            drop_policies: true,
        }
    }
}

/// Bounds of the rule `c4_paragraphs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct C4Paragraphs {
    /// So many lines must be long.
    pub min_paragraphs: u64,
    /// A long line has so many characters.
    pub min_length: u64,
}

impl Default for C4Paragraphs {
    fn default() -> Self {
        Self { min_paragraphs: 3, min_length: 200 }
    }
}

/// Bounds of the rule `fineweb_quality`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FinewebQuality {
    /// Of the lines, those that end with a terminal mark, at least.
    pub min_terminal_lines: f64,
    /// Lets texts pass in which no line does.
    pub allow_no_terminal_line: bool,
    /// The terminal marks, if not the 159 of all scripts.
    pub terminal_marks: Vec<String>,
    /// Of the lines, those that are short.
    pub max_short_lines: f64,
    /// A line of so many characters is short.
    pub short_line_length: u64,
    /// Of the characters, those in lines that stood before.
    pub max_duplicate_chars: f64,
    /// Line ends for each word.
    pub max_line_ends_per_word: f64,
}

impl Default for FinewebQuality {
    fn default() -> Self {
        Self {
            min_terminal_lines: 0.12,
            allow_no_terminal_line: false,
            terminal_marks: Vec::new(),
            max_short_lines: 0.67,
            short_line_length: 30,
            max_duplicate_chars: 0.01,
            max_line_ends_per_word: 0.3,
        }
    }
}

/// How the rule `symbol_lines` works.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SymbolLines {
    /// What stands in place of a run of such lines; nothing if it is empty.
    pub replacement: String,
}

/// What the rule `pii` masks, and with what. Of several replacements each is taken in turn, beginning anew with each
/// document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Pii {
    /// E-mail addresses become one of these; none are masked if there are none.
    pub emails: Vec<String>,
    /// IPv4 addresses become one of these.
    pub ips: Vec<String>,
    /// Leaves private and reserved IPv4 addresses as they are.
    pub only_public_ips: bool,
    /// Phone numbers in international form become one of these.
    pub phones: Vec<String>,
    /// Numbers of cards whose check digit is right become one of these.
    pub cards: Vec<String>,
}

impl Default for Pii {
    fn default() -> Self {
        let tag = |tag: &str| vec![tag.to_string()];
        Self {
            emails: tag("<EMAIL>"),
            ips: tag("<IP>"),
            only_public_ips: true,
            phones: tag("<PHONE>"),
            cards: tag("<CARD>"),
        }
    }
}

/// How near copies are found: MinHash over runs of words, compared band by band (Broder, 1997; Leskovec et al., "Mining of
/// Massive Datasets", chapter 3). Of each cluster the first document stays. Two texts that share a part s of their runs meet
/// with probability 1 - (1 - s^rows)^bands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NearDuplicates {
    /// Words of a run.
    #[schemars(range(min = 1, max = 100))]
    pub ngram: u32,
    /// Bands; one that is equal makes a pair.
    #[schemars(range(min = 1, max = 256))]
    pub bands: u32,
    /// Hashes of a band.
    #[schemars(range(min = 1, max = 64))]
    pub rows: u32,
    /// Seed of the hashes.
    pub seed: u32,
    /// What hashes a run of words.
    pub hash: RunHash,
}

impl Default for NearDuplicates {
    fn default() -> Self {
        Self { ngram: 5, bands: 14, rows: 8, seed: 1, hash: RunHash::Xxhash64 }
    }
}

/// What hashes a run of words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunHash {
    /// XXH64, as datatrove has it by default.
    #[default]
    Xxhash64,
    /// XXH32.
    Xxhash32,
    /// The first 8 bytes of SHA-1, little-endian: FineWeb's.
    Sha1_64,
    /// The first 4 bytes of SHA-1, little-endian.
    Sha1_32,
}
