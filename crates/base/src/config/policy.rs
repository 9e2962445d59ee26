//! `[policy]` in its typed form.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `[policy]`: what may be done with which licences. Judged before a run, a bundle, a push and a server begin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Open source in the strict sense: a bundle has code (`code = true`), and every code component is under a licence that
    /// the OSI approved.
    pub open_source: bool,
    /// Serving is commercial: rules for `serve-commercially` apply to `narthex serve` and `batch`.
    pub commercial: bool,
    /// Rules by name. Of those that apply, the strictest verdict counts.
    pub rules: BTreeMap<String, PolicyRule>,
    /// Answers to `ask`: the name of a component, and who agreed to what.
    pub accepted: BTreeMap<String, String>,
}

impl Policy {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Policy::default()
    }
}

/// `[policy.rules.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PolicyRule {
    /// For which uses; all by default.
    #[serde(default, rename = "use")]
    pub uses: Vec<Use>,
    /// For which components: kinds such as `datasets`, or `code`, `data`, `document`; all by default.
    #[serde(default)]
    pub components: Vec<String>,
    /// For which licences: SPDX identifiers, a beginning such as `CC-BY-*`, or `non-commercial`, `no-derivatives`,
    /// `share-alike`, `unknown`, `undeclared`, `osi-approved`, `fsf-libre`; all by default.
    #[serde(default)]
    pub licenses: Vec<String>,
    /// For all licences but these, written the same way. Not together with `licenses`.
    #[serde(default)]
    pub only: Vec<String>,
    /// What follows.
    #[serde(default)]
    pub verdict: Verdict,
    /// Why, for the message.
    #[serde(default)]
    pub reason: String,
}

/// What is done with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Use {
    /// A model is trained or tuned on it, or from it.
    Train,
    /// It is passed on, or what was made from it is.
    Redistribute,
    /// What was made from it answers customers.
    ServeCommercially,
}

impl Use {
    /// The name in the file.
    pub fn name(self) -> &'static str {
        match self {
            Use::Train => "train",
            Use::Redistribute => "redistribute",
            Use::ServeCommercially => "serve-commercially",
        }
    }
}

/// What a rule says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It may be done.
    Allow,
    /// Somebody must agree first, in `[policy.accepted]`.
    Ask,
    /// It may not be done.
    #[default]
    Deny,
}
