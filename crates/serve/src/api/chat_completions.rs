//! `POST /v1/chat/completions` (<https://platform.openai.com/docs/api-reference/chat>).

use super::{
    ability,
    chat_answer::{Answer, Chunk, ChunkChoice, Completion, Delta, Gathered},
    chunks::Chunks,
    conversing::Conversing,
    generating::{self, Operation},
    head::Head,
    logprobs::PromptLogprobs,
    refusal::unanswered,
    usage::Usage,
};
use crate::app::{Addressed, App};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use narthex_answer::{Generation, Piece};
use narthex_http::{ApiError, Exchange, Fields, event_stream};
use narthex_infer::Request;
use std::sync::Arc;

/// A conversation that the engine has taken.
pub(crate) struct Talk {
    app: App,
    head: Head,
    generation: Generation,
    conversing: Conversing,
    /// What a search begins with.
    searched: Option<Request>,
}

/// Answers a conversation.
pub(crate) async fn create(Addressed { app, exchange, fields }: Addressed) -> Result<Response, ApiError> {
    let talk = Talk::begin(app, exchange, fields).await?;
    if talk.streams() {
        return Ok(event_stream(async move |mut events| talk.stream(&mut events).await));
    }
    Ok(Json(talk.whole().await?).into_response())
}

impl Talk {
    /// Reads a request and hands it to the engine.
    pub async fn begin(app: App, exchange: Arc<Exchange>, fields: Fields) -> Result<Self, ApiError> {
        let (model, limits) = (app.model.clone(), app.shared.limits.clone());
        // Long conversations take a while to tokenize, and forms to compile; other answers go on meanwhile.
        let read = tokio::task::spawn_blocking(move || Conversing::read(fields, &model, &limits)).await;
        let mut conversing = read.map_err(|error| ApiError::internal(error.to_string()))??;
        let parameters = &conversing.parameters;
        let object = if parameters.stream { "chat.completion.chunk" } else { "chat.completion" };
        let head = Head::new("chatcmpl", object, &app.model, &parameters.model, parameters.request_id.as_deref());
        let requests = std::mem::take(&mut conversing.requests);
        // A search asks the engine by itself.
        let searches = conversing.parameters.beams.is_some();
        let (requests, searched) = if searches { (vec![], requests.into_iter().next()) } else { (requests, None) };
        let generation = generating::start(&app, exchange, Operation::Chat, &head, &conversing.parameters, requests)?;
        Ok(Self { app, head, generation, conversing, searched })
    }

    /// Whether the answer is wanted piece by piece.
    pub fn streams(&self) -> bool {
        self.conversing.parameters.stream
    }

    /// Tokens of the conversation.
    pub fn prompt_tokens(&self) -> usize {
        self.conversing.prompt.len()
    }

    fn usage(&self, reasoning_tokens: usize) -> Usage {
        let written = self.generation.completion_tokens();
        Usage::new(self.conversing.prompt.len(), written)
            .with_cached(self.generation.cached_tokens(0))
            .with_reasoning(reasoning_tokens)
    }

    /// The whole answer.
    pub async fn whole(mut self) -> Result<Completion, ApiError> {
        let Conversing { parameters, dissection, echo, .. } = &self.conversing;
        let served = &self.app.model;
        let answer = |index| (Answer::new(index, served, dissection, parameters), Gathered::new(echo, parameters));
        let mut answers: Vec<_> = (0..parameters.n).map(answer).collect();
        let mut prompt_logprobs = None;
        while let Some((index, piece)) =
            self.generation.next().await.map_err(|error| unanswered(error, &served.id, "messages"))?
        {
            if let (0, Piece::Prompt(scores)) = (index, &piece) {
                prompt_logprobs =
                    Some(PromptLogprobs::new(served.ability.tokenizer(), &self.conversing.prompt, scores));
            }
            let (answer, gathered) = &mut answers[index];
            answer.take(piece).into_iter().for_each(|choice| gathered.take(choice));
        }
        let mut usage = self.usage(0);
        if let (Some(search), Some(request)) = (parameters.beams, &self.searched) {
            let text = &ability::text(served)?.model;
            let found = search.run(text, request).await;
            let (wholes, _) = found.map_err(|error| unanswered(error, &served.id, "messages"))?;
            usage = Usage::new(self.conversing.prompt.len(), wholes.iter().map(|whole| whole.ids.len()).sum());
            for ((answer, gathered), whole) in answers.iter_mut().zip(wholes) {
                for piece in [Piece::Text(whole.text, vec![], whole.ids), Piece::End(whole.ending)] {
                    answer.take(piece).into_iter().for_each(|choice| gathered.take(choice));
                }
            }
        }
        let reasoning = answers.iter().map(|(answer, _)| answer.reasoning_tokens).sum();
        let usage = usage.with_reasoning(reasoning);
        let choices = answers.into_iter().enumerate().map(|(index, (_, gathered))| gathered.choice(index)).collect();
        let prompt_token_ids = parameters.token_ids.beside.then(|| self.conversing.prompt.clone());
        Ok(Completion { head: self.head, choices, usage, prompt_logprobs, prompt_token_ids })
    }

    /// The answer piece by piece.
    pub async fn stream(mut self, chunks: &mut impl Chunks) -> Result<(), ApiError> {
        let Conversing { parameters, dissection, echo, .. } = &self.conversing;
        let served = &self.app.model;
        let mut answers: Vec<Answer> =
            (0..parameters.n).map(|index| Answer::new(index, served, dissection, parameters)).collect();
        let usage_of = |generation: &Generation, reasoning| {
            Usage::new(self.conversing.prompt.len(), generation.completion_tokens())
                .with_cached(generation.cached_tokens(0))
                .with_reasoning(reasoning)
        };
        let head = &self.head;
        let chunk = |choice, usage: Option<Usage>| Chunk {
            head,
            choices: vec![choice],
            usage: parameters.usage.last.then_some(usage),
            prompt_token_ids: None,
        };
        for index in 0..parameters.n {
            let delta = Delta::begin(echo.clone());
            let token_ids = parameters.token_ids.beside.then(Vec::new);
            let choice =
                ChunkChoice { index, delta, logprobs: None, finish_reason: None, stop_reason: None, token_ids };
            let usage = parameters.usage.each.then(|| usage_of(&self.generation, 0));
            let ids = parameters.token_ids.beside && index == 0;
            let first = Chunk { prompt_token_ids: ids.then(|| self.conversing.prompt.clone()), ..chunk(choice, usage) };
            chunks.send(&first).await?;
        }
        let broken = |error| unanswered(error, &served.id, "messages");
        while let Some((index, piece)) = self.generation.next().await.map_err(broken)? {
            for choice in answers[index].take(piece) {
                let reasoning = answers.iter().map(|answer| answer.reasoning_tokens).sum();
                let usage = parameters.usage.each.then(|| usage_of(&self.generation, reasoning));
                chunks.send(&chunk(choice, usage)).await?;
            }
        }
        if parameters.usage.last {
            let reasoning = answers.iter().map(|answer| answer.reasoning_tokens).sum();
            let usage = Some(Some(usage_of(&self.generation, reasoning)));
            chunks.send(&Chunk { head, choices: vec![], usage, prompt_token_ids: None }).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
