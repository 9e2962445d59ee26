//! Pairs of answers as token ids, each with its prompt and with the mask of what is the answer. Knows one tokenizer and
//! one template, but neither models nor files.

use crate::{
    template::{ChatTemplate, MaskedIds},
    tokenizer::Tokenizer,
};
use narthex_base::{Error, Message, Pair, Result};

/// The ids of the chosen and of the rejected answer, each after its prompt. Texts are ended by `end`; conversations by
/// what the template puts there.
///
/// An answer begins where its ids part from those of the prompt alone, and in a pair no later than the other answer
/// does: tokens may merge across the border, and then belong to the answer.
///
/// # Errors
/// If conversations come without a template, or the template fails or does not show what the assistant wrote.
pub fn encode_pair(
    tokenizer: &Tokenizer,
    template: Option<&ChatTemplate>,
    end: Option<u32>,
    pair: &Pair,
) -> Result<[MaskedIds; 2]> {
    let (prompt, mut answers) = match pair {
        Pair::Text(texts) => {
            let whole = |answer: &str| -> Result<MaskedIds> {
                let mut ids = tokenizer.encode_open(&format!("{}{answer}", texts.prompt))?;
                if end.is_some_and(|end| ids.last() != Some(&end)) {
                    ids.extend(end);
                }
                let mask = vec![true; ids.len()];
                Ok((ids, mask))
            };
            (tokenizer.encode_open(&texts.prompt)?, [whole(&texts.chosen)?, whole(&texts.rejected)?])
        }
        Pair::Chat(chats) => {
            let template = template.ok_or_else(|| {
                Error::input("the pairs are conversations, but the tokenizer has no chat template")
                    .help("take the tokenizer of a model that has one, or give the pairs as plain text")
            })?;
            // Where each answer is a document of its own, the last is the answer.
            let whole = |answer: &[Message]| -> Result<MaskedIds> {
                let chat = [chats.prompt.clone(), answer.to_vec()].concat();
                Ok(template.encode_chat(tokenizer, &chat.into())?.pop().unwrap_or_default())
            };
            let prompt = tokenizer.encode(&template.render(&chats.prompt, true)?, false)?;
            (prompt, [whole(&chats.chosen)?, whole(&chats.rejected)?])
        }
    };
    let common = |(ids, _): &MaskedIds| ids.iter().zip(&prompt).take_while(|(a, b)| a == b).count();
    let begin = answers.iter().map(common).min().unwrap_or_default();
    for (ids, mask) in &mut answers {
        mask.iter_mut().take(begin).for_each(|trained| *trained = false);
        // What the template writes after an answer teaches nothing.
        let len = mask.iter().rposition(|trained| *trained).map_or(0, |last| last + 1);
        ids.truncate(len);
        mask.truncate(len);
    }
    Ok(answers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::CHATML;
    use narthex_base::{Answers, Role};

    const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];

    fn tokenizer() -> Tokenizer {
        let texts = ["the sky is blue and the sea is green", "user assistant system the sky the sea"];
        Tokenizer::train_bpe(texts.into_iter().map(String::from), 300, &SPECIAL).unwrap()
    }

    /// The answers' own parts, as text.
    fn answers(pair: &Pair) -> [String; 2] {
        let (tokenizer, template) = (tokenizer(), ChatTemplate::new(CHATML, None, None).unwrap());
        let end = tokenizer.token_id(SPECIAL[0]);
        encode_pair(&tokenizer, Some(&template), end, pair).unwrap().map(|(ids, mask)| {
            assert_eq!(ids.len(), mask.len());
            let own: Vec<u32> = ids.iter().zip(&mask).filter(|(_, own)| **own).map(|(id, _)| *id).collect();
            tokenizer.decode(&own, false).unwrap()
        })
    }

    #[test]
    fn what_is_trained_is_the_answer() {
        let texts = Answers { prompt: "the sky is".into(), chosen: " blue".into(), rejected: " green".into() };
        assert_eq!(answers(&Pair::Text(texts)), [" blue<|endoftext|>", " green<|endoftext|>"]);
        let say = |role: Role, text: &str| Message::new(role, text);
        // An earlier answer belongs to the prompt.
        let prompt = vec![say(Role::User, "the sky"), say(Role::Assistant, "is blue"), say(Role::User, "the sea")];
        let answer = |text: &str| vec![say(Role::Assistant, text)];
        let chats = Answers { prompt, chosen: answer("is green"), rejected: answer("is blue") };
        assert_eq!(answers(&Pair::Chat(chats.clone())), ["is green<|im_end|>", "is blue<|im_end|>"]);
        let error = encode_pair(&tokenizer(), None, None, &Pair::Chat(chats)).unwrap_err();
        assert!(error.what().contains("no chat template"), "{error}");
    }

    #[test]
    fn tokens_that_merge_across_the_border_belong_to_the_answer() {
        // `e sky` parts within a token of `the`.
        let texts = Answers { prompt: "the sea is th".into(), chosen: "e sky".into(), rejected: "at".into() };
        let [chosen, rejected] = answers(&Pair::Text(texts));
        assert!(chosen.ends_with("e sky<|endoftext|>") && rejected.ends_with("at<|endoftext|>"));
        let parts = [chosen.len() - "e sky<|endoftext|>".len(), rejected.len() - "at<|endoftext|>".len()];
        assert_eq!(parts[0], parts[1], "both begin at one place");
    }
}
