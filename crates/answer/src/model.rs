//! A model that answers in text: its tokenizer, its chat template and its engine. Knows neither where it comes from nor
//! who asks.

use crate::{constraint::Constraints, defaults::SamplingDefaults, error::AnswerError};
use narthex_base::{Message, Result};
use narthex_infer::{Generates, Request, Sampling};
use narthex_text::{ChatInput, ChatTemplate, Tokenizer};
use std::sync::Arc;

/// A conversation as the model reads it.
#[derive(Clone, Debug, PartialEq)]
pub struct ChatPrompt {
    /// As text.
    pub text: String,
    /// As token ids.
    pub ids: Vec<u32>,
}

/// A model that answers in text.
#[derive(Clone)]
pub struct TextModel {
    /// Text to token ids and back.
    pub tokenizer: Tokenizer,
    /// Messages to text; without one, it only continues text.
    pub template: Option<ChatTemplate>,
    /// What continues token ids.
    pub engine: Arc<dyn Generates>,
    /// Ids that end an answer.
    pub stop_tokens: Vec<u32>,
    /// Used where a request is silent.
    pub defaults: SamplingDefaults,
    /// What answers can be made to be.
    pub constraints: Arc<Constraints>,
}

impl TextModel {
    /// The text of a conversation, ready for the answer if asked.
    ///
    /// # Errors
    /// If there is no template, or it refuses the messages.
    pub fn render(&self, messages: &[Message], answer_next: bool) -> Result<String, AnswerError> {
        let template = self.template.as_ref().ok_or(AnswerError::NoTemplate)?;
        template.render(messages, answer_next).map_err(AnswerError::Refused)
    }

    /// A conversation as text and token ids. With `continues`, the last message is not ended: the answer goes on with
    /// it.
    ///
    /// # Errors
    /// If there is no template, it refuses the messages, or the tokenizer cannot encode its text.
    pub fn chat_text(&self, input: &ChatInput, continues: bool, special: bool) -> Result<ChatPrompt, AnswerError> {
        let template = self.template.as_ref().ok_or(AnswerError::NoTemplate)?;
        let rendered = if continues { template.render_unfinished(input) } else { template.render_input(input) };
        let text = rendered.map_err(AnswerError::Refused)?;
        let ids = self.tokenizer.encode(&text, special).map_err(AnswerError::Refused)?;
        Ok(ChatPrompt { text, ids })
    }

    /// The token ids of a conversation, ready for the answer.
    ///
    /// # Errors
    /// If there is no template, it refuses the messages, or they leave no room for a token.
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>, AnswerError> {
        let text = self.render(messages, true)?;
        let ids = self.tokenizer.encode(&text, false).map_err(AnswerError::Refused)?;
        let (tokens, context) = (ids.len(), self.engine.context());
        if tokens < context { Ok(ids) } else { Err(AnswerError::Full { tokens, context }) }
    }

    /// The same where the oldest turns behind the first `opening` messages may be forgotten, until `room` tokens are
    /// left for the answer or there is one message. The last of the conversation is never forgotten. Gives how many
    /// messages were.
    ///
    /// # Errors
    /// As [`TextModel::chat_prompt`].
    pub fn shortened_chat_prompt(
        &self,
        messages: &mut Vec<Message>,
        opening: usize,
        room: usize,
    ) -> Result<(Vec<u32>, usize), AnswerError> {
        let (context, before) = (self.engine.context(), messages.len());
        loop {
            let found = self.chat_prompt(messages);
            let fits = match &found {
                Ok(ids) => ids.len() + room <= context,
                Err(AnswerError::Full { .. }) => false,
                Err(_) => true,
            };
            if fits || messages.len() <= opening + 1 {
                return Ok((found?, before - messages.len()));
            }
            messages.drain(opening..(opening + 2).min(messages.len() - 1));
        }
    }

    /// A request that ends with the model's stop tokens.
    pub fn request(&self, prompt: Vec<u32>, tokens_max: usize, sampling: Sampling) -> Request {
        let stop_tokens = self.stop_tokens.clone();
        Request { prompt, max_tokens: tokens_max, sampling, stop_tokens, ..Request::default() }
    }
}
