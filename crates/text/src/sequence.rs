//! Texts and pairs of texts as an encoder reads them: with the tokens that begin, part and end them, their segments,
//! and cut to a length. Knows no model.

use crate::tokenizer::Tokenizer;
use narthex_base::{Error, Result};
use tokenizers::{
    Encoding, PostProcessor, TruncationDirection, TruncationParams, TruncationStrategy, truncate_encodings,
};

/// A text or a pair as an encoder reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenSequence {
    /// Token ids of the sequence.
    pub ids: Vec<u32>,
    /// The segment of each token: 0, and 1 for the second of a pair where the tokenizer tells them apart.
    pub types: Vec<u32>,
    /// Tokens that were cut off.
    pub cut: usize,
}

/// A tokenizer for encoders.
#[derive(Clone, Debug)]
pub struct SequenceTokenizer {
    tokenizer: Tokenizer,
    lower_case: bool,
}

impl SequenceTokenizer {
    /// With `lower_case`, texts are lowercased first, whatever the tokenizer does.
    pub fn new(tokenizer: Tokenizer, lower_case: bool) -> Self {
        Self { tokenizer, lower_case }
    }

    /// The tokenizer behind it.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Each text with the tokens around it, cut at the end to `tokens_max` in all.
    ///
    /// # Errors
    /// If the tokenizer's model cannot encode a text, or `tokens_max` leaves no room for one.
    pub fn texts(&self, texts: &[&str], tokens_max: usize) -> Result<Vec<TokenSequence>> {
        let room = self.room(tokens_max, false)?;
        let encodings = self.plain(texts)?;
        encodings.into_iter().map(|encoding| self.joined(encoding, None, room)).collect()
    }

    /// Each pair with the tokens around and between, cut to `tokens_max` in all at the end of whichever text is longer.
    /// With one first text it belongs to every second one.
    ///
    /// # Errors
    /// As [`texts`](Self::texts).
    ///
    /// # Panics
    /// If there are several first texts, but not one for each second.
    pub fn pairs(&self, firsts: &[&str], seconds: &[&str], tokens_max: usize) -> Result<Vec<TokenSequence>> {
        assert!(firsts.len() == 1 || firsts.len() == seconds.len(), "a first text for each second, or for all");
        let room = self.room(tokens_max, true)?;
        let (firsts, seconds) = (self.plain(firsts)?, self.plain(seconds)?);
        let pair = |(at, second): (usize, Encoding)| {
            let first = if firsts.len() == 1 { &firsts[0] } else { &firsts[at] };
            self.joined(first.clone(), Some(second), room)
        };
        seconds.into_iter().enumerate().map(pair).collect()
    }

    fn plain(&self, texts: &[&str]) -> Result<Vec<Encoding>> {
        let texts: Vec<String> =
            texts.iter().map(|text| if self.lower_case { text.to_lowercase() } else { (*text).to_string() }).collect();
        // Handing a few over to other threads costs more than it saves.
        if let [text] = texts.as_slice() {
            return Ok(vec![self.tokenizer.inner().encode_fast(text.as_str(), false).map_err(cannot_encode)?]);
        }
        self.tokenizer.inner().encode_batch_fast(texts, false).map_err(cannot_encode)
    }

    /// Tokens of the texts themselves.
    fn room(&self, tokens_max: usize, pair: bool) -> Result<usize> {
        let processor = self.tokenizer.inner().get_post_processor();
        let added = processor.map_or(0, |processor| processor.added_tokens(pair));
        tokens_max.checked_sub(added).filter(|room| *room > 0).ok_or_else(|| {
            Error::input(format!("{tokens_max} tokens leave no room for a text"))
                .cause(format!("the tokenizer adds {added} of its own"))
        })
    }

    fn joined(&self, first: Encoding, mut second: Option<Encoding>, room: usize) -> Result<TokenSequence> {
        if let Some(second) = &mut second {
            second.set_type_ids(vec![1; second.get_ids().len()]);
        }
        let given = first.len() + second.as_ref().map_or(0, Encoding::len);
        let (strategy, direction) = (TruncationStrategy::LongestFirst, TruncationDirection::Right);
        let cut = TruncationParams { max_length: room, strategy, stride: 0, direction };
        let (first, second) = truncate_encodings(first, second, &cut).map_err(cannot_encode)?;
        let kept = first.len() + second.as_ref().map_or(0, Encoding::len);
        let whole = self.tokenizer.inner().post_process(first, second, true).map_err(cannot_encode)?;
        Ok(TokenSequence { ids: whole.get_ids().to_vec(), types: whole.get_type_ids().to_vec(), cut: given - kept })
    }
}

fn cannot_encode(error: tokenizers::Error) -> Error {
    Error::input("cannot encode the text").cause(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny uncased WordPiece tokenizer in the form of BERT's.
    fn bert() -> Tokenizer {
        let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "sat", "##s", "mat", "a"];
        let vocabulary: serde_json::Map<_, _> =
            words.iter().enumerate().map(|(id, word)| (word.to_string(), id.into())).collect();
        let json = serde_json::json!({
            "version": "1.0",
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": null,
            "added_tokens": [],
            "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                "strip_accents": null, "lowercase": false},
            "pre_tokenizer": {"type": "BertPreTokenizer"},
            "post_processor": {"type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
                "pair": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}},
                    {"SpecialToken": {"id": "[SEP]", "type_id": 1}}],
                "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                    "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
            "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                "max_input_chars_per_word": 100, "vocab": vocabulary},
        });
        Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
    }

    fn sequence(ids: &[u32], types: &[u32], cut: usize) -> TokenSequence {
        TokenSequence { ids: ids.to_vec(), types: types.to_vec(), cut }
    }

    #[test]
    fn texts_are_framed_and_cut() {
        let plain = SequenceTokenizer::new(bert(), false);
        for (text, tokens_max, expected) in [
            ("the cats sat", 512, sequence(&[2, 4, 5, 7, 6, 3], &[0; 6], 0)),
            ("the cats sat", 5, sequence(&[2, 4, 5, 7, 3], &[0; 5], 1)),
            ("the cats sat", 3, sequence(&[2, 4, 3], &[0; 3], 3)),
            ("", 512, sequence(&[2, 3], &[0; 2], 0)),
            ("The", 512, sequence(&[2, 1, 3], &[0; 3], 0)),
        ] {
            assert_eq!(
                plain.texts(&[text], tokens_max).unwrap(),
                std::slice::from_ref(&expected),
                "{text:?} to {tokens_max}"
            );
            assert_eq!(plain.texts(&[text, "a"], tokens_max).unwrap()[0], expected, "{text:?} among others");
        }
        let lower = SequenceTokenizer::new(bert(), true);
        assert_eq!(lower.texts(&["The"], 9).unwrap(), [sequence(&[2, 4, 3], &[0; 3], 0)]);
        let error = plain.texts(&["the"], 2).unwrap_err();
        assert!(error.what().contains("2 tokens leave no room"), "{error}");
    }

    #[test]
    fn pairs_have_segments_and_lose_from_the_longer() {
        let tokenizer = SequenceTokenizer::new(bert(), false);
        let whole = sequence(&[2, 5, 3, 4, 8, 3], &[0, 0, 0, 1, 1, 1], 0);
        assert_eq!(tokenizer.pairs(&["cat"], &["the mat"], 9).unwrap(), std::slice::from_ref(&whole));
        let cut = tokenizer.pairs(&["cat"], &["the mat sat a", "the mat"], 6).unwrap();
        assert_eq!(cut, [TokenSequence { cut: 2, ..whole.clone() }, whole.clone()]);
        let both = tokenizer.pairs(&["cat", "the cats"], &["the mat", "a"], 9).unwrap();
        assert_eq!(both, [whole, sequence(&[2, 4, 5, 7, 3, 9, 3], &[0, 0, 0, 0, 0, 1, 1], 0)]);
        assert!(tokenizer.pairs(&["cat"], &["mat"], 3).unwrap_err().what().contains("no room"));
    }
}
