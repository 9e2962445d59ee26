//! Tokens to text as they come: text is given out once its characters are complete.
//! Knows one sequence of one tokenizer.

use crate::tokenizer::Tokenizer;
use narthex_base::Result;

/// A decoder that is not byte-level gives up waiting for a complete character after this many tokens.
const PENDING_TOKENS: usize = 16;
/// Tokens before the new text that a decoder which is not byte-level is shown.
const CONTEXT_TOKENS: usize = 8;

/// An incremental detokenizer. The concatenation of what [`push`](Self::push) and
/// [`finish`](Self::finish) give is the text of all tokens; no piece ends inside a character.
/// The cost of a token does not grow with the tokens before it.
#[derive(Clone, Debug)]
pub struct TextStream {
    tokenizer: Tokenizer,
    skip_special: bool,
    /// Byte-level: bytes not yet given out, at most 3 between calls.
    bytes: Vec<u8>,
    /// Otherwise: `ids[..shown]` have been given out and are context, the others wait.
    ids: Vec<u32>,
    shown: usize,
}

impl TextStream {
    /// A stream at the start of a text.
    pub fn new(tokenizer: &Tokenizer, skip_special: bool) -> Self {
        Self { tokenizer: tokenizer.clone(), skip_special, bytes: vec![], ids: vec![], shown: 0 }
    }

    /// The same stream continuing a prompt, of which no text is given out. It matters where a
    /// decoder strips the first space of a text.
    pub fn after(mut self, prompt: &[u32]) -> Self {
        if !self.tokenizer.is_byte_level() {
            self.ids = prompt[prompt.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
            self.shown = self.ids.len();
        }
        self
    }

    /// Adds a token; gives the text that is complete now, if any.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>> {
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(None);
        }
        if self.tokenizer.is_byte_level() {
            self.bytes.extend(self.tokenizer.token_bytes(id).unwrap_or_default());
            return Ok(take_complete(&mut self.bytes));
        }
        self.ids.push(id);
        let patient = self.ids.len() - self.shown < PENDING_TOKENS;
        self.advance(patient)
    }

    /// Ends the stream; gives the rest, in which an incomplete character is U+FFFD.
    ///
    /// # Errors
    /// If the tokenizer's decoder fails.
    pub fn finish(mut self) -> Result<String> {
        if self.tokenizer.is_byte_level() {
            return Ok(String::from_utf8_lossy(&self.bytes).into_owned());
        }
        Ok(self.advance(false)?.unwrap_or_default())
    }

    /// Decodes the waiting ids behind their context. `patient` waits for a character's last byte.
    fn advance(&mut self, patient: bool) -> Result<Option<String>> {
        let context = self.tokenizer.decode(&self.ids[..self.shown], self.skip_special)?;
        let whole = self.tokenizer.decode(&self.ids, self.skip_special)?;
        if patient && (whole.ends_with('\u{fffd}') || whole.len() <= context.len()) {
            return Ok(None);
        }
        // A decoder may change the context's last characters once more tokens follow; then only
        // what lies beyond its length is new.
        let text = whole.get(context.len()..).unwrap_or_default().to_string();
        let keep = (self.ids.len() - self.shown).max(CONTEXT_TOKENS).min(self.ids.len());
        self.ids.drain(..self.ids.len() - keep);
        self.shown = self.ids.len();
        Ok((!text.is_empty()).then_some(text))
    }
}

/// Takes all but an incomplete last character; invalid bytes become U+FFFD as in `from_utf8_lossy`.
fn take_complete(bytes: &mut Vec<u8>) -> Option<String> {
    let mut text = String::new();
    loop {
        let error = match std::str::from_utf8(bytes) {
            Ok(valid) => {
                text.push_str(valid);
                bytes.clear();
                break;
            }
            Err(error) => error,
        };
        let valid = bytes.drain(..error.valid_up_to()).collect();
        text.push_str(&String::from_utf8(valid).expect("checked above"));
        let Some(invalid) = error.error_len() else { break };
        text.push('\u{fffd}');
        bytes.drain(..invalid);
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::tests::{byte_fallback, trained};

    fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> (Vec<Option<String>>, String) {
        let mut stream = TextStream::new(tokenizer, skip_special);
        let given = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        (given, stream.finish().unwrap())
    }

    #[test]
    fn same_text_as_decoding_at_once() {
        let tokenizer = trained();
        for text in ["the cat", "🦀🦀 日本語", "naïve — €5", "", "<|im_start|>a<|im_end|>", "real \u{fffd} sign"]
        {
            for skip in [false, true] {
                let ids = tokenizer.encode(text, false).unwrap();
                let (given, rest) = pieces(&tokenizer, &ids, skip);
                let joined: String = given.into_iter().flatten().chain([rest]).collect();
                assert_eq!(joined, tokenizer.decode(&ids, skip).unwrap());
            }
        }
    }

    #[test]
    fn never_splits_a_character() {
        let tokenizer = trained();
        let crab: Vec<u32> = "🦀".bytes().map(|byte| byte_token(&tokenizer, byte)).collect();
        assert_eq!(pieces(&tokenizer, &crab, false), (vec![None, None, None, Some("🦀".into())], String::new()));
        // Cut off, then broken by another character.
        assert_eq!(pieces(&tokenizer, &crab[..2], false), (vec![None, None], "\u{fffd}".into()));
        let broken = [crab[0], byte_token(&tokenizer, b'a')];
        assert_eq!(pieces(&tokenizer, &broken, false), (vec![None, Some("\u{fffd}a".into())], String::new()));
    }

    fn byte_token(tokenizer: &Tokenizer, byte: u8) -> u32 {
        (0..tokenizer.vocab_size() as u32).find(|id| tokenizer.token_bytes(*id).unwrap() == [byte]).unwrap()
    }

    #[test]
    fn byte_fallback_and_stripped_spaces() {
        let tokenizer = byte_fallback();
        let (given, rest) = pieces(&tokenizer, &[260, 257, 258, 0xe2, 0x82, 0xac, 259], true);
        let joined: Vec<String> = given.into_iter().flatten().collect();
        assert_eq!((joined, rest), (vec!["Hello".into(), " world".into(), "€".into(), "a".into()], String::new()));
        let mut stream = TextStream::new(&tokenizer, true).after(&[257]);
        assert_eq!(stream.push(258).unwrap().unwrap(), " world");
        // Bytes that never become a character are given out in the end, and do not pile up.
        let (given, _) = pieces(&tokenizer, &[0xff; 100], true);
        assert!(given.iter().flatten().count() >= 100 / PENDING_TOKENS);
    }
}
