//! Two answers to one prompt, of which one is preferred. Knows neither tokens nor where pairs come from.

use crate::chat::Message;
use serde::{Deserialize, Serialize};

/// Two answers to one prompt, all three in the same form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answers<T> {
    /// What is answered.
    pub prompt: T,
    /// The answer that is preferred.
    pub chosen: T,
    /// The other one.
    pub rejected: T,
}

/// Two answers to one prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Pair {
    /// Plain text; an answer follows its prompt without anything between.
    Text(Answers<String>),
    /// Messages; the answers go on where the prompt ends.
    Chat(Answers<Vec<Message>>),
}

impl Pair {
    /// Splits two whole texts where they part; a space before an answer belongs to the answer.
    pub fn of_texts(chosen: &str, rejected: &str) -> Self {
        let same = chosen.chars().zip(rejected.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
        let mut len: usize = same.sum();
        if chosen[..len].ends_with(' ') {
            len -= 1;
        }
        Self::Text(Answers {
            prompt: chosen[..len].into(),
            chosen: chosen[len..].into(),
            rejected: rejected[len..].into(),
        })
    }

    /// Splits two whole conversations at the first message that differs.
    pub fn of_chats(mut chosen: Vec<Message>, mut rejected: Vec<Message>) -> Self {
        let len = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
        let answer = chosen.split_off(len);
        let other = rejected.split_off(len);
        Self::Chat(Answers { prompt: chosen, chosen: answer, rejected: other })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Role;

    #[test]
    fn prompts_are_what_both_begin_with() {
        for (chosen, rejected, prompt) in [
            ("The sky is blue.", "The sky is green.", "The sky is"),
            ("2+2=4", "2+2=5", "2+2="),
            ("é1", "è1", ""),
            ("yes", "yes", "yes"),
        ] {
            let Pair::Text(found) = Pair::of_texts(chosen, rejected) else { panic!("texts are texts") };
            assert_eq!(found.prompt, prompt);
            assert_eq!(
                (found.prompt.clone() + &found.chosen, found.prompt + &found.rejected),
                (chosen.to_string(), rejected.to_string())
            );
        }
        let chat = |answer: &str| vec![Message::new(Role::User, "q"), Message::new(Role::Assistant, answer)];
        let pair = Pair::of_chats(chat("a"), chat("b"));
        let Pair::Chat(found) = &pair else { panic!("chats are chats") };
        assert_eq!((&found.prompt, &found.rejected), (&chat("a")[..1].to_vec(), &chat("b")[1..].to_vec()));
        let text = serde_json::to_string(&pair).unwrap();
        assert_eq!(serde_json::from_str::<Pair>(&text).unwrap(), pair);
    }
}
