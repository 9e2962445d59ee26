//! Which tokens end an answer. The one place where they are put together.

use narthex_text::{Tokenizer, TokenizerConfig};

/// The tokens that end an answer, each once: those in `first` (what ends a turn, or what the author names), then the
/// tokenizer's end of text, then those in `last` (what the model's own config names).
pub fn stop_tokens(first: &[u32], tokenizer: &Tokenizer, config: &TokenizerConfig, last: &[u32]) -> Vec<u32> {
    let end = config.eos_token.as_deref().and_then(|token| tokenizer.token_id(token));
    let mut stops = Vec::new();
    for id in first.iter().copied().chain(end).chain(last.iter().copied()) {
        if !stops.contains(&id) {
            stops.push(id);
        }
    }
    stops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_once_in_the_order_of_who_names_it() {
        let tokenizer = Tokenizer::train_bpe(std::iter::empty(), 258, &["<|a|>", "<|b|>"]).unwrap();
        let config =
            |eos: Option<&str>| TokenizerConfig { eos_token: eos.map(str::to_string), ..TokenizerConfig::default() };
        for (first, eos, last, expected) in [
            (vec![], None, vec![], vec![]),
            (vec![5], Some("<|b|>"), vec![0, 1], vec![5, 1, 0]),
            (vec![1, 1], Some("<|b|>"), vec![1], vec![1]),
            (vec![], Some("<|nowhere|>"), vec![7], vec![7]),
        ] {
            assert_eq!(stop_tokens(&first, &tokenizer, &config(eos), &last), expected, "{first:?} {eos:?} {last:?}");
        }
    }
}
