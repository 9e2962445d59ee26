//! Figures: numbers that the same recipe always gives. Names are what manifests hold; unit and direction say how to
//! read them. It computes none.

use serde::{Serialize, Serializer};

/// A figure by name. Written as its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// The name in manifests and reports.
    pub name: &'static str,
    /// What it counts or measures.
    pub unit: Unit,
    /// Which way it gets better.
    pub better: Better,
}

/// What a figure counts or measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things, as the name says which.
    Count,
    /// Bytes.
    Bytes,
    /// A part of a whole, 0 to 1.
    Share,
    /// Negative natural logarithms of probability, for each byte of the text.
    NatsPerByte,
    /// The same for each token.
    NatsPerToken,
    /// The same for each text.
    NatsPerText,
    /// The same for each pair of answers: of the probability that the chosen one wins.
    NatsPerPair,
}

/// Which way a figure gets better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The lower the better.
    Lower,
    /// The higher the better.
    Higher,
    /// It says how much there is, not how good.
    Neither,
}

impl Figure {
    /// Documents kept, or conversations.
    pub const DOCUMENTS: Figure = Figure::new("documents", Unit::Count, Better::Neither);
    /// Passages that can be found.
    pub const PASSAGES: Figure = Figure::new("passages", Unit::Count, Better::Neither);
    /// Tokens of the training part.
    pub const TRAIN_TOKENS: Figure = Figure::new("train_tokens", Unit::Count, Better::Neither);
    /// The size of the files.
    pub const BYTES: Figure = Figure::new("bytes", Unit::Bytes, Better::Lower);
    /// The loss for each byte of the text: can be compared between tokenizers.
    pub const NATS_PER_BYTE: Figure = Figure::new("nats_per_byte", Unit::NatsPerByte, Better::Lower);
    /// The loss for each predicted token.
    pub const NATS_PER_TOKEN: Figure = Figure::new("nats_per_token", Unit::NatsPerToken, Better::Lower);
    /// The loss on the validation part at the end of training.
    pub const VALIDATION_NATS_PER_BYTE: Figure =
        Figure::new("validation_nats_per_byte", Unit::NatsPerByte, Better::Lower);
    /// The same for each token.
    pub const VALIDATION_NATS_PER_TOKEN: Figure =
        Figure::new("validation_nats_per_token", Unit::NatsPerToken, Better::Lower);
    /// The loss of the last step of training.
    pub const TRAINING_NATS_PER_TOKEN: Figure =
        Figure::new("training_nats_per_token", Unit::NatsPerToken, Better::Lower);
    /// What a pair of answers costs on the validation part at the end of training.
    pub const VALIDATION_PREFERENCE_LOSS: Figure =
        Figure::new("validation_preference_loss", Unit::NatsPerPair, Better::Lower);
    /// The same of the last step of training.
    pub const TRAINING_PREFERENCE_LOSS: Figure =
        Figure::new("training_preference_loss", Unit::NatsPerPair, Better::Lower);
    /// The loss for each text of the validation part.
    pub const VALIDATION_NATS_PER_TEXT: Figure =
        Figure::new("validation_nats_per_text", Unit::NatsPerText, Better::Lower);
    /// The loss for each text of the last step of training.
    pub const TRAINING_NATS_PER_TEXT: Figure = Figure::new("training_nats_per_text", Unit::NatsPerText, Better::Lower);
    /// Texts of the validation part whose label is the likeliest.
    pub const VALIDATION_ACCURACY: Figure = Figure::new("validation_accuracy", Unit::Share, Better::Higher);
    /// The harmonic mean of precision and recall of the label that matters.
    pub const VALIDATION_F1: Figure = Figure::new("validation_f1", Unit::Share, Better::Higher);
    /// The mean of F1 over labels.
    pub const VALIDATION_MACRO_F1: Figure = Figure::new("validation_macro_f1", Unit::Share, Better::Higher);
    /// The average precision over recall of the label that matters.
    pub const VALIDATION_PR_AUC: Figure = Figure::new("validation_pr_auc", Unit::Share, Better::Higher);
    /// Rows whose greedy answer equals the expected one.
    pub const EXACT_MATCH: Figure = Figure::new("exact_match", Unit::Share, Better::Higher);
    /// Rows whose right choice is the likeliest, by the sum over its tokens.
    pub const ACC: Figure = Figure::new("acc", Unit::Share, Better::Higher);
    /// Rows whose right choice is the likeliest for each character.
    pub const ACC_NORM: Figure = Figure::new("acc_norm", Unit::Share, Better::Higher);
    /// Rows whose right choice is the likeliest for each byte.
    pub const ACC_BYTES: Figure = Figure::new("acc_bytes", Unit::Share, Better::Higher);

    const fn new(name: &'static str, unit: Unit, better: Better) -> Self {
        Figure { name, unit, better }
    }

    /// The name of the same figure of the model that this one is compared with.
    pub fn of_baseline(self) -> String {
        format!("baseline_{}", self.name)
    }
}

impl Serialize for Figure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}
