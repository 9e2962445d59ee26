//! `[steps.NAME]`: the list of all kinds of steps. This is the one place here that a new kind is added to; what a
//! kind is stands in its own file below `kind/`.

use super::{
    BundleStep, DataStep, EvalStep, FitStep, Kind, KnowledgeStep, QuantizeStep, StepKind, TokenizeStep, TrainStep,
    TuneStep,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Deref;

/// `[steps.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Step {
    /// Reads, transforms, cleans and splits.
    Data(DataStep),
    /// Trains or takes a tokenizer and writes token shards.
    Tokenize(TokenizeStep),
    /// Trains a model from nothing.
    Train(TrainStep),
    /// Tunes a model on conversations.
    Tune(TuneStep),
    /// Fits a model to tell a column of rows from others.
    Fit(FitStep),
    /// Rounds a model's weights to small integers.
    Quantize(QuantizeStep),
    /// Reads files into passages that are found and cited.
    Knowledge(KnowledgeStep),
    /// Measures a model.
    Eval(EvalStep),
    /// Packs a model with its papers.
    Bundle(BundleStep),
}

/// A step answers as its kind does.
impl Deref for Step {
    type Target = dyn StepKind;

    fn deref(&self) -> &Self::Target {
        match self {
            Step::Data(step) => step,
            Step::Tokenize(step) => step,
            Step::Train(step) => step,
            Step::Tune(step) => step,
            Step::Fit(step) => step,
            Step::Quantize(step) => step,
            Step::Knowledge(step) => step,
            Step::Eval(step) => step,
            Step::Bundle(step) => step,
        }
    }
}

impl Step {
    /// What is known of each kind, in the order of the chain.
    pub const KINDS: [&'static Kind; 9] = [
        &DataStep::KIND,
        &TokenizeStep::KIND,
        &TrainStep::KIND,
        &TuneStep::KIND,
        &FitStep::KIND,
        &QuantizeStep::KIND,
        &KnowledgeStep::KIND,
        &EvalStep::KIND,
        &BundleStep::KIND,
    ];

    /// The names of all kinds, for messages.
    pub fn kind_names() -> Vec<&'static str> {
        Self::KINDS.iter().map(|kind| kind.name).collect()
    }
}

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> Option<&'static Kind> {
        Step::KINDS.into_iter().find(|kind| kind.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Plan, config::Use};

    #[test]
    fn the_list_names_every_variant_by_its_own_name() {
        let schema = Plan::schema();
        let variants = schema["$defs"]["Step"]["oneOf"].as_array().expect("a step is one of several").iter();
        let names: Vec<&str> = variants.filter_map(|v| v["properties"]["kind"]["const"].as_str()).collect();
        assert_eq!(names, Step::kind_names());
        assert!(Kind::named("tran").is_none());
    }

    /// These enter every step's key: a change makes every artifact of the kind anew, and must be meant.
    #[test]
    fn what_keys_are_made_of() {
        let facts = Step::KINDS.map(|kind| (kind.name, kind.recipe_version, kind.uses_seed, kind.policy_use));
        assert_eq!(
            facts,
            [
                ("data", 2, true, None),
                ("tokenize", 2, false, None),
                ("train", 2, true, Some(Use::Train)),
                ("tune", 3, true, Some(Use::Train)),
                ("fit", 1, true, Some(Use::Train)),
                ("quantize", 1, false, Some(Use::Train)),
                ("knowledge", 1, false, None),
                ("eval", 6, false, None),
                ("bundle", 2, false, Some(Use::Redistribute)),
            ]
        );
    }
}
