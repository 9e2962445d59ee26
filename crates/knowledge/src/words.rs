//! Text to the words that are compared: one form of Unicode (NFKC), lower case, without endings. A word is what
//! Unicode's annex 29 calls one, cut again where code and file names join words; scripts that write no spaces are
//! taken apart into characters. Knows no index.

use narthex_base::config::Stemming;
use tantivy::tokenizer::{Language, Stemmer, TextAnalyzer, Token, TokenStream, Tokenizer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// Bytes of a word that are compared: what is longer is no word, and tantivy takes no term beyond 64 KiB.
const WORD_BYTES_MAX: usize = 128;

/// Turns text into words, for the index and for questions alike.
pub(crate) fn analyzer(stemming: Stemming) -> TextAnalyzer {
    match language(stemming) {
        Some(language) => TextAnalyzer::builder(Words).filter(Stemmer::new(language)).build(),
        None => TextAnalyzer::builder(Words).build(),
    }
}

fn language(stemming: Stemming) -> Option<Language> {
    Some(match stemming {
        Stemming::None => return None,
        Stemming::English => Language::English,
        Stemming::Danish => Language::Danish,
        Stemming::Dutch => Language::Dutch,
        Stemming::Finnish => Language::Finnish,
        Stemming::French => Language::French,
        Stemming::German => Language::German,
        Stemming::Hungarian => Language::Hungarian,
        Stemming::Italian => Language::Italian,
        Stemming::Norwegian => Language::Norwegian,
        Stemming::Portuguese => Language::Portuguese,
        Stemming::Romanian => Language::Romanian,
        Stemming::Russian => Language::Russian,
        Stemming::Spanish => Language::Spanish,
        Stemming::Swedish => Language::Swedish,
        Stemming::Turkish => Language::Turkish,
    })
}

/// The words of a text before their endings go.
fn words(text: &str) -> Vec<String> {
    let text: String =
        text.nfkc().flat_map(char::to_lowercase).map(|c| if c == '\u{2019}' { '\'' } else { c }).collect();
    let mut words = Vec::new();
    for word in text.unicode_words() {
        // `foo_bar`, `a.b` and `x:y` are words of annex 29; who looks for `bar` means them too. Numbers stay whole.
        let number = word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.' || byte == b',');
        let parts = word.split(|c: char| !number && matches!(c, '_' | '.' | ':' | ','));
        words.extend(
            parts
                .filter(|part| !part.is_empty())
                .map(|part| part[..part.floor_char_boundary(WORD_BYTES_MAX)].to_string()),
        );
    }
    words
}

#[derive(Clone, Default)]
struct Words;

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream {
        WordStream { words: words(text).into_iter(), token: Token::default() }
    }
}

struct WordStream {
    words: std::vec::IntoIter<String>,
    token: Token,
}

impl TokenStream for WordStream {
    fn advance(&mut self) -> bool {
        let Some(word) = self.words.next() else { return false };
        // Offsets into the text are not kept: nothing asks for them.
        self.token.text = word;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        &self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        &mut self.token
    }
}

/// The words of a text, in order.
pub(crate) fn analyzed(analyzer: &mut TextAnalyzer, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    analyzer.token_stream(text).process(&mut |token| found.push(token.text.clone()));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stemming: Stemming, text: &str, expected: &str) {
        assert_eq!(analyzed(&mut analyzer(stemming), text).join(" "), expected, "{text}");
    }

    #[test]
    fn words_of_all_scripts() {
        for (text, expected) in [
            ("Hello, World!", "hello world"),
            ("foo_bar.baz(x:y)", "foo bar baz x y"),
            ("pi is 3.14, not 1,000", "pi is 3.14 not 1,000"),
            ("v1.2.3 a.1", "v1 2 3 a 1"),
            ("\u{fb01}le ２ Ａ", "file 2 a"),
            ("don\u{2019}t", "don't"),
            ("e\u{301}te\u{301}", "été"),
            ("東京は", "東 京 は"),
            ("हिन्दी भाषा", "हिन्दी भाषा"),
            ("ΑΘΗΝΑ İ", "αθηνα i\u{307}"),
            ("… -- ***", ""),
            ("", ""),
        ] {
            check(Stemming::None, text, expected);
        }
        let long = "x".repeat(1000);
        check(Stemming::None, &long, &long[..WORD_BYTES_MAX]);
    }

    #[test]
    fn endings_by_language() {
        check(Stemming::English, "the wing's layers were heated", "the wing layer were heat");
        check(Stemming::German, "Häuser", "haus");
        check(Stemming::None, "layers", "layers");
    }
}
