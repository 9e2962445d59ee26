//! What an endpoint asks of the model that is served, and the one answer where it cannot do that.

use crate::{Ability, LabelAbility, Served, TextAbility};
use narthex_answer::TextEncoder;
use narthex_http::ApiError;

/// What an endpoint asks for.
#[derive(Clone, Copy)]
enum Wanted {
    Text,
    Vectors,
    Likeness,
    Labels,
}

/// What tells how alike texts are.
#[derive(Clone, Copy)]
pub(crate) enum Comparer<'a> {
    /// A cross-encoder's score of a pair.
    Pairs(&'a TextEncoder),
    /// The cosine of two vectors.
    Vectors(&'a TextEncoder),
}

impl<'a> Comparer<'a> {
    pub fn encoder(self) -> &'a TextEncoder {
        match self {
            Comparer::Pairs(encoder) | Comparer::Vectors(encoder) => encoder,
        }
    }
}

/// The model as one that writes text.
pub(crate) fn text(model: &Served) -> Result<&TextAbility, ApiError> {
    if let Ability::Text(text) = &model.ability { Ok(text) } else { Err(unable(model, Wanted::Text)) }
}

/// The model as one that gives vectors.
pub(crate) fn vectors(model: &Served) -> Result<&TextEncoder, ApiError> {
    if let Ability::Vectors(encoder) = &model.ability { Ok(encoder) } else { Err(unable(model, Wanted::Vectors)) }
}

/// The model as one that tells how alike texts are.
pub(crate) fn comparer(model: &Served) -> Result<Comparer<'_>, ApiError> {
    match &model.ability {
        Ability::Scores(encoder) => Ok(Comparer::Pairs(encoder)),
        Ability::Vectors(encoder) => Ok(Comparer::Vectors(encoder)),
        Ability::Text(_) | Ability::Labels(_) => Err(unable(model, Wanted::Likeness)),
    }
}

/// The model as one that sorts texts into classes.
pub(crate) fn labels(model: &Served) -> Result<&LabelAbility, ApiError> {
    if let Ability::Labels(labels) = &model.ability { Ok(labels) } else { Err(unable(model, Wanted::Labels)) }
}

/// Says what the model does instead, and where.
fn unable(model: &Served, wanted: Wanted) -> ApiError {
    let (does, endpoints) = match &model.ability {
        Ability::Text(_) => ("generates text", "/v1/chat/completions or /v1/completions"),
        Ability::Vectors(_) => ("gives embeddings", "/v1/embeddings, /v1/score or /v1/rerank"),
        Ability::Scores(_) => ("scores pairs of texts", "/v1/score or /v1/rerank"),
        Ability::Labels(_) => ("sorts texts into classes", "/classify"),
    };
    let id = &model.id;
    let (message, code) = match (wanted, &model.ability) {
        (Wanted::Text, _) => {
            (format!("the model `{id}` generates no text, it {does}: use {endpoints}"), "not_a_generator")
        }
        (Wanted::Vectors | Wanted::Likeness, Ability::Text(_)) => (
            format!(
                "the model `{id}` generates text and gives no embeddings or scores: serve an encoder, such as a folder of \
                 sentence-transformers"
            ),
            "not_an_encoder",
        ),
        (Wanted::Vectors, _) => (format!("the model `{id}` {does}: use {endpoints}"), "not_an_embedding_model"),
        (Wanted::Likeness, Ability::Labels(labels)) => (
            format!("the model sorts pairs into {} classes; a score needs a model with one", labels.names.len()),
            "not_a_ranker",
        ),
        (Wanted::Likeness, _) => (format!("the model `{id}` {does}: use {endpoints}"), "not_a_ranker"),
        (Wanted::Labels, _) => (format!("the model `{id}` {does}: use {endpoints}"), "not_a_classifier"),
    };
    ApiError::field("model", message).code(code)
}
