//! What knowledge asks of models: vectors of texts, and how well passages answer a question. Knows no models.

use narthex_base::Result;

/// What a text is to an encoder: many are made to tell them apart by a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EmbedKind {
    /// A question.
    Query,
    /// A passage that may answer it.
    Passage,
}

/// An encoder of texts.
pub trait Embed {
    /// Which encoder this is, by digest or the like: vectors of one identity are compared with each other, and taken
    /// over when knowledge is made anew.
    fn identity(&self) -> String;

    /// Numbers in a vector.
    fn width(&self) -> usize;

    /// A vector for each text, in order, of any length but 0: they are normalised here.
    ///
    /// # Errors
    /// If the encoder cannot go on.
    fn embed(&self, texts: &[&str], kind: EmbedKind) -> Result<Vec<Vec<f32>>>;
}

/// A model that judges a question and a passage together.
pub trait Rerank {
    /// A score for each passage, in order; more is better.
    ///
    /// # Errors
    /// If the model cannot go on.
    fn scores(&self, question: &str, passages: &[&str]) -> Result<Vec<f32>>;
}
