//! Licences: validated SPDX expressions, and their texts. Both OpenMDW versions are known;
//! 1.1 is not in SPDX's list, so it is written `LicenseRef-OpenMDW-1.1` as its FAQ prescribes.

mod notices;
mod recognise;
mod template;
mod words;

pub use recognise::{Recognised, recognise};
pub use words::decode;

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{collections::BTreeMap, fmt, str::FromStr};

/// A valid SPDX licence expression, kept in the form it is printed in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct License(String);

const OPENMDW_1_0: &str = include_str!("../licenses/OpenMDW-1.0.txt");
const OPENMDW_1_1: &str = include_str!("../licenses/OpenMDW-1.1.txt");

impl License {
    /// OpenMDW 1.1, the default for what Narthex makes.
    pub fn openmdw_1_1() -> Self {
        Self("LicenseRef-OpenMDW-1.1".into())
    }

    /// The expression.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads an SPDX expression. Identifiers and operators match whatever their case and are kept as SPDX writes
    /// them; the identifiers that it has replaced (`GPL-2.0`, `GPL-2.0+`) stand for those that replaced them.
    /// `OpenMDW-1.1` is accepted for `LicenseRef-OpenMDW-1.1`.
    ///
    /// Source: SPDX 2.3, annex D; SPDX License List, deprecated identifiers.
    ///
    /// # Errors
    /// If it is not a valid expression; the help names the nearest identifier.
    pub fn parse(text: &str) -> Result<Self> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let words: Vec<String> = spaced.split_whitespace().map(canonical).collect();
        let written = words.join(" ").replace("( ", "(").replace(" )", ")");
        if words.iter().any(|word| ["NOASSERTION", "NONE"].contains(&word.as_str())) {
            return Err(Error::input(format!("`{written}` states no licence"))
                .help("leave it out where no licence is known: it then counts as undeclared"));
        }
        let error = match words.iter().find(|word| is_nameless(word)) {
            Some(word) => Error::input(format!("`{word}` lacks a name")).cause("it stands for terms of somebody's own"),
            None => match spdx::Expression::parse(&written) {
                Ok(_) => return Ok(Self(written)),
                Err(error) => Error::input(format!("`{text}` is not an SPDX licence expression")).cause(&error.reason),
            },
        };
        let own = "`LicenseRef-NAME` is for terms of your own";
        Err(error.help(match nearest_id(&words) {
            Some(near) => format!("did you mean `{near}`? the list: https://spdx.org/licenses; {own}"),
            None => format!("use an identifier of https://spdx.org/licenses; {own}"),
        }))
    }

    /// Whether both are the same, whatever the case of the names that are somebody's own.
    pub fn is(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// The licences named in the expression, each once, in order.
    pub fn ids(&self) -> Vec<String> {
        let mut ids = Vec::new();
        if let Ok(expression) = spdx::Expression::parse(&self.0) {
            for requirement in expression.requirements() {
                let id = requirement.req.license.to_string();
                if !ids.contains(&id) {
                    ids.push(id);
                }
            }
        }
        ids
    }

    /// The texts of the licences named in the expression: id -> text, where it is known.
    pub fn texts(&self) -> BTreeMap<String, &'static str> {
        self.ids().into_iter().filter_map(|id| text_of(&id).map(|text| (id, text))).collect()
    }
}

impl License {
    /// Whether the expression holds when each licence in it is judged by `accept`: one side of an `OR` is enough, an
    /// `AND` needs both.
    pub fn evaluate(&self, mut accept: impl FnMut(&str) -> bool) -> bool {
        let Ok(expression) = spdx::Expression::parse(&self.0) else { return false };
        expression.evaluate(|requirement| match &requirement.addition {
            // A text that nobody has sorted makes of the licence another one.
            Some(spdx::AdditionItem::Other(_)) => accept(&requirement.to_string()),
            _ => accept(&requirement.license.to_string()),
        })
    }
}

/// What a licence asks or grants, as far as policies distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Term {
    /// No commercial use.
    NonCommercial,
    /// Nothing derived may be passed on.
    NoDerivatives,
    /// What is derived must be passed on under the same terms: share-alike and copyleft.
    ShareAlike,
    /// Its text is not in SPDX's list, so nobody has sorted it.
    Unknown,
    /// Approved by the Open Source Initiative.
    OsiApproved,
    /// Free in the sense of the Free Software Foundation.
    FsfLibre,
}

impl Term {
    /// All of them.
    pub const ALL: [Term; 6] =
        [Term::NonCommercial, Term::NoDerivatives, Term::ShareAlike, Term::Unknown, Term::OsiApproved, Term::FsfLibre];

    /// The name used in policies.
    pub fn name(self) -> &'static str {
        match self {
            Term::NonCommercial => "non-commercial",
            Term::NoDerivatives => "no-derivatives",
            Term::ShareAlike => "share-alike",
            Term::Unknown => "unknown",
            Term::OsiApproved => "osi-approved",
            Term::FsfLibre => "fsf-libre",
        }
    }

    /// Whether the licence with this SPDX identifier has it.
    pub fn applies(self, id: &str) -> bool {
        let known = spdx::license_id(id.trim_end_matches('+'));
        let parts = || id.split('-');
        match self {
            Term::NonCommercial => {
                let own = id.contains("Ref-").then(|| id.to_ascii_lowercase());
                parts().any(|part| part == "NC")
                    || NON_COMMERCIAL.contains(&id)
                    || own.is_some_and(|own| NON_COMMERCIAL_NAMES.iter().any(|name| own.contains(name)))
            }
            Term::NoDerivatives => parts().any(|part| part == "ND"),
            Term::ShareAlike => {
                parts().any(|part| part == "SA")
                    || SHARE_ALIKE.contains(&id.trim_end_matches('+'))
                    || known.is_some_and(|license| license.is_copyleft())
            }
            Term::Unknown => known.is_none() && id != "LicenseRef-OpenMDW-1.1",
            Term::OsiApproved => known.is_some_and(|license| license.is_osi_approved()),
            Term::FsfLibre => known.is_some_and(|license| license.is_fsf_free_libre()),
        }
    }
}

/// Licences of SPDX's list that forbid commercial use, or allow it to some alone, besides those with `NC` in their
/// names.
const NON_COMMERCIAL: [&str; 9] = [
    "Aladdin",
    "BUSL-1.1",
    "JPL-image",
    "NCGL-UK-2.0",
    "PPL",
    "PolyForm-Noncommercial-1.0.0",
    "PolyForm-Small-Business-1.0.0",
    "SUL-1.0",
    "TU-Berlin-2.0",
];
/// What somebody's own identifier has in it where it says so itself, as tags of the Hugging Face Hub do.
const NON_COMMERCIAL_NAMES: [&str; 10] = [
    "apple-amlr",
    "by-nc",
    "deepfloyd-if-license",
    "h-research",
    "intel-research",
    "non-commercial",
    "noncommercial",
    "nonprofit",
    "research-only",
    "research-use",
];
/// Licences whose own words ask for the same terms, besides those with `SA` in their names and those that are known as
/// copyleft.
const SHARE_ALIKE: [&str; 47] = [
    "APSL-1.0",
    "APSL-1.1",
    "APSL-1.2",
    "APSL-2.0",
    "Arphic-1999",
    "CAL-1.0",
    "CAL-1.0-Combined-Work-Exception",
    "CDLA-Sharing-1.0",
    "CERN-OHL-S-2.0",
    "CERN-OHL-W-2.0",
    "CPAL-1.0",
    "CUA-OPL-1.0",
    "Community-Spec-1.0",
    "D-FSL-1.0",
    "EPL-1.0",
    "EPL-2.0",
    "ErlPL-1.1",
    "FreeImage",
    "IPA",
    "IPL-1.0",
    "Interbase-1.0",
    "LAL-1.2",
    "LAL-1.3",
    "LiLiQ-R-1.1",
    "LiLiQ-Rplus-1.1",
    "Motosoto",
    "NGPL",
    "NPOSL-3.0",
    "Nokia",
    "OCLC-2.0",
    "ODbL-1.0",
    "OFL-1.0",
    "OFL-1.1",
    "PPL",
    "Parity-6.0.0",
    "Parity-7.0.0",
    "QPL-1.0",
    "RPL-1.1",
    "RPL-1.5",
    "RPSL-1.0",
    "RSCPL",
    "SPL-1.0",
    "SSPL-1.0",
    "SimPL-2.0",
    "Sleepycat",
    "SugarCRM-1.1.3",
    "Watcom-1.0",
];

/// The identifiers of GNU licences that say neither `-only` nor `-or-later`: SPDX has replaced them.
const GNU: [&str; 11] = [
    "AGPL-1.0", "AGPL-3.0", "GFDL-1.1", "GFDL-1.2", "GFDL-1.3", "GPL-1.0", "GPL-2.0", "GPL-3.0", "LGPL-2.0",
    "LGPL-2.1", "LGPL-3.0",
];
/// Other identifiers that SPDX has replaced by an expression that means the same.
const REPLACED: [(&str, &str); 12] = [
    ("BSD-2-Clause-FreeBSD", "BSD-2-Clause-Views"),
    ("BSD-2-Clause-NetBSD", "BSD-2-Clause"),
    ("GPL-2.0-with-autoconf-exception", "GPL-2.0-only WITH Autoconf-exception-2.0"),
    ("GPL-2.0-with-bison-exception", "GPL-2.0-only WITH Bison-exception-2.2"),
    ("GPL-2.0-with-classpath-exception", "GPL-2.0-only WITH Classpath-exception-2.0"),
    ("GPL-2.0-with-font-exception", "GPL-2.0-only WITH Font-exception-2.0"),
    ("GPL-2.0-with-GCC-exception", "GPL-2.0-only WITH GCC-exception-2.0"),
    ("GPL-3.0-with-autoconf-exception", "GPL-3.0-only WITH Autoconf-exception-3.0"),
    ("GPL-3.0-with-GCC-exception", "GPL-3.0-only WITH GCC-exception-3.1"),
    ("StandardML-NJ", "SMLNJ"),
    ("bzip2-1.0.5", "bzip2-1.0.6"),
    ("OpenMDW-1.1", "LicenseRef-OpenMDW-1.1"),
];

/// A word of an expression as SPDX writes it: an identifier, an operator, or what it was.
fn canonical(word: &str) -> String {
    if let Some(operator) = ["AND", "OR", "WITH"].into_iter().find(|operator| operator.eq_ignore_ascii_case(word)) {
        return operator.into();
    }
    let same = |known: &&str| known.eq_ignore_ascii_case(word);
    if let Some((_, now)) = REPLACED.iter().find(|(old, _)| same(old)) {
        return (*now).into();
    }
    let (id, later) = word.strip_suffix('+').map_or((word, ""), |id| (id, "+"));
    if let Some(old) = GNU.iter().find(|old| old.eq_ignore_ascii_case(id)) {
        return format!("{old}-{}", if later.is_empty() { "only" } else { "or-later" });
    }
    let mut ids = spdx::identifiers::LICENSES.iter().map(|license| license.name);
    if let Some(known) = ids.find(|known| known.eq_ignore_ascii_case(id)) {
        return format!("{known}{later}");
    }
    if let Some(exception) = spdx::identifiers::EXCEPTIONS.iter().map(|exception| exception.name).find(same) {
        return exception.into();
    }
    match word.get(..OWN.len()) {
        Some(start) if start.eq_ignore_ascii_case(OWN) => {
            let own = format!("{OWN}{}", &word[OWN.len()..]);
            if own.eq_ignore_ascii_case(OPENMDW_1_1_ID) { OPENMDW_1_1_ID.into() } else { own }
        }
        _ => word.into(),
    }
}

/// What the names of terms that are somebody's own begin with.
const OWN: &str = "LicenseRef-";
const OPENMDW_1_1_ID: &str = "LicenseRef-OpenMDW-1.1";

/// Whether a name is missing after `LicenseRef-` or `DocumentRef-`.
fn is_nameless(word: &str) -> bool {
    word == OWN || word.ends_with(":LicenseRef-") || word == "DocumentRef-"
}

/// The identifier that may be meant by the first word that is none.
fn nearest_id(words: &[String]) -> Option<&'static str> {
    let is_known = |word: &&String| {
        ["AND", "OR", "WITH", "(", ")"].contains(&word.as_str())
            || spdx::license_id(word.trim_end_matches('+')).is_some()
            || word.starts_with(OWN)
    };
    let word = words.iter().find(|word| !is_known(word))?;
    // `MIT-ish` begins with a licence's name.
    let begun = |id: &&str| word.strip_prefix(*id).is_some_and(|rest| rest.starts_with('-'));
    let ids = || spdx::identifiers::LICENSES.iter().map(|license| license.name);
    ids().filter(begun).max_by_key(|id| id.len()).or_else(|| crate::error::nearest(word, ids().chain([OPENMDW_1_1_ID])))
}

/// The text of one licence by identifier.
pub fn text_of(id: &str) -> Option<&'static str> {
    match id {
        "LicenseRef-OpenMDW-1.1" => Some(OPENMDW_1_1),
        "OpenMDW-1.0" => Some(OPENMDW_1_0),
        _ => spdx::license_id(id).map(|license| license.text()),
    }
}

impl fmt::Display for License {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for License {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::parse(text)
    }
}

impl Serialize for License {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for License {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(|error| {
            let help = error.help_text().map(|help| format!("; {help}")).unwrap_or_default();
            serde::de::Error::custom(format!("{}{help}", error.what()))
        })
    }
}

impl schemars::JsonSchema for License {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "License".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "format": "spdx-expression", "description": "An SPDX licence expression (https://spdx.org/licenses); `OpenMDW-1.1` and `LicenseRef-…` are accepted"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_expressions() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("Apache-2.0  OR MIT", "Apache-2.0 OR MIT"),
            ("OpenMDW-1.1", "LicenseRef-OpenMDW-1.1"),
            ("(OpenMDW-1.1 OR MIT)", "(LicenseRef-OpenMDW-1.1 OR MIT)"),
            ("OpenMDW-1.0", "OpenMDW-1.0"),
            ("CC-BY-4.0", "CC-BY-4.0"),
            // As license-expression 30.4 reads them.
            ("mit", "MIT"),
            ("MIT and apache-2.0", "MIT AND Apache-2.0"),
            ("mit or (cc-by-4.0 And agpl-3.0)", "MIT OR (CC-BY-4.0 AND AGPL-3.0-only)"),
            ("GPL-2.0", "GPL-2.0-only"),
            ("gpl-2.0+", "GPL-2.0-or-later"),
            ("LGPL-2.1+ with classpath-exception-2.0", "LGPL-2.1-or-later WITH Classpath-exception-2.0"),
            ("GPL-2.0-with-classpath-exception", "GPL-2.0-only WITH Classpath-exception-2.0"),
            ("epl-1.0+", "EPL-1.0+"),
            ("licenseref-openmdw-1.1", "LicenseRef-OpenMDW-1.1"),
            ("licenseref-Gemma", "LicenseRef-Gemma"),
        ] {
            assert_eq!(License::parse(text).unwrap().as_str(), expected, "{text}");
        }
    }

    #[test]
    fn refuses_with_the_nearest() {
        for (text, near) in [
            ("CC-BY4.0", "`CC-BY-4.0`"),
            ("Apache2.0", "`Apache-2.0`"),
            ("MIT-ish", "`MIT`"),
            ("MIT OR apach-2.0", "`Apache-2.0`"),
            ("LicenseRef-", "`LicenseRef-NAME`"),
        ] {
            let error = License::parse(text).unwrap_err();
            assert!(error.help_text().unwrap().contains(near), "{error}");
        }
    }

    #[test]
    fn what_states_no_licence_is_none() {
        for text in ["NOASSERTION", "NONE", "MIT AND NOASSERTION"] {
            assert!(License::parse(text).unwrap_err().what().contains("states no licence"), "{text}");
        }
    }

    #[test]
    fn both_openmdw_texts_are_distinct() {
        let texts: Vec<_> =
            ["OpenMDW-1.0", "OpenMDW-1.1"].map(|id| License::parse(id).unwrap().texts()).into_iter().collect();
        assert!(texts[0]["OpenMDW-1.0"].contains("infringe any patent,"), "1.0 ends on suits over patents alone");
        assert!(texts[1]["LicenseRef-OpenMDW-1.1"].contains("any patent or copyright"));
        assert_eq!(License::parse("Apache-2.0 OR MIT").unwrap().texts().len(), 2);
    }

    #[test]
    fn expressions_are_evaluated() {
        for (text, accepted, expected) in [
            ("MIT", &["MIT"][..], true),
            ("MIT OR CC-BY-NC-4.0", &["MIT"], true),
            ("MIT AND CC-BY-NC-4.0", &["MIT"], false),
            ("(MIT OR GPL-3.0-only) AND CC0-1.0", &["MIT", "CC0-1.0"], true),
            ("LicenseRef-OpenMDW-1.1 OR MIT", &["LicenseRef-OpenMDW-1.1"], true),
            ("GPL-2.0-or-later", &["GPL-2.0-or-later"], true),
            ("GPL-2.0-only WITH Classpath-exception-2.0", &["GPL-2.0-only"], true),
            ("MIT WITH AdditionRef-x", &["MIT"], false),
        ] {
            assert_eq!(License::parse(text).unwrap().evaluate(|id| accepted.contains(&id)), expected, "{text}");
        }
    }

    #[test]
    fn terms_of_licences() {
        for (id, expected) in [
            ("CC-BY-NC-4.0", &["non-commercial"][..]),
            ("CC-BY-NC-ND-4.0", &["non-commercial", "no-derivatives"]),
            ("CC-BY-SA-4.0", &["share-alike", "fsf-libre"]),
            ("ODbL-1.0", &["share-alike", "fsf-libre"]),
            ("GPL-3.0-only", &["share-alike", "osi-approved", "fsf-libre"]),
            ("CC0-1.0", &["fsf-libre"]),
            ("Apache-2.0", &["osi-approved", "fsf-libre"]),
            ("OpenMDW-1.0", &[]),
            ("LicenseRef-OpenMDW-1.1", &[]),
            ("LicenseRef-mine", &["unknown"]),
            ("LicenseRef-fair-noncommercial-research-license", &["non-commercial", "unknown"]),
            ("LicenseRef-cc-by-nc", &["non-commercial", "unknown"]),
            ("NCGL-UK-2.0", &["non-commercial"]),
            ("PPL", &["non-commercial", "share-alike"]),
            ("EPL-2.0", &["share-alike", "osi-approved", "fsf-libre"]),
            ("SSPL-1.0", &["share-alike"]),
            ("CERN-OHL-S-2.0", &["share-alike", "osi-approved"]),
            ("MIT WITH AdditionRef-NonCommercial", &["non-commercial", "unknown"]),
            ("MIT WITH AdditionRef-x", &["unknown"]),
        ] {
            let found: Vec<_> = Term::ALL.into_iter().filter(|term| term.applies(id)).map(Term::name).collect();
            assert_eq!(found, expected, "{id}");
        }
    }
}
