//! Licences: validated SPDX expressions, and their texts. Both OpenMDW versions are known;
//! 1.1 is not in SPDX's list, so it is written `LicenseRef-OpenMDW-1.1` as its FAQ prescribes.

use crate::error::{Error, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use spdx::detection::{Store, TextData};
use std::{collections::BTreeMap, fmt, str::FromStr, sync::OnceLock};

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

    /// Reads an SPDX expression. `OpenMDW-1.1` is accepted for `LicenseRef-OpenMDW-1.1`.
    ///
    /// # Errors
    /// If it is not a valid expression; the help names the nearest identifier.
    pub fn parse(text: &str) -> Result<Self> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let text = words.join(" ").split(' ').map(openmdw_alias).collect::<Vec<_>>().join(" ");
        if text.split([' ', '(', ')']).any(|word| ["NOASSERTION", "NONE"].contains(&word)) {
            return Err(Error::input(format!("`{text}` states no licence"))
                .help("leave it out where no licence is known: it then counts as undeclared"));
        }
        match spdx::Expression::parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(error) => {
                let report = Error::input(format!("`{text}` is not an SPDX licence expression")).cause(&error.reason);
                let ids = spdx::identifiers::LICENSES.iter().map(|license| license.name);
                Err(match crate::error::nearest(&text, ids.chain(["LicenseRef-OpenMDW-1.1"])) {
                    Some(near) => report.help(format!("did you mean `{near}`? the list: https://spdx.org/licenses")),
                    None => report
                        .help("use an identifier of https://spdx.org/licenses, or `LicenseRef-…` for your own text"),
                })
            }
        }
    }

    /// The licence that a tag stands for, as model cards and GGUF files have it: an SPDX identifier in any case, or a name
    /// of somebody's own (`llama3.1`), which becomes a `LicenseRef-`. None if it says nothing, as `other` does.
    pub fn of_tag(tag: &str) -> Option<Self> {
        let tag = tag.trim();
        if tag.is_empty() || ["other", "unknown", "none"].iter().any(|nothing| tag.eq_ignore_ascii_case(nothing)) {
            return None;
        }
        let known = spdx::identifiers::LICENSES.iter().find(|license| license.name.eq_ignore_ascii_case(tag));
        if let Ok(license) = Self::parse(known.map_or(tag, |license| license.name)) {
            return Some(license);
        }
        let own = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        Self::parse(&format!("LicenseRef-{}", tag.chars().map(own).collect::<String>())).ok()
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
    /// Whether the expression holds when each licence in it is judged by `accept`: one side of an `OR` is enough, an `AND`
    /// needs both.
    pub fn evaluate(&self, mut accept: impl FnMut(&str) -> bool) -> bool {
        let Ok(expression) = spdx::Expression::parse(&self.0) else { return false };
        expression.evaluate(|requirement| accept(&requirement.license.to_string()))
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
                parts().any(|part| part == "NC") || id.starts_with("PolyForm-Noncommercial") || id == "JPL-image"
            }
            Term::NoDerivatives => parts().any(|part| part == "ND"),
            Term::ShareAlike => {
                parts().any(|part| part == "SA")
                    || ["ODbL-1.0", "CDLA-Sharing-1.0", "Community-Spec-1.0"].contains(&id)
                    || known.is_some_and(|license| license.is_copyleft())
            }
            Term::Unknown => known.is_none() && id != "LicenseRef-OpenMDW-1.1",
            Term::OsiApproved => known.is_some_and(|license| license.is_osi_approved()),
            Term::FsfLibre => known.is_some_and(|license| license.is_fsf_free_libre()),
        }
    }
}

/// How near a text must be to a licence's own to be taken for it.
const DETECTION_THRESHOLD: f32 = 0.93;

/// The licences that texts are compared with.
const DETECTED: [&str; 60] = [
    "0BSD",
    "AFL-3.0",
    "AGPL-3.0-only",
    "Apache-2.0",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSD-4-Clause",
    "BSL-1.0",
    "C-UDA-1.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-NC-3.0",
    "CC-BY-NC-4.0",
    "CC-BY-NC-ND-4.0",
    "CC-BY-NC-SA-3.0",
    "CC-BY-NC-SA-4.0",
    "CC-BY-ND-4.0",
    "CC-BY-SA-3.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CDLA-Permissive-1.0",
    "CDLA-Permissive-2.0",
    "CDLA-Sharing-1.0",
    "CECILL-2.1",
    "ECL-2.0",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.1",
    "EUPL-1.2",
    "GPL-2.0-only",
    "GPL-3.0-only",
    "HPND",
    "ISC",
    "LGPL-2.1-only",
    "LGPL-3.0-only",
    "LPPL-1.3c",
    "MIT",
    "MIT-0",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "MS-RL",
    "MulanPSL-2.0",
    "NCSA",
    "ODbL-1.0",
    "ODC-By-1.0",
    "OFL-1.1",
    "OSL-3.0",
    "PDDL-1.0",
    "PostgreSQL",
    "Python-2.0",
    "UPL-1.0",
    "Unlicense",
    "WTFPL",
    "X11",
    "Zlib",
];

/// The identifier of the licence whose text this is, if it is near enough to one that is known. Copyright lines do not count.
pub fn detect(text: &str) -> Option<&'static str> {
    static STORE: OnceLock<Store> = OnceLock::new();
    let store = STORE.get_or_init(|| {
        let mut store = Store::new();
        for id in DETECTED.into_iter().chain(["OpenMDW-1.0", "LicenseRef-OpenMDW-1.1"]) {
            if let Some(text) = text_of(id) {
                store.add_license(id.into(), TextData::new(text));
            }
        }
        store
    });
    let found = store.analyze(&TextData::new(text));
    // Two versions of OpenMDW differ in three words: the statement on suits decides.
    let name = match found.name {
        "OpenMDW-1.0" | "LicenseRef-OpenMDW-1.1" if text.contains("any patent or copyright") => {
            "LicenseRef-OpenMDW-1.1"
        }
        "OpenMDW-1.0" | "LicenseRef-OpenMDW-1.1" => "OpenMDW-1.0",
        other => other,
    };
    let known = DETECTED.into_iter().chain(["OpenMDW-1.0", "LicenseRef-OpenMDW-1.1"]).find(|id| *id == name);
    known.filter(|_| found.score >= DETECTION_THRESHOLD)
}

/// The SPDX identifier that is spelt like this but for upper and lower case.
pub fn find(name: &str) -> Option<&'static str> {
    spdx::identifiers::LICENSES.iter().map(|license| license.name).find(|known| known.eq_ignore_ascii_case(name))
}

fn openmdw_alias(word: &str) -> String {
    let core = word.trim_matches(['(', ')']);
    if core.eq_ignore_ascii_case("OpenMDW-1.1") { word.replace(core, "LicenseRef-OpenMDW-1.1") } else { word.into() }
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
    fn tags_stand_for_licences() {
        for (tag, expected) in [
            ("apache-2.0", Some("Apache-2.0")),
            ("MIT", Some("MIT")),
            ("Apache-2.0 OR MIT", Some("Apache-2.0 OR MIT")),
            ("openmdw-1.1", Some("LicenseRef-OpenMDW-1.1")),
            ("llama3.1", Some("LicenseRef-llama3.1")),
            ("my own terms", Some("LicenseRef-my-own-terms")),
            ("other", None),
            ("", None),
        ] {
            assert_eq!(License::of_tag(tag).as_ref().map(License::as_str), expected, "{tag}");
        }
    }

    #[test]
    fn accepts_expressions() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("Apache-2.0  OR MIT", "Apache-2.0 OR MIT"),
            ("OpenMDW-1.1", "LicenseRef-OpenMDW-1.1"),
            ("(OpenMDW-1.1 OR MIT)", "(LicenseRef-OpenMDW-1.1 OR MIT)"),
            ("OpenMDW-1.0", "OpenMDW-1.0"),
            ("CC-BY-4.0", "CC-BY-4.0"),
        ] {
            assert_eq!(License::parse(text).unwrap().as_str(), expected);
        }
    }

    #[test]
    fn refuses_with_the_nearest() {
        for (text, near) in [("CC-BY4.0", "CC-BY-4.0"), ("Apache2.0", "Apache-2.0")] {
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
        ] {
            let found: Vec<_> = Term::ALL.into_iter().filter(|term| term.applies(id)).map(Term::name).collect();
            assert_eq!(found, expected, "{id}");
        }
    }

    #[test]
    fn texts_are_recognised() {
        let mit = text_of("MIT").unwrap().replace("<year> <copyright holders>", "2015 Some Body");
        assert_eq!(detect(&mit), Some("MIT"));
        for id in ["Apache-2.0", "CC-BY-4.0", "CC-BY-NC-4.0", "CC0-1.0", "OpenMDW-1.0", "LicenseRef-OpenMDW-1.1"] {
            assert_eq!(detect(text_of(id).unwrap()), Some(id));
        }
        assert_eq!(detect("All rights reserved. You may look at this."), None);
        assert_eq!(detect(""), None);
    }
}
