//! A tokenizer's vocabulary as the grammar's engine wants it: the bytes of each token, in a trie. Special tokens stand
//! behind a mark that is no byte of any text, so that only a grammar that names them lets them pass.

use narthex_text::Tokenizer;
use std::sync::Arc;
use toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

/// Texts whose tokens must be the text again, for a tokenizer to be trusted with what must come next.
const PROBES: [&str; 4] = ["{\"name\": \"", "a", " a\n\n  b", "<tool_call>\n{\"x\": 1}"];

/// The vocabulary of a tokenizer, and one token more that stands for the end.
pub(super) struct Vocabulary {
    tokenizer: Tokenizer,
    trie: TokTrie,
    canonical: bool,
}

impl Vocabulary {
    pub(super) fn shared(tokenizer: &Tokenizer) -> TokEnv {
        let count = tokenizer.vocab_size() as u32;
        let mut words: Vec<Vec<u8>> = (0..count).map(|id| word(tokenizer, id)).collect();
        words.push(vec![]);
        let trie = TokTrie::from(&TokRxInfo::new(count + 1, count), &words);
        let mut vocabulary = Self { tokenizer: tokenizer.clone(), trie, canonical: false };
        vocabulary.canonical = PROBES.iter().all(|probe| vocabulary.tokenized(probe).is_some());
        Arc::new(vocabulary)
    }

    /// The tokens of a text, if they are this text again and none of them is special.
    fn tokenized(&self, text: &str) -> Option<Vec<u32>> {
        let ids = self.tokenizer.encode(text, false).ok()?;
        let bytes: Vec<u8> = ids.iter().flat_map(|id| self.trie.token(*id)).copied().collect();
        (bytes == text.as_bytes()).then_some(ids)
    }
}

/// The bytes of a token; those of a special one behind a mark.
fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id).unwrap_or_default();
    if !tokenizer.is_mark(id) {
        return bytes;
    }
    let mut marked = vec![TokTrie::SPECIAL_TOKEN_MARKER];
    marked.extend(tokenizer.token_text(id).unwrap_or_default().into_bytes());
    marked
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let text = std::str::from_utf8(bytes).ok().filter(|_| self.canonical);
        text.and_then(|text| self.tokenized(text)).unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
