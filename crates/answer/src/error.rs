//! Why there is no answer. Knows no status codes and no flags: who asked says it in the words of its users.

use narthex_base::Error;
use narthex_infer::SubmitError;
use std::fmt;

/// Why there is no answer.
#[derive(Debug)]
pub enum AnswerError {
    /// Messages were asked of a model without a chat template.
    NoTemplate,
    /// The chat template or the tokenizer does not take this.
    Refused(Error),
    /// A conversation fills the context: there is no room for an answer.
    Full {
        /// Tokens of the conversation.
        tokens: usize,
        /// Tokens the model can hold.
        context: usize,
    },
    /// The engine does not take a sequence.
    NotTaken(SubmitError),
    /// The engine could not go on.
    Failed(String),
    /// The engine has stopped.
    Stopped,
    /// The tokens are no text.
    Undecodable(Error),
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AnswerError::NoTemplate => write!(f, "the model has no chat template"),
            AnswerError::Refused(error) => write!(f, "{}", error.what()),
            AnswerError::Full { tokens, context } => {
                write!(f, "the conversation has {tokens} tokens, but the model's context holds {context}")
            }
            AnswerError::NotTaken(error) => write!(f, "{error}"),
            AnswerError::Failed(why) => write!(f, "the engine failed: {why}"),
            AnswerError::Stopped => write!(f, "the engine has stopped"),
            AnswerError::Undecodable(error) => write!(f, "cannot decode the answer: {}", error.what()),
        }
    }
}

impl std::error::Error for AnswerError {}

impl From<AnswerError> for Error {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Refused(error) | AnswerError::Undecodable(error) => error,
            AnswerError::NoTemplate => {
                Error::input(error.to_string()).help("use `narthex generate` for plain continuation")
            }
            AnswerError::Full { .. } => Error::input(error.to_string()).help("say it in fewer words"),
            AnswerError::NotTaken(error) => Error::input("the model cannot take this prompt")
                .cause(error)
                .help("shorten the prompt, or choose a model with a longer context"),
            AnswerError::Failed(why) => Error::internal(why),
            AnswerError::Stopped => Error::internal(error.to_string()),
        }
    }
}
