//! Where in a text something personal or secret stands: addresses of e-mail, cards, phone numbers, bank accounts,
//! addresses of machines, tokens. Forms, check digits and lengths only; knows no context and no meaning. One pass for
//! each kind, with bounded looks to both sides of a candidate, so that time grows with the text and not faster.

use super::{
    numbers::{cards, ibans, phones},
    words::{MASK, emails, ips, secrets},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is masked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Redact {
    /// Tokens, keys and passwords in the forms that services give them: `sk-…`, `ghp_…`, `AKIA…`, JWT, PEM.
    Secret,
    /// Addresses of e-mail.
    Email,
    /// Numbers of bank accounts, where the check digits fit.
    Iban,
    /// Numbers of payment cards, where the issuer's digits, the length and the check digit fit.
    Card,
    /// Addresses of machines, IPv4 and IPv6.
    Ip,
    /// Phone numbers in international form, and in common national ones.
    Phone,
}

impl Redact {
    /// All of them, the ones that say most first: where two kinds see the same text, the first names it.
    pub const ALL: [Self; 6] = [Self::Secret, Self::Email, Self::Iban, Self::Card, Self::Ip, Self::Phone];

    /// What stands in place of what was masked.
    pub fn mask(self) -> &'static str {
        match self {
            Self::Secret => MASK,
            Self::Email => "[email]",
            Self::Iban => "[iban]",
            Self::Card => "[card]",
            Self::Ip => "[ip]",
            Self::Phone => "[phone]",
        }
    }

    fn find(self, text: &str, found: &mut dyn FnMut(usize, usize)) {
        match self {
            Self::Secret => secrets(text, found),
            Self::Email => emails(text, found),
            Self::Iban => ibans(text, found),
            Self::Card => cards(text, found),
            Self::Ip => ips(text, found),
            Self::Phone => phones(text, found),
        }
    }
}

/// Something that is to be masked: the bytes, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) kind: Redact,
}

/// All that these kinds see in a text, in its order and without overlaps.
pub(super) fn find(text: &str, kinds: &[Redact]) -> Vec<Found> {
    let mut all = Vec::new();
    for kind in kinds {
        kind.find(text, &mut |start, end| all.push(Found { start, end, kind: *kind }));
    }
    all.sort_by_key(|found| (found.start, found.end));
    let mut merged: Vec<Found> = Vec::new();
    for found in all {
        match merged.last_mut() {
            // Whatever any of them covers is masked; the kind that says most names it.
            Some(last) if found.start < last.end => {
                last.end = last.end.max(found.end);
                last.kind = last.kind.min(found.kind);
            }
            _ => merged.push(found),
        }
    }
    merged
}
