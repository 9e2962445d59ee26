//! What is served, and what it can do. Plain data: nothing here reads files or listens.

use crate::Adapters;
use narthex_answer::{Chances, TextEncoder, TextModel};
use narthex_infer::StatsReader;
use narthex_openness::Shown;
use narthex_text::Tokenizer;
use std::sync::Arc;

/// Something that is served.
pub struct Served {
    /// The name clients ask for.
    pub id: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// Its sizes, as far as they are known.
    pub sizes: Sizes,
    /// Where it comes from and under which terms: shown by `/v1/provenance` and the page, its papers for download.
    pub provenance: Shown,
    /// What it can do. An endpoint asks for one ability.
    pub ability: Ability,
}

/// Sizes of a model; 0 and empty where they are not known.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sizes {
    /// How many weights there are.
    pub parameters: u64,
    /// Bytes that they take as they are kept.
    pub bytes: u64,
    /// Bytes that the model may take in memory: the weights, and keys and values.
    pub memory_bytes: u64,
    /// Numbers in a hidden state.
    pub width: usize,
    /// How they are kept: `BF16`, `F32`.
    pub precision: String,
}

/// What something that is served can do.
pub enum Ability {
    /// It writes text.
    Text(TextAbility),
    /// It gives vectors for texts.
    Vectors(TextEncoder),
    /// It gives a score for a pair of texts: a cross-encoder.
    Scores(TextEncoder),
    /// It sorts texts into classes.
    Labels(LabelAbility),
}

/// A model that writes text.
pub struct TextAbility {
    /// What answers.
    pub model: TextModel,
    /// The adapters over it that clients may ask for by name.
    pub adapters: Arc<Adapters>,
    /// How it writes calls of tools, by name, if its chat template does not tell.
    pub call_parser: Option<String>,
}

/// A model that sorts texts into classes.
pub struct LabelAbility {
    /// What gives a number for each label.
    pub encoder: TextEncoder,
    /// The labels' names, in the order of the numbers.
    pub names: Vec<String>,
    /// How the numbers become probabilities.
    pub chances: Chances,
}

impl Served {
    /// Names the weights in each answer, so that it can be traced: `fp_` and 12 digits of the digest.
    pub(crate) fn fingerprint(&self) -> Option<String> {
        let digest = self.provenance.digest.as_ref()?;
        Some(format!("fp_{}", digest.chars().take(12).collect::<String>()))
    }
}

impl Ability {
    /// Text to token ids and back.
    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        match self {
            Ability::Text(text) => &text.model.tokenizer,
            Ability::Vectors(encoder) | Ability::Scores(encoder) => encoder.tokenizer.tokenizer(),
            Ability::Labels(labels) => labels.encoder.tokenizer.tokenizer(),
        }
    }

    /// Tokens that a sequence may have.
    pub(crate) fn context(&self) -> usize {
        match self {
            Ability::Text(text) => text.model.engine.context(),
            Ability::Vectors(encoder) | Ability::Scores(encoder) => encoder.engine.context(),
            Ability::Labels(labels) => labels.encoder.engine.context(),
        }
    }

    /// Reads the counters of its engine.
    pub(crate) fn stats_reader(&self) -> StatsReader {
        match self {
            Ability::Text(text) => text.model.engine.stats_reader(),
            Ability::Vectors(encoder) | Ability::Scores(encoder) => encoder.engine.stats_reader(),
            Ability::Labels(labels) => labels.encoder.engine.stats_reader(),
        }
    }

    /// The adapters over it; only text has any.
    pub(crate) fn adapters(&self) -> Option<&Arc<Adapters>> {
        if let Ability::Text(text) = self { Some(&text.adapters) } else { None }
    }

    /// A word for what it does.
    pub(crate) fn task(&self) -> &'static str {
        match self {
            Ability::Text(_) => "generate",
            Ability::Vectors(_) => "embed",
            Ability::Scores(_) => "score",
            Ability::Labels(_) => "classify",
        }
    }

    /// Whether it takes messages.
    pub(crate) fn chats(&self) -> bool {
        matches!(self, Ability::Text(text) if text.model.template.is_some())
    }
}
